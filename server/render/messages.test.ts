import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import { checkRevision, compileRevision, render } from './content.ts'
import { MAX_MESSAGE, catalogue, compileMessage } from './messages.ts'
import { type View, compileTemplate } from './template.ts'

const view = (data: Record<string, unknown>, more: Partial<View> = {}): View => ({
  names: { data },
  layers: [data],
  locale: 'en',
  timezone: 'UTC',
  ...more,
})
const say = (source: string, values: Record<string, unknown>, locale = 'en', timezone = 'UTC') =>
  compileMessage(source, locale).format(arg => values[arg], { locale, timezone })
const plain = (text: string) => text.replaceAll(/[\u00a0\u202f]/g, ' ')

test('plurals, ordinals, choices by word', () => {
  const polish = '{n, plural, one {# plik} few {# pliki} many {# plików} other {# pliku}}'
  assert.deepEqual(
    [1, 3, 5, '22'].map(n => say(polish, { n }, 'pl')),
    ['1 plik', '3 pliki', '5 plików', '22 pliki'],
  )
  const guests =
    '{n, plural, offset:1 =0 {nobody} =1 {{who}} one {{who} and # other} other {{who} and # others}}'
  assert.deepEqual(
    [0, 1, 2, 3].map(n => say(guests, { n, who: 'Ana' })),
    ['nobody', 'Ana', 'Ana and 1 other', 'Ana and 2 others'],
  )
  const nth = '{n, selectordinal, one {#st} two {#nd} few {#rd} other {#th}}'
  assert.deepEqual(
    [1, 2, 3, 11].map(n => say(nth, { n })),
    ['1st', '2nd', '3rd', '11th'],
  )
  const who = '{g, select, female {her} male {his} other {their}} order'
  assert.deepEqual(
    ['female', 'male', undefined, 'constructor', '__proto__'].map(g => say(who, { g })),
    ['her order', 'his order', 'their order', 'their order', 'their order'],
  )
})

test('numbers, money and times are written as the reader writes them, in the reader’s zone', () => {
  assert.equal(plain(say('{x, number}', { x: 1234567.5 }, 'de')), '1.234.567,5')
  assert.equal(plain(say('{x, number, ::currency/EUR}', { x: '1234.5' }, 'fr')), '1 234,50 €')
  assert.equal(say('{x, number, percent}', { x: 0.25 }), '25%')
  assert.equal(
    say('{at, date, long}', { at: '2026-03-01T02:30:00Z' }, 'en', 'America/New_York'),
    'February 28, 2026',
  )
  assert.equal(plain(say('{at, time, short}', { at: 1772332200 }, 'en', 'Asia/Kolkata')), '8:00 AM')
})

test('what is missing or of another kind reads as nothing or as itself, never as NaN', () => {
  const all = '[{a}] [{b, number}] [{c, date}] [{d, plural, one {#} other {#}}]'
  assert.equal(say(all, {}), '[] [] [] []')
  assert.equal(
    say(all, { a: { x: 1 }, b: 'many', c: 'soon', d: 'some' }),
    '[[object Object]] [many] [soon] []',
  )
  assert.equal(say('{a}', { a: 'x'.repeat(20_000) }).length, 10_000)
})

test('what cannot be said later is refused when it is saved', () => {
  const refused = (source: string, pattern: RegExp) =>
    assert.throws(
      () => compileMessage(source, 'en'),
      (error: unknown) =>
        error instanceof AppError && error.code === 'invalid_template' && pattern.test(error.message),
      source,
    )
  refused('{n', /cannot be read/)
  refused('{n, plural, one {x}}', /cannot be read: missing other clause/)
  refused('{n, number, currency}', /name the currency/)
  refused('{n, number, wide}', /no style "wide"/)
  refused('{n, number, ::currency/NOPE}', /NOPE/i)
  refused('{'.repeat(3_000), /nested/)
  refused(Array.from({ length: 200 }, (_, i) => `{a${i}}`).join(''), /100 arguments/)
  assert.equal(say("It''s '{'literal'}' <b>text</b>", {}), "It's {literal} <b>text</b>")
})

