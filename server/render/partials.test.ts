import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import Handlebars from 'handlebars'
import { AppError } from '../errors.ts'
import type { Channel, JsonObject } from '../types.ts'
import {
  type TemplateRevision,
  checkRevision,
  compileRevision,
  render,
  validateRevision,
  readBy,
} from './content.ts'
import type { Escape } from './escape.ts'
import { type Layout, calledIn, isDocument, partialsOf, takenInFirst } from './partials.ts'
import { type Partial, type Partials, type View, compileTemplate } from './template.ts'
import { warningsOf } from './publish.ts'

const viewOf = (data: Record<string, unknown>): View => ({
  names: { data },
  layers: [data],
  locale: 'en',
  timezone: 'UTC',
})

/** Partials that all see each other. */
function book(sources: Record<string, string>): Partials {
  const made = new Map<string, Partial>()
  const partials: Partials = name => made.get(name) ?? `there is no partial "${name}"`
  for (const [name, source] of Object.entries(sources)) {
    made.set(name, { source, partials, messages: undefined })
  }
  return partials
}

const say = (
  source: string,
  sources: Record<string, string>,
  data: Record<string, unknown> = {},
  escape: Escape = 'html',
) => compileTemplate(source, escape, undefined, book(sources)).render(viewOf(data))

function refusal(source: string, sources: Record<string, string>, escape: Escape = 'html'): string {
  try {
    compileTemplate(source, escape, undefined, book(sources))
  } catch (error) {
    assert.ok(error instanceof AppError && error.code === 'invalid_template', String(error))
    return error.message
  }
  return assert.fail(`${source} should be refused`)
}

// --------------------------------------------------------------------------------------- the bounds

test('comments of partials count each time they are taken in: they are parsed each time as well', () => {
  const sources = { silent: '{{! x}}'.repeat(2_000) }
  assert.equal(say('{{> silent}}{{> silent}}.', sources), '.')
  assert.match(
    refusal('{{> silent}}{{> silent}}{{> silent}}', sources),
    /with its partials the text is too long/,
  )
})

test('an indent counts before the lines are indented', () => {
  const lines = '\n'.repeat(20_000)
  // 5 GB, more than a text of Node may have: it would be another error.
  assert.throws(
    () => say(`\n${' '.repeat(250_000)}{{> lines}}\n`, { lines }, {}, 'none'),
    /the result is longer than 1048576 characters/,
  )
})

test('partials that name each other in comments are looked at once each to find a document', () => {
  const names = Array.from({ length: 50 }, (_, i) => `p${i}`)
  const all = names.map(name => `{{!-- {{> ${name}}} --}}`).join('')
  const asked = new Map<string, number>()
  const partials: Partials = name => {
    asked.set(name, (asked.get(name) ?? 0) + 1)
    return made.get(name)!
  }
  const made = new Map(names.map(name => [name, { source: all, partials, messages: undefined }]))
  assert.equal(isDocument(all, partials), false)
  // Once in each text that names it: 50 partials and the text itself.
  assert.deepEqual(new Set(asked.values()), new Set([51]))
})

test('templates are put in order, each looked at once, however they name each other', () => {
  const names = Array.from({ length: 40 }, (_, i) => `t${i}`)
  const asked: string[] = []
  const ordered = takenInFirst(
    names.map(name => ({ name })),
    ({ name }) => {
      asked.push(name)
      // All that come after it, itself, and the first: a circle.
      return [...names.slice(names.indexOf(name)), 't0', 'elsewhere']
    },
  )
  assert.deepEqual(
    ordered.map(({ name }) => name),
    names.toReversed(),
  )
  assert.equal(asked.length, names.length)
})

// --------------------------------------------------------------------------------------- the language

// covers: PFM-154
test('a layout is written around a block, with two braces on either side', () => {
  const base = '<html><body>{{> @partial-block}}<p>{{footer}}</p></body></html>'
  const source = '{{#> base}}\n<h2>{{title}}</h2>\n{{/base}}'
  assert.equal(
    say(source, { base }, { title: 'a < b', footer: '&' }),
    '<html><body><h2>a &lt; b</h2>\n<p>&amp;</p></body></html>',
  )
  // What the document wrote, an opening without #, has no end: said with its place.
  assert.match(refusal('{{> base}}\n<h2>{{title}}</h2>\n{{/base}}', { base }), /^line 3, column 1: /)
})

