import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import mjml2html from 'mjml'
import { DEFAULT_STYLE, type Mail, newBlock } from './block.ts'
import { parseMail, plainValue, printMail, readableOn } from './mjml.ts'
import { parseRich, printRich } from './rich.ts'
import { mail, rich } from './test-mails.ts'

// covers: ALP-143
test('whatever was made of blocks can be opened as the same blocks again', () => {
  fc.assert(
    fc.property(mail, made => {
      assert.deepEqual(parseMail(printMail(made)), made)
    }),
    { numRuns: 500 },
  )
})

test('text with its formatting comes back as it was', () => {
  fc.assert(
    fc.property(rich, written => {
      assert.deepEqual(parseRich(printRich(written)), written)
    }),
    { numRuns: 500 },
  )
})

const one = (...blocks: Mail['blocks']): Mail => ({ preheader: '', style: DEFAULT_STYLE, blocks })

test('MJML finds nothing wrong with it, and says what it is meant to', async () => {
  await fc.assert(
    fc.asyncProperty(mail, async made => {
      // A picture that nobody has chosen yet, or columns without anything in them, are for the author to see.
      const { errors } = await mjml2html(printMail(made), { validationLevel: 'soft', ignoreIncludes: true })
      assert.deepEqual(errors, [])
    }),
    { numRuns: 30 },
  )
  const { html } = await mjml2html(
    printMail(
      one(
        { kind: 'heading', id: 'aaaaaaaa', text: 'Hello {{name}} & co', level: 1, align: 'left' },
        {
          kind: 'button',
          id: 'bbbbbbbb',
          text: 'Pay',
          url: 'https://x.example/?a=1&b={{id}}',
          align: 'left',
        },
        { kind: 'each', id: 'cccccccc', list: 'lines', children: [newBlock('text')] },
        {
          kind: 'if',
          id: 'dddddddd',
          when: { path: 'total', is: 'gt', value: 3 },
          children: [newBlock('columns')],
        },
      ),
    ),
    { validationLevel: 'soft', ignoreIncludes: true },
  )
  assert.match(html, />Hello {{name}} &amp; co<\/h1>/)
  assert.match(html, /href="https:\/\/x\.example\/\?a=1&amp;b={{id}}"/)
  assert.match(html, /{{#each lines}}[^]*Some text\.[^]*{{\/each}}[^]*{{#if \(gt total 3\)}}[^]*{{\/if}}/)
  // Nothing of the editor's own is sent.
  assert.doesNotMatch(html, /aaaaaaaa|mj-class/)
})

test('what was written or changed by hand is left alone', () => {
  const source = printMail(one(newBlock('heading'), newBlock('text')))
  assert.ok(parseMail(source))
  for (const changed of [
    source.replace('<mj-body', '<!-- mine --><mj-body'),
    source.replace('padding="0"', 'padding="1px"'),
    source.replace('</mj-text>', '<table></table></mj-text>'),
    source.replace('<p ', '<p class="x" '),
    source.replace('  <mj-body', '<mj-body'),
    '<mjml><mj-body><mj-section><mj-column><mj-text>Hi</mj-text></mj-column></mj-section></mj-body></mjml>',
    '<mjml',
    '',
  ]) {
    assert.equal(parseMail(changed), undefined, changed)
  }
  // Words can be changed by hand: those the blocks have a place for.
  assert.equal(
    (parseMail(source.replace('>Heading<', '>Other<'))!.blocks[0] as { text: string }).text,
    'Other',
  )
})

test('any text at all is read without harm', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        mail.map(printMail).chain(text => fc.nat(text.length).map(at => text.slice(0, at))),
      ),
      text => {
        const read = parseMail(text)
        assert.ok(read === undefined || printMail(read) === text)
      },
    ),
  )
})

test('a value that is compared with stays a value', () => {
  assert.equal(plainValue('a"b}}{{c\\<d>&\n'), 'abcd')
  assert.equal(readableOn('#ffffff'), '#000000')
  assert.equal(readableOn('#4338ca'), '#ffffff')
})
