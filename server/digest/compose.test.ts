import assert from 'node:assert/strict'
import { test } from 'node:test'
import { composeDigest } from './compose.ts'
import type { DigestItem } from './compose.ts'

const item = (subject: string | undefined, body: string): DigestItem => ({
  notificationId: 'n',
  eventType: 'shop.order',
  at: new Date('2026-11-21T10:00:00Z'),
  priority: 'NORMAL',
  subject,
  body,
})
const textOf = (items: DigestItem[], count = items.length, locale = 'en'): string =>
  composeDigest({ id: 'd', key: 'k', items, count, locale }).content.body!

test('each item has its subject and the beginning of its text, cut where it is long', () => {
  assert.equal(
    textOf([
      item('Order 1', 'It is\n  on its way.'),
      item(undefined, 'No subject'),
      item('Same', 'Same'),
      item('Empty', ' '),
      item('Long', 'x'.repeat(300)),
    ]),
    `• Order 1\n  It is on its way.\n• No subject\n• Same\n• Empty\n• Long\n  ${'x'.repeat(199)}…`,
  )
})

test('what is not shown is counted, in the language of the reader', () => {
  const many = Array.from({ length: 60 }, (_, i) => item(`Order ${i}`, ''))
  assert.match(textOf(many, 80), /^• Order 0\n.*\n• Order 49\nand 30 more$/s)
  assert.match(textOf(many, 80, 'pt-BR'), /\ne mais 30$/)
  assert.match(textOf(many, 80, 'zh-Hans'), /\n还有 30 条$/)
})
