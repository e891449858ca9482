import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Block, DEFAULT_STYLE, newBlock } from '../blocks/block.ts'
import { parseMail, printMail } from '../blocks/mjml.ts'
import { allBlocks, findBlock, inOtherWords } from '../blocks/tree.ts'
import { aligned } from './align.ts'
import type { Document } from './document.ts'

const heading = { ...newBlock('heading'), text: 'Hello' } as Extract<Block, { kind: 'heading' }>
const button = { ...newBlock('button'), text: 'Go', url: 'https://a.example' } as Extract<
  Block,
  { kind: 'button' }
>
const mail = (...blocks: Block[]) => ({ preheader: 'Soon', style: DEFAULT_STYLE, blocks })
const source = mail(heading, button)
const german = inOtherWords(source, new Map([[heading.id, { text: 'Hallo' }]]), 'Bald')

const before: Document = {
  name: 'x',
  description: '',
  category: '',
  tags: [],
  enabled: true,
  locale: 'en',
  channels: { email: { subject: 'x', mjml: printMail(source) } },
  translations: { de: { email: { mjml: printMail(german) } }, fr: { email: { mjml: '<mjml></mjml>' } } },
  variables: [],
  messages: {},
  partials: {},
  schemaVersion: '1.0',
}
const change = (...blocks: Block[]) =>
  aligned(
    before,
    { ...before, channels: { email: { subject: 'x', mjml: printMail(mail(...blocks)) } } },
    'email',
  )
const germanOf = (document: Document) => parseMail(document.translations.de!.email!.mjml!)!

test('a translation is built as the original is now, and keeps its words', () => {
  const after = germanOf(change(newBlock('divider'), button, heading))
  assert.deepEqual(
    [...allBlocks(after.blocks)].map(one => one.kind),
    ['divider', 'button', 'heading'],
  )
  assert.deepEqual(findBlock(after, heading.id), { ...heading, text: 'Hallo' })
  assert.equal(after.preheader, 'Bald')
})

test('what was never translated follows the original; where a button leads does so always', () => {
  const after = germanOf(change(heading, { ...button, text: 'Go on', url: 'https://b.example' }))
  assert.deepEqual(findBlock(after, button.id), { ...button, text: 'Go on', url: 'https://b.example' })
})

test('what was written by hand is left alone', () => {
  assert.deepEqual(change(button).translations.fr, before.translations.fr)
  const byHand = { ...before, channels: { email: { mjml: '<mjml></mjml>' } } }
  assert.equal(aligned(before, byHand, 'email'), byHand)
})