test('any text either is refused or says something, within its bound', () => {
  const piece = fc.constantFrom(
    '{',
    '}',
    '{n, plural, other {',
    '#',
    "'",
    '{a}',
    ', select, ',
    'x',
    '<b>',
    '\n',
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 200 }), fc.anything(), (pieces, value) => {
      let message
      try {
        message = compileMessage(pieces.join('').slice(0, MAX_MESSAGE), 'ar')
      } catch (error) {
        assert.ok(error instanceof AppError)
        return
      }
      const text = message.format(() => value, { locale: 'ar-EG', timezone: 'Nowhere/Land' })
      assert.equal(typeof text, 'string')
    }),
  )
})

// ------------------------------------------------------------------------------------ within templates

// covers: ALP-086, DIC-068
test('a key is said in the reader’s language, a wider one, the tenant’s, else the template’s; never as itself', () => {
  const compiled = compileRevision({
    templateId: '',
    revision: 1,
    name: 'n',
    locale: 'en',
    channels: { email: { subject: '{{t "hi"}}', body: '{{t "due" n=count}}' } },
    messages: {
      en: { hi: 'Hello {name}', due: '{n, plural, one {# day} other {# days}}' },
      pt: { hi: 'Olá {name}' },
      'pt-BR': { due: '{n, plural, one {# dia} other {# dias}}' },
      es: { hi: 'Hola {name}', due: '{n, plural, one {# día} other {# días}}' },
    },
  })
  const said = (locale: string, tenantLocale?: string) => {
    const seen = view(
      { name: 'Zoë', count: 1234 },
      { locale, ...(tenantLocale !== undefined && { tenantLocale }) },
    )
    const { subject, body, language } = render(compiled, 'email', locale, seen)
    return [subject, body, language ?? 'en']
  }
  assert.deepEqual(said('pt-BR'), ['Olá Zoë', '1.234 dias', 'pt-br'])
  assert.deepEqual(said('pt-PT'), ['Olá Zoë', '1,234 days', 'pt'])
  assert.deepEqual(said('fr'), ['Hello Zoë', '1,234 days', 'en'])
  assert.deepEqual(said('fr', 'es-MX'), ['Hola Zoë', '1234 días', 'es'].with(1, '1234 días'))
  assert.deepEqual(said('en-GB', 'es'), ['Hello Zoë', '1,234 days', 'en'])
})

test('what a message says is escaped where it stands', () => {
  const messages = catalogue({ en: { bold: '<b>{name}</b> & "more"' } }, 'en')
  const data = { name: '<script>' }
  const at = (escape: 'html' | 'none' | 'slack') =>
    compileTemplate('{{t "bold"}}', escape, messages).render(view(data))
  assert.equal(at('html'), '&lt;b&gt;&lt;script&gt;&lt;/b&gt; &amp; &quot;more&quot;')
  assert.equal(at('slack'), '&lt;b&gt;&lt;script&gt;&lt;/b&gt; &amp; "more"')
  assert.equal(at('none'), '<b><script></b> & "more"')
  const json = compileTemplate('{"text": "{{t "bold"}}"}', 'json', messages).render(view(data))
  assert.deepEqual(JSON.parse(json), { text: '<b><script></b> & "more"' })
  assert.equal(
    compileTemplate('{{icu "{n, plural, one {# file} other {# files}}" n=data.count}}', 'none').render(
      view({ count: 2 }),
    ),
    '2 files',
  )
  assert.equal(
    compileTemplate('{{#each list}}{{upper (icu "{w}!" w=this)}}{{/each}}', 'none').render(
      view({ list: ['a', 'b'] }),
    ),
    'A!B!',
  )
})

test('mistakes are found where they are', () => {
  const problems = (body: string, messages: Record<string, Record<string, string>>) =>
    checkRevision({ locale: 'en', channels: { sms: { body } }, messages }).map(
      ({ field, message, line, column }) => [field, message, line, column],
    )
  assert.deepEqual(problems('a\n {{t "nope"}}', { en: { yes: 'x' } }), [
    ['/channels/sms/body', 'line 2, column 2: there is no message "nope"', 2, 2],
  ])
  assert.deepEqual(
    problems('x', { en: { a: 'x\n{' }, de: { b: 'y' } }).map(([field]) => field),
    ['/messages/en/a', '/messages/de/b'],
  )
  assert.match(String(problems('{{t key}}', {})[0]![1]), /t takes the key/)
  assert.match(String(problems('{{icu "{n"}}', {})[0]![1]), /cannot be read/)
  assert.deepEqual(problems('{{t "a"}}', { en: { a: 'x' } }), [])
})