test('partials give what Handlebars gives, wherever they are called and whatever they are given', () => {
  const names = ['row', 'box', 'note'] as const
  const leaf = fc.constantFrom('{{a}}', '{{this.b}}', 'x\n', '<p>', '{{c.a}}', ' ')
  const leaves = fc.array(leaf, { minLength: 1, maxLength: 4 }).map(parts => parts.join('|'))
  // No partial calls one that comes before it, so none takes in itself.
  const row = leaves
  const note = fc.tuple(leaves, leaves).map(([a, b]) => `${a}{{> row}}\n  {{> row c}}\n${b}`)
  const box = fc
    .tuple(leaves, leaves, fc.boolean())
    .map(([a, b, twice]) => `${a}[{{> @partial-block}}]${twice ? '{{> @partial-block}}' : ''}{{> note}}${b}`)
  const inner = fc.array(
    fc.oneof(
      leaf,
      fc.constantFrom(...names.filter(name => name !== 'box')).map(name => `{{> ${name}}}`),
      fc.constantFrom('\n   {{> row}}\n', '{{> row c}}', '{{> "note" this}}', '{{~> row ~}}'),
    ),
    { maxLength: 4 },
  )
  const body = inner.map(parts => parts.join('|'))
  const source = fc.tuple(body, body, body).map(
    // Within a loop, around a block, and a block within a block.
    ([a, b, c]) =>
      `|${a}{{#each items}}\n${b}{{> row}}{{/each}}\n{{#> box}}\n${c}{{#> box}}${a}{{/box}}\n{{/box}}\n|`,
  )
  const item = fc.record({ a: fc.constantFrom('1', '<b>', ''), b: fc.integer() })
  const data = fc.record({
    a: fc.constantFrom('A', '&'),
    b: fc.integer(),
    c: item,
    items: fc.array(fc.record({ a: fc.string({ maxLength: 3 }), c: item }), { maxLength: 3 }),
  })
  fc.assert(
    fc.property(source, row, note, box, data, (text, ...rest) => {
      const given = rest.pop() as Record<string, unknown>
      const [r, n, b] = rest as string[]
      const partials = { row: r!, note: n!, box: b! }
      const expected = Handlebars.compile(text)(given, { partials, allowProtoPropertiesByDefault: false })
      assert.equal(say(text, partials, given), expected)
    }),
    { numRuns: 500 },
  )
})

test('a partial looks at what it is given, and sees values by their names', () => {
  const sources = {
    row: '<td>{{label}}: {{sum}}{{#if (gt sum 5)}}!{{/if}} {{a}}</td>',
    item: '{{name}}{{@index}}{{#unless @last}}, {{/unless}}',
    card: '{{title}}({{> @partial-block}})',
  }
  assert.equal(say('{{> row label="Sum" sum=data.n}}', sources, { n: 7, a: 1 }), '<td>Sum: 7! 1</td>')
  assert.equal(
    say('{{> row other label=x sum=y}}', sources, { other: { a: 2 }, x: 'X', y: 1 }),
    '<td>X: 1 2</td>',
  )
  assert.equal(
    say('{{#each items}}{{> item}}{{/each}}', sources, { items: [{ name: 'a' }, { name: 'b' }] }),
    'a0, b1',
  )
  // A block sees what it would see without the layout; what the layout was given is the layout's.
  assert.equal(
    say('{{#each items}}{{#> card title="T"}}{{name}}{{../x}}{{title}}{{/card}}{{/each}}', sources, {
      items: [{ name: 'a' }],
      x: 'X',
      title: 'outer',
    }),
    'T(aX)',
  )
})

test('what a partial is given says which fields are read', () => {
  const { variables } = compileTemplate(
    '{{#each items}}{{> row}}{{/each}}{{> row other label=x.y}}',
    'none',
    undefined,
    book({ row: '{{name}}{{label.z}}' }),
  )
  assert.deepEqual(variables.toSorted(), [
    'items',
    'items[].label.z',
    'items[].name',
    'other',
    'other.name',
    'x.y',
    'x.y.z',
  ])
})

