import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { readReport } from './bounce-report.ts'

const ID = newId()
const NOW = new Date('2026-11-21T12:00:00Z')
const read = (raw: string) => readReport(Buffer.from(raw.replaceAll(/\r?\n/g, '\r\n')), ID, NOW)

const dsn = (recipients: string, encoding = '') => `From: MAILER-DAEMON@mx.example.net
To: bounces@mail.example.org
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b1"

--b1
Content-Type: text/plain

Sorry.

--b1
Content-Type: message/delivery-status
${encoding}
Reporting-MTA: dns; mx.example.net
Arrival-Date: Sat, 21 Nov 2026 11:00:00 +0000

${recipients}

--b1
Content-Type: message/rfc822

From: Carillon <noreply@example.org>
To: ann@example.net
Subject: Final-Recipient: rfc822; nobody@example.net

Action: failed
--b1--
`
const block = (fields: Record<string, string>) =>
  Object.entries({ 'Final-Recipient': 'rfc822; ann@example.net', ...fields })
    .map(([name, value]) => `${name}: ${value}`)
    .join('\n')
const kindOf = async (status: string, diagnostic?: string, action = 'failed') => {
  const [first] = await read(
    dsn(block({ Action: action, Status: status, ...(diagnostic && { 'Diagnostic-Code': diagnostic }) })),
  )
  return first && [first.kind, first.code]
}

// covers: DIC-103
test('only what says that there is no such address bounces; the rest is about today, or about us', async () => {
  const cases: [string, string | undefined, string, string][] = [
    ['5.1.1', 'smtp; 550 5.1.1 <ann@example.net>: unknown', 'bounced', 'unknown_address'],
    ['5.1.10', undefined, 'bounced', 'unknown_address'],
    ['5.2.1', undefined, 'bounced', 'unknown_address'],
    ['5.4.4', 'dns; host not found', 'bounced', 'unknown_address'],
    // Servers that relay: the status is general, the answer is not.
    ['5.0.0', 'smtp; 550 5.7.1 blocked by policy', 'failed', 'refused'],
    ['5.0.0', 'smtp; 550-5.1.1 no such user', 'bounced', 'unknown_address'],
    ['5.0.0', 'smtp; 550 no such user here', 'bounced', 'unknown_address'],
    ['5.0.0', 'smtp; 550 relay not permitted', 'failed', 'refused'],
    ['5.1.0', 'smtp; 553 5.1.0 sender address rejected', 'failed', 'refused'],
    ['5.4.1', 'smtp; 550 5.4.1 relay access denied', 'failed', 'refused'],
    ['5.0.0', 'smtp; 554 looks like spam', 'failed', 'refused'],
    ['5.0.0', undefined, 'bounced', 'unknown_address'],
    ['5.1.8', undefined, 'failed', 'refused'],
    ['5.2.2', 'smtp; 552 5.2.2 over quota', 'failed', 'mailbox_full'],
    ['5.2.3', undefined, 'failed', 'too_large'],
    ['5.6.1', undefined, 'failed', 'content_refused'],
    ['5.7.26', 'smtp; 550-5.7.26 not authenticated', 'failed', 'refused'],
    ['4.4.7', 'smtp; 451 4.4.7 expired', 'failed', 'unavailable'],
  ]
  for (const [status, diagnostic, kind, code] of cases)
    assert.deepEqual(await kindOf(status, diagnostic), [kind, code], `${status} ${diagnostic}`)
  assert.deepEqual(await kindOf('4.4.1', undefined, 'delayed'), ['deferred', 'unavailable'])
  assert.deepEqual(await kindOf('2.0.0', undefined, 'delivered'), ['delivered', undefined])
  assert.equal(await kindOf('2.0.0', undefined, 'relayed'), undefined)
})

test('each recipient is one receipt, under the address we wrote to, whatever it was forwarded to', async () => {
  const found = await read(
    dsn(
      [
        block({ 'Original-Recipient': 'rfc822; ann+2Btag@example.net', Action: 'failed', Status: '5.1.1' }),
        block({
          'Final-Recipient': 'rfc822;<bob@example.net>',
          Action: 'failed (bounced mail)',
          Status: '5.1.1 (unknown)',
          'Diagnostic-Code': 'smtp; 550 5.1.1\n <bob@example.net>\n unknown',
        }),
      ].join('\n\n'),
    ),
  )
  assert.deepEqual(
    found.map(({ kind, address, notificationId, at, vendorCode, detail }) => [
      kind,
      address,
      notificationId,
      at,
      vendorCode,
      detail,
    ]),
    [
      ['bounced', 'ann+tag@example.net', ID, NOW, '5.1.1', undefined],
      ['bounced', 'bob@example.net', ID, NOW, '5.1.1', 'smtp; 550 5.1.1 <<address>> unknown'],
    ],
  )
  // The same report again is the same receipt.
  const again = await read(dsn(block({ Action: 'failed', Status: '5.1.1' })))
  const once = await read(dsn(block({ Action: 'failed', Status: '5.1.1' })))
  assert.equal(again[0]!.receiptId, once[0]!.receiptId)
})

test('a report that comes encoded is read', async () => {
  const status = `Reporting-MTA: dns; mx.example.net\r\n\r\n${block({ Action: 'failed', Status: '5.1.1' })}\r\n`
  const raw = dsn('x').replace(
    /Content-Type: message\/delivery-status[\s\S]*?\n--b1\nContent-Type: message\/rfc822/,
    `Content-Type: message/global-delivery-status\nContent-Transfer-Encoding: base64\n\n${Buffer.from(status).toString('base64')}\n--b1\nContent-Type: message/rfc822`,
  )
  assert.deepEqual(
    (await read(raw)).map(({ kind }) => kind),
    ['bounced'],
  )
})

const arf = (type: string, more = '') => `From: fbl@provider.example
To: bounces@mail.example.org
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="b2"

--b2
Content-Type: text/plain

This is a report.

--b2
Content-Type: message/feedback-report

Feedback-Type: ${type}
User-Agent: SomeGenerator/1.0
Version: 1
${more}
--b2
Content-Type: message/rfc822

From: noreply@example.org
Subject: x

x
--b2--
`

test('a complaint is one; what was taken back, or is about signatures, is none', async () => {
  const [first] = await read(arf('abuse', 'Original-Rcpt-To: <ann@example.net>\n'))
  assert.deepEqual(
    [first!.kind, first!.address, first!.vendorCode],
    ['complained', 'ann@example.net', 'abuse'],
  )
  assert.equal((await read(arf('abuse')))[0]!.address, undefined)
  assert.equal((await read(arf('fraud')))[0]!.kind, 'complained')
  assert.deepEqual(await read(arf('not-spam')), [])
  assert.deepEqual(await read(arf('auth-failure')), [])
})

test('whatever else comes is no report, and nothing makes it throw', async () => {
  assert.deepEqual(
    await read('From: a@example.org\nSubject: Away\nAuto-Submitted: auto-replied\n\nBack on Monday.\n'),
    [],
  )
  assert.deepEqual(await read(''), [])
  const bit = fc.constantFrom(
    ...arf('abuse').split('\n'),
    ...dsn(block({ Action: 'failed' })).split('\n'),
    '--b1',
    '--b2',
    '\0',
    ':',
  )
  await fc.assert(
    fc.asyncProperty(fc.array(bit, { maxLength: 60 }), async lines => {
      for (const one of await read(lines.join('\n'))) assert.equal(one.notificationId, ID)
    }),
    { numRuns: 300 },
  )
})
