import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { AppError } from '../errors.ts'
import { readTemplates } from './default-book.ts'
import { withFileTexts } from './file-texts.ts'

const root = mkdtempSync(join(tmpdir(), 'carillon-texts-'))
after(() => rmSync(root, { recursive: true }))
const put = (path: string, text: string | Buffer) => {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  writeFileSync(join(root, path), text)
}
const yaml = join(root, 'in', 'a.yaml')
put('in/email/goal.hbs', '<p>{{goal}}</p>\n')
put('in/sms.hbs', 'Goal\n\n')
put('outside.hbs', 'secret')
symlinkSync(join(root, 'outside.hbs'), join(root, 'in', 'link.hbs'))
symlinkSync(join(root, 'in', 'sms.hbs'), join(root, 'in', 'inner.hbs'))

async function refusal(path: unknown): Promise<string> {
  try {
    await withFileTexts({ channels: { email: { html: { file: path } } } }, yaml)
  } catch (error) {
    assert.ok(error instanceof AppError && error.code === 'invalid_template')
    assert.equal(error.errors![0]!.field, '/channels/email/html')
    return error.errors![0]!.message
  }
  return assert.fail(`${String(path)} was read`)
}

// covers: PFM-147
test('texts of channels, of languages and of partials may stand in files beside the YAML', async () => {
  const data = { file: 'email/goal.hbs' }
  const written = await withFileTexts(
    {
      name: 'goal',
      channels: { email: { html: { file: 'email/goal.hbs' }, data }, sms: { body: { file: 'sms.hbs' } } },
      translations: { de: { body: { file: 'inner.hbs' }, data }, fr: { sms: { body: { file: 'sms.hbs' } } } },
      partials: { goal: { file: 'email/goal.hbs' }, x: 'text' },
      variables: [{ name: 'goal', default: { file: 'sms.hbs' } }],
    },
    yaml,
  )
  assert.deepEqual(written, {
    name: 'goal',
    // The line break that ends a file is the editor's; what is no text stays what it is.
    channels: { email: { html: '<p>{{goal}}</p>', data }, sms: { body: 'Goal\n' } },
    translations: { de: { body: 'Goal\n', data }, fr: { sms: { body: 'Goal\n' } } },
    partials: { goal: '<p>{{goal}}</p>', x: 'text' },
    variables: [{ name: 'goal', default: { file: 'sms.hbs' } }],
  })
})

test('a file is below its folder, not too large, and text', async () => {
  for (const path of [
    '../outside.hbs',
    '/etc/passwd',
    'email/../sms.hbs',
    './sms.hbs',
    '',
    '.hidden',
    'a\\b',
    'a//b',
  ]) {
    assert.match(await refusal(path), /below the folder/, path)
  }
  assert.match(await refusal('link.hbs'), /leads out of its folder/)
  assert.match(await refusal('nothing.hbs'), /no such file/)
  assert.match(await refusal('email'), /no file/)
  put('in/large.hbs', 'x'.repeat(3 * 256 * 1024 + 1))
  assert.match(await refusal('large.hbs'), /more than 786432 bytes/)
  put('in/binary.hbs', Buffer.from([0xff, 0xfe]))
  assert.match(await refusal('binary.hbs'), /UTF-8/)
  // Something else than a file's name is judged with the rest of the document.
  const odd = { channels: { email: { html: { file: 'sms.hbs', more: 1 } } } }
  assert.deepEqual(await withFileTexts(odd, yaml), odd)
  assert.equal(await withFileTexts('text', yaml), 'text')
})

test('templates of a folder take in each other, and those of the folders beside it', async () => {
  put('one/brand.yaml', 'name: brand\nchannels: { email: { html: "<b>{{> @partial-block}}</b>" } }\n')
  put('one/letter.yaml', 'name: letter\nchannels: { email: { html: { file: letter.hbs } } }\n')
  put('one/letter.hbs', '{{#> brand}}x{{/brand}}')
  const one = join(root, 'one')
  const read = await readTemplates([one])
  assert.equal(read.get('letter')!.channels.email!.html, '{{#> brand}}x{{/brand}}')
  assert.deepEqual(Object.keys(read.get('letter')!.layouts!), ['brand'])

  put('two/wrong.yaml', 'name: wrong\nchannels: { email: { html: "a\\n{{> brando}}" } }\n')
  await assert.rejects(readTemplates([one, join(root, 'two')]), /wrong\.yaml: .*line 2, column 1: .*"brando"/)
  put('two/wrong.yaml', 'name: wrong\nchannels: { email: { html: "{{> right}}" } }\n')
  put('two/right.yaml', 'name: right\nchannels: { email: { html: "{{> wrong}}" } }\n')
  await assert.rejects(readTemplates([join(root, 'two')]), /take in each other/)
  put('two/wrong.yaml', 'name: wrong\nchannels: { email: { html: { file: ../one/letter.hbs } } }\n')
  await assert.rejects(
    readTemplates([join(root, 'two')]),
    /wrong\.yaml: .*\/channels\/email\/html: .*below the folder/,
  )
})