test('values of a partial are written as what belongs where it is called', () => {
  const sources = { value: '{{v}}', link: 'https://x.test/{{v}}' }
  const v = '"><script>'
  assert.equal(
    say('<a href="{{> link}}">{{> value}}</a>', sources, { v }),
    '<a href="https://x.test/&quot;&gt;&lt;script&gt;">&quot;&gt;&lt;script&gt;</a>',
  )
  assert.equal(say('<a href="{{> value}}">', sources, { v: 'javascript:alert(1)' }), '<a href="#">')
  assert.deepEqual(JSON.parse(say('{"a": "{{> value}}", "b": {{> value}} }', sources, { v }, 'json')), {
    a: v,
    b: v,
  })
  assert.equal(say('{{> value}}', sources, { v: '<!here>' }, 'slack'), '&lt;!here&gt;')
  // A layout that puts its block into a script has nowhere for a value to go.
  assert.match(
    refusal('<p>\n{{#> js}}{{v}}{{/js}}', { js: '<script>{{> @partial-block}}</script>' }),
    /^line 2, column 10: a value cannot stand in a script/,
  )
  assert.match(refusal('{"a": {{> half}} }', { half: '{{#if x}}"b{{else}}"c"{{/if}}' }, 'json'), /in "half"/)
})

test('without a block, @partial-block is what stands in it, or nothing', () => {
  const sources = { box: '[{{#> @partial-block}}none{{/@partial-block}}]', bare: '[{{> @partial-block}}]' }
  assert.equal(say('{{> box}}{{#> box}}some{{/box}}{{> bare}}', sources), '[none][some][]')
  assert.equal(say('<{{> @partial-block}}>', sources, {}, 'none'), '<>')
})

// ------------------------------------------------------------------------------------------- refusals

test('a mistake is said where it is: in the text, in the partial and where that is called, in a block', () => {
  assert.equal(refusal('a\n {{> gone}}', {}), 'line 2, column 2: there is no partial "gone"')
  assert.match(
    refusal('a\n {{> p}}', { p: 'x\n\n  {{nope x}}' }),
    /^line 2, column 2: in "p": line 3, column 3: there is no helper "nope"/,
  )
  assert.match(refusal('{{> p}}', { p: '{{> q}}', q: '{{#if}}' }), /in "p": line 1, column 1: in "q": line 1/)
  // The block is the text's own: nothing of the layout is said.
  assert.match(
    refusal('{{#> p}}\n{{nope x}}{{/p}}', { p: '<p>{{> @partial-block}}</p>' }),
    /^line 2, column 1: there/,
  )
  assert.match(
    refusal('{{> outer}}', { outer: '{{#> p}}\n{{nope x}}{{/p}}', p: '<p>{{> @partial-block}}</p>' }),
    /^line 1, column 1: in "outer": line 2, column 1: there is no helper/,
  )
})

test('what a partial cannot be', () => {
  assert.match(
    refusal('{{> a}}', { a: '{{> b}}', b: 'x{{> a}}' }),
    /in "b": line 1, column 2: the partial "a" takes in itself/,
  )
  assert.match(refusal('{{#> a}}x{{/a}}', { a: '{{#> a}}y{{/a}}' }), /takes in itself/)
  assert.match(refusal('{{> (lookup this "x")}}', {}), /called by its name/)
  assert.match(refusal('{{> a b c}}', { a: '' }), /one thing/)
  assert.match(refusal('{{> a b=1 b=2}}', { a: '' }), /already/)
  assert.match(refusal('{{> @other}}', {}), /@partial-block/)
  assert.match(refusal('{{#> a}}x{{/a}}', { a: '{{> @partial-block this}}' }), /no arguments/)
  assert.match(refusal('{{#each x}}{{> a}}{{/each}}', { a: '{{../y}}' }), /goes above the top/)
  // Block parameters end at the partial; what it is given goes no further than itself.
  assert.equal(say('{{#each x as |v|}}{{> a}}{{/each}}', { a: '[{{v}}]' }, { x: [1] }), '[]')
  assert.equal(say('{{> a n=1}}', { a: '{{> b}}', b: '[{{n}}]' }), '[]')
  // Not within itself, but as often as one likes beside itself, and within a block of its own.
  assert.equal(say('{{#> a}}{{#> a}}x{{/a}}{{/a}}{{> a}}', { a: '[{{> @partial-block}}]' }), '[[x]][]')
})

