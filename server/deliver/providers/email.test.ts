import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import PostalMime from 'postal-mime'
import { DeliveryError } from '../provider.ts'
import { exampleMessage } from './conformance.ts'
import { composeEmail, mailboxOf, mailboxText, tooManyRecipients } from './email.ts'

const sender = { from: 'Carillon <noreply@carillon.example>' }
const email = (more: Parameters<typeof exampleMessage>[0] = {}) =>
  exampleMessage({ channel: 'email', to: 'alice@example.com', ...more })

test('senders are read in each of their forms', () => {
  const cases: [string, string, string][] = [
    ['a@b.example', '', 'a@b.example'],
    ['<a@b.example>', '', 'a@b.example'],
    ['Example <a@b.example>', 'Example', 'a@b.example'],
    ['"Example, Inc." <a@b.example>', 'Example, Inc.', 'a@b.example'],
    ['"The \\"Bell\\"" <a@b.example>', 'The "Bell"', 'a@b.example'],
    ['Grüße <a@b.example> ', 'Grüße', 'a@b.example'],
  ]
  for (const [text, name, address] of cases) assert.deepEqual(mailboxOf(text), { name, address })
})

test('whatever the name, a reader of mail finds name and address again', async () => {
  const name = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 80 })
    // A name has no blanks at its ends, and none that a reader would fold into one.
    .map(text => text.replaceAll(/[\p{Cc}\s]+/gu, ' ').trim())
    .filter(text => text !== '')
  await fc.assert(
    fc.asyncProperty(name, async text => {
      const written = mailboxText({ name: text, address: 'a@b.example' }, true)
      assert.match(written, /^[\x20-\x7e]*$/)
      for (const word of written.split(' ')) if (word.startsWith('=?')) assert.ok(word.length <= 75)
      const { from } = await PostalMime.parse(`From: ${written}\r\n\r\n`)
      // Quoted, a name may itself look like an encoded word, which readers decode all the same.
      if (!text.includes('=?')) assert.deepEqual(from, { name: text, address: 'a@b.example' })
    }),
  )
  assert.equal(
    mailboxText({ name: 'Grüße "x"', address: 'a@b.example' }, false),
    '"Grüße \\"x\\"" <a@b.example>',
  )
})

test('mails of a thread refer to one message that is the tenant’s own; others to none', () => {
  const of = (more: object) => composeEmail(email(more), sender).headers
  const first = of({ thread: 'order:17' })
  assert.match(first.References!, /^<thread\.[0-9a-f]{32}@carillon\.example>$/)
  assert.equal(first['In-Reply-To'], first.References)
  assert.equal(of({ thread: 'order:17', idempotencyKey: 'another' }).References, first.References)
  assert.notEqual(of({ thread: 'order:18' }).References, first.References)
  assert.notEqual(of({ thread: 'order:17', tenantId: 99 }).References, first.References)
  const none = of({})
  assert.deepEqual([none.References, none['In-Reply-To']], [undefined, undefined])
})

test('nobody is written to twice', () => {
  const mail = composeEmail(
    email({
      content: {
        body: 'x',
        data: {
          email: {
            cc: ['bob@example.com', 'Alice@example.com', 'BOB@example.com'],
            bcc: ['bob@example.com', 'carol@example.com'],
          },
        },
      },
    }),
    sender,
  )
  assert.deepEqual(
    [mail.to.address, mail.cc, mail.bcc],
    ['alice@example.com', ['bob@example.com'], ['carol@example.com']],
  )
  assert.equal(tooManyRecipients(mail, 3), undefined)
  const error = tooManyRecipients(mail, 2)
  assert.ok(error instanceof DeliveryError && error.final && error.code === 'too_large')
})

test("attachments of the content come before those of the channel's own data", () => {
  const content = Buffer.from('hello').toString('base64')
  const mail = composeEmail(
    email({
      content: {
        body: 'x',
        attachments: [{ filename: 'a.txt', contentType: 'text/plain', content }],
        data: { email: { attachments: [{ filename: 'b.bin', content }] } },
      },
    }),
    sender,
  )
  assert.deepEqual(mail.attachments, [
    { filename: 'a.txt', contentType: 'text/plain', content: Buffer.from('hello') },
    { filename: 'b.bin', contentType: undefined, content: Buffer.from('hello') },
  ])
})

test('a subject is one line', () => {
  const mail = composeEmail(email({ content: { subject: 'a\r\nBcc: b\0c\u2028d', body: 'x' } }), sender)
  assert.equal(mail.subject, 'a Bcc: b c d')
})

test('a reply goes where the message says, else where the sender says', () => {
  const own = { ...sender, replyTo: 'Help <help@carillon.example>' }
  assert.deepEqual(composeEmail(email(), own).replyTo, { name: 'Help', address: 'help@carillon.example' })
  const asked = email({ content: { body: 'x', data: { email: { replyTo: 'sales@carillon.example' } } } })
  assert.deepEqual(composeEmail(asked, own).replyTo, { name: '', address: 'sales@carillon.example' })
})
