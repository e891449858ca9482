import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_STYLE, newBlock } from '../blocks/block.ts'
import type { Block } from '../blocks/block.ts'
import { printMail } from '../blocks/mjml.ts'
import { unfinishedOf } from './unfinished.ts'

const mailOf = (...blocks: Block[]) => printMail({ preheader: '', style: DEFAULT_STYLE, blocks })

test('what blocks lack is told once, wherever they stand and in whichever language', () => {
  const nowhere = newBlock('button')
  const list = { ...newBlock('each'), children: [newBlock('image')] } as Block
  assert.deepEqual(
    unfinishedOf({
      channels: { email: { subject: 'Hi', mjml: mailOf(nowhere, list) }, default: { body: 'Text' } },
      translations: { de: { email: { subject: 'Hallo', mjml: mailOf(nowhere) } } },
    }),
    [
      'The button leads nowhere yet.',
      'The list whose items it shows is not chosen yet.',
      'No picture is chosen yet.',
    ],
  )
  assert.deepEqual(
    unfinishedOf({ channels: {}, translations: { de: { email: { mjml: mailOf(nowhere) } } } }),
    ['The button leads nowhere yet.'],
  )
})

test('finished mails and mails written by hand lack nothing', () => {
  const button = { ...newBlock('button'), url: 'https://shop.example/' } as Block
  const channels = { email: { mjml: mailOf(newBlock('heading'), button) }, push: { body: 'x' } }
  assert.deepEqual(unfinishedOf({ channels, translations: {} }), [])
  const byHand = { email: { mjml: '<mjml><mj-body><mj-button>Open</mj-button></mj-body></mjml>' } }
  assert.deepEqual(unfinishedOf({ channels: byHand, translations: {} }), [])
})