test('what partials come to is bounded when the text is compiled', () => {
  const doubling: Record<string, string> = { p0: '{{a}}' }
  for (let i = 1; i <= 7; i++) doubling[`p${i}`] = `{{> p${i - 1}}}`.repeat(8)
  assert.match(refusal('{{> p7}}', doubling), /too long/)
  const deep: Record<string, string> = { p0: 'x' }
  for (let i = 1; i <= 9; i++) deep[`p${i}`] = `{{> p${i - 1}}}`
  assert.match(refusal('{{> p9}}', deep), /more than 8 deep/)
  assert.equal(say('{{> p7}}', deep), 'x')
  const large = { twice: '{{> @partial-block}}'.repeat(20) }
  assert.match(refusal(`{{#> twice}}${'x'.repeat(100_000)}{{/twice}}`, large), /too long/)
  // Each level is entered as often as the one before it has levels.
  const nested = (name: string, depth: number) =>
    `${`{{#> ${name}}}`.repeat(depth)}{{> @partial-block}}${`{{/${name}}}`.repeat(depth)}`
  const tower = { a: nested('b', 10), b: nested('c', 10), c: '[{{> @partial-block}}]' }
  assert.match(refusal('{{#> a}}x{{/a}}', tower), /nested more than 64 deep/)
  assert.equal(say('{{#> c}}{{#> c}}x{{/c}}{{/c}}', tower), '[[x]]')
  const branches = `${'{{#if a}}'.repeat(30)}{{> @partial-block}}${'{{/if}}'.repeat(30)}`
  const deepest = { d: branches, e: nested('d', 31) }
  assert.equal(say('{{#> e}}x{{/e}}', deepest, { a: 1 }), 'x')
  // A loop through a partial costs what the partial costs.
  const data = { l: Array.from({ length: 1_000 }, () => Array.from({ length: 1_000 }, () => 1)) }
  assert.throws(
    () => say('{{#each l}}{{#each this}}{{> p}}{{/each}}{{/each}}', { p: '{{a}}' }, data),
    /more than 200000 steps/,
  )
})

// ------------------------------------------------------------------------------------------- revisions

const revisionOf = (parts: globalThis.Partial<TemplateRevision>): TemplateRevision => ({
  templateId: 't',
  name: 'order',
  revision: 1,
  channels: {},
  ...parts,
})

const layoutOf = (parts: globalThis.Partial<Layout>): Layout => ({
  templateId: 'b',
  revision: 3,
  locale: 'en',
  texts: {},
  partials: {},
  layouts: {},
  messages: {},
  variables: [],
  ...parts,
})

function rendered(
  parts: globalThis.Partial<TemplateRevision>,
  channel: Channel,
  locale = 'en',
  data: JsonObject = {},
) {
  const revision = revisionOf(parts)
  validateRevision(revision)
  return render(compileRevision(revision), channel, locale, { ...viewOf(data), locale })
}

// covers: PFM-154
test('`base` is there for everybody: a whole document in the reader’s language, titled with the subject', () => {
  const channels = { email: { subject: 'Hello {{name}}', html: '{{#> base}}<p>{{name}}</p>{{/base}}' } }
  const mail = rendered(
    { channels, translations: { ar: { email: { subject: 'أهلا', html: '{{#> base}}س{{/base}}' } } } },
    'email',
    'en',
    {
      name: '<Ann>',
    },
  )
  assert.match(mail.html!, /^<!doctype html>\n<html lang="en" dir="ltr">/)
  assert.match(mail.html!, /<title>Hello &lt;Ann&gt;<\/title>/)
  assert.match(mail.html!, /<p>&lt;Ann&gt;<\/p>/)
  assert.match(mail.html!, /name="color-scheme" content="light dark"/)
  assert.equal(mail.body, '<Ann>')

  const arabic = rendered(
    { channels, translations: { ar: { email: { html: '{{#> base}}س{{/base}}' } } } },
    'email',
    'ar',
  )
  assert.match(arabic.html!, /^<!doctype html>\n<html lang="ar" dir="rtl">/)
  assert.equal(arabic.html!.match(/<html/g)!.length, 1)

  const [problem] = checkRevision(revisionOf({ channels: { sms: { body: 'a\n{{#> base}}x{{/base}}' } } }))
  assert.deepEqual([problem!.field, problem!.line], ['/channels/sms/body', 2])
  assert.match(problem!.message, /layout of HTML/)
})

test('a name is the revision’s own partial, else another template, else base', () => {
  const channels = { email: { html: '{{> base}}' }, in_app: { body: '{{> sign}}' } }
  const layouts = { base: layoutOf({ texts: { en: { email: { html: '<i>brand</i>' } } } }) }
  assert.equal(
    rendered({ channels, layouts, partials: { sign: 'S {{n}}', base: '<b>own</b>' } }, 'email').html,
    '<b>own</b>',
  )
  assert.equal(rendered({ channels, layouts, partials: { sign: 'S {{n}}' } }, 'email').html, '<i>brand</i>')
  assert.equal(
    rendered({ channels, layouts, partials: { sign: 'S {{n}}' } }, 'in_app', 'en', { n: 1 }).body,
    'S 1',
  )
})

test('another template gives the text of the channel, the field and the language, with its own words', () => {
  const brand = layoutOf({
    texts: {
      en: {
        email: {
          subject: '[Shop] {{> @partial-block}}',
          html: '<html><body>{{> @partial-block}}{{t "bye"}}{{> logo}}</body></html>',
        },
        default: { body: '{{> @partial-block}} - {{t "bye"}}' },
      },
      de: { email: { html: '<html><body>DE {{> @partial-block}}{{t "bye"}}</body></html>' } },
    },
    partials: { logo: '<img alt="{{shop}}">' },
    messages: { en: { bye: 'Bye' }, de: { bye: 'Tschüs' } },
    variables: [{ name: 'shop', default: 'The shop' }],
  })
  const parts = {
    channels: {
      email: { subject: '{{#> brand}}Order{{/brand}}', html: '{{#> brand}}{{t "hi"}}{{/brand}}' },
      default: { body: '{{#> brand}}{{t "hi"}}{{/brand}}' },
    },
    translations: { de: { email: { html: '{{#> brand}}{{t "hi"}}!{{/brand}}' } } },
    messages: { en: { hi: 'Hi' }, de: { hi: 'Hallo' } },
    layouts: { brand },
  }
  const english = rendered(parts, 'email')
  assert.equal(english.subject, '[Shop] Order')
  assert.equal(english.html, '<html lang="en"><body>HiBye<img alt="The shop"></body></html>')
  const german = rendered(parts, 'email', 'de-AT')
  assert.equal(german.html, '<html lang="de"><body>DE Hallo!Tschüs</body></html>')
  assert.equal(german.subject, '[Shop] Order')
  assert.equal(rendered(parts, 'sms').body, 'Hi - Bye')
  assert.deepEqual(readBy(revisionOf(parts)).fields, ['shop'])

  const [problem] = checkRevision(
    revisionOf({
      channels: { push: { body: '{{> mail}}' } },
      layouts: { mail: layoutOf({ texts: { en: { email: { html: 'x' } } } }) },
    }),
  )
  assert.match(problem!.message, /"mail" has no body for push/)
})

test('a wrong partial is said once, by its own name; one that nobody uses is worth a word', () => {
  const channels = { email: { html: '{{> a}}{{> a}}' }, default: { body: '{{> a}}' } }
  const problems = checkRevision(revisionOf({ channels, partials: { a: 'x\n{{#if}}' } }))
  assert.deepEqual(
    problems.map(({ field, line }) => [field, line]),
    [['/partials/a', 2]],
  )
  assert.deepEqual(
    warningsOf({ channels, translations: {}, partials: { a: 'x', b: 'y' } }).map(({ field }) => field),
    ['/partials/b'],
  )
})

test('what all texts of a revision take in is bounded together', () => {
  const partials = { big: '{{a}}'.repeat(2_000) }
  const channels = { email: { body: '{{> big}}' } }
  const tags = ['de', 'fr', 'es', 'it', 'pl', 'pt', 'nl', 'sv', 'da', 'fi']
  const translations = Object.fromEntries(tags.map(tag => [tag, { email: { body: '{{> big}}' } }]))
  assert.deepEqual(checkRevision(revisionOf({ channels, partials })), [])
  assert.match(checkRevision(revisionOf({ channels, translations, partials }))[0]!.message, /too long/)
})

test('names are found however they are written', () => {
  const found = calledIn(
    { a: '{{> x}}{{#>y}}{{~#> [my layout] a=1}}', b: ['{{> "q r"}} {{> z/w x}} {{> @partial-block}}'] },
    'a > b',
  )
  assert.deepEqual([...found], ['x', 'y', 'my layout', 'q r', 'z/w'])
  const partials = partialsOf({ messages: undefined }, { channel: 'email', locale: 'en', field: 'html' })
  assert.equal(partials('base'), partials('base'))
})
