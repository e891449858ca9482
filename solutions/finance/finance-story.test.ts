import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import type { Vendor } from '../../server/deliver/providers/conformance.ts'
import { ACCOUNT_SID, AUTH_TOKEN, twilioVendor } from '../../server/deliver/providers/twilio-vendor.ts'
import { type Loose, type TestApp, eventually, testApp } from '../../server/test/app.ts'

/** From outside: one command for the rules, an event over HTTP, a mail over SMTP and an SMS at its vendor. */
let t: TestApp
let texts: Vendor
let dir: string
const ROOT = join(import.meta.dirname, '..', '..')

before(async () => {
  texts = await twilioVendor()
  dir = await mkdtemp(join(tmpdir(), 'carillon-finance-'))
  const file = join(dir, 'providers.yaml')
  await writeFile(
    file,
    `- provider: twilio
  settings:
    accountSid: ${ACCOUNT_SID}
    authToken: ${AUTH_TOKEN}
    from: '+15005550006'
    baseUrl: http://127.0.0.1:${texts.port}
`,
  )
  t = await testApp({ CARILLON_PROVIDERS_FILE: file, FRONTEND_URL: 'https://money.example/app' })
  const pushed = await push(t.other.adminKey)
  assert.equal(pushed.code, 0, pushed.out)
  assert.match(pushed.out, /7 changed/)
  await call('PUT', '/api/users/ann', {
    addresses: [
      { channel: 'email', address: 'ann@example.org', verified: true },
      { channel: 'sms', address: '+15551234567', verified: true },
    ],
  })
})
after(async () => {
  await t?.stop()
  await texts?.close()
  if (dir) await rm(dir, { recursive: true, force: true })
})
beforeEach(() => {
  texts.received.length = 0
})

const carillon = async (what: string, key: string): Promise<{ code: number | null; out: string }> => {
  const child = spawn(
    process.execPath,
    [join(ROOT, 'cli', 'carillon.ts'), what, join(ROOT, 'solutions', 'finance', 'rules')],
    { env: { ...process.env, CARILLON_URL: t.url, CARILLON_KEY: key } },
  )
  let out = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => void (out += chunk))
  return { code: await new Promise(resolve => child.on('close', resolve)), out }
}
const push = (key: string) => carillon('push', key)
const call = async (method: string, path: string, body?: unknown, as = t.other.adminKey): Promise<Loose> => {
  const answer = await t.call(method, path, { as, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const publish = (data: object): Promise<Loose> =>
  call('POST', '/api/events/publish', { type: 'finance.alert.triggered', data: { user_id: 'ann', ...data } })
/** The mail that came in over SMTP, whole. */
const mail = (subject: string): Promise<Loose> =>
  eventually(`the mail "${subject}"`, async () => {
    const { items } = (await t.call('GET', '/dev/mailbox.json')).body
    const found = items.find((one: Loose) => one.subject === subject)
    return found && (await t.call('GET', `/dev/mailbox.json/${found.id}`)).body
  })
const sms = async (): Promise<string> => {
  await eventually('the SMS', () => texts.received.length > 0)
  const { raw } = texts.received[0]!
  return new URLSearchParams(raw.slice(raw.indexOf('\r\n\r\n') + 4)).get('Body')!
}

// covers: PFM-147, PFM-148, PFM-149, PFM-150, PFM-151, PFM-160
test('an alert comes as a mail with the details and as the SMS of its kind', async () => {
  await publish({
    alert_type: 'account_threshold',
    title: 'Balance below your threshold',
    metadata: {
      account_id: '12',
      account_name: 'Checking',
      current_balance: '450.25',
      threshold: '500.00',
      direction: 'below',
    },
  })
  const { html, text } = await mail('Balance below your threshold')
  assert.match(html, /<h2[^>]*>Balance below your threshold<\/h2>/)
  assert.match(html, /Your Checking balance is below \$500\.00\. Current balance: \$450\.25/)
  assert.match(html, /<strong>Current Balance:<\/strong> \$450\.25/)
  assert.match(html, /<a href="https:\/\/money\.example\/app\/accounts\/12"[^>]*>View Account<\/a>/)
  assert.match(text, /Threshold: \$500\.00 \(below\)/)
  assert.doesNotMatch(text, /<[a-z]/)
  assert.equal(await sms(), 'Checking: $450.25 (below $500.00)')
})

// covers: PFM-157, PFM-165, PFM-167, PFM-168
test('a long name is shortened for the SMS, which says the kind’s text and not the message', async () => {
  const merchant = 'The very long name of a small shop that sells everything '.repeat(4).trim()
  await publish({
    alert_type: 'merchant_name',
    message: 'A message of another text',
    metadata: { transaction_id: 'tx/9', merchant_name: merchant, amount: '5.75' },
  })
  const text = await sms()
  assert.ok(text.length <= 160, text)
  assert.match(text, /^The very long name .*\.: \$5\.75$/)
  const { html } = await mail('Merchant alert')
  assert.ok(html.includes(`${merchant}</p>`))
  assert.match(html, /A message of another text/)
  assert.match(html, /href="https:\/\/money\.example\/app\/transactions\/tx%2F9"/)
})

// covers: PFM-153, PFM-156, PFM-166
test('whatever kind is claimed, a text of the list is taken', async () => {
  for (const [n, alert_type] of ['system', '../../../etc/passwd', '__proto__', undefined].entries()) {
    texts.received.length = 0
    await publish({
      alert_type,
      title: `Other ${n}`,
      message: `${n} ${'x'.repeat(300)}`,
      metadata: { goal_id: 1 },
    })
    const { html } = await mail(`Other ${n}`)
    assert.match(html, /href="https:\/\/money\.example\/app\/notifications"[^>]*>View Notifications/)
    const text = await sms()
    assert.equal(text.length, 160)
    assert.match(text, /x\.\.\.$/)
  }
})

test('a title that is there and says nothing is one that is missing', async () => {
  const sent = {
    user_id: 'ann',
    alert_type: 'goal',
    title: null,
    message: '',
    metadata: { goal_name: 'Car', progress: 25 },
  }
  const { eventId } = await publish(sent)
  const { items } = await call('GET', `/api/notifications?eventId=${eventId}&include=content`)
  assert.equal(items[0].content.email.subject, 'Goal progress')
  assert.equal(items[0].content.in_app.body, "Your goal 'Car' has reached 25% completion!")
})

test('the stories beside the rules come out, without a server', async () => {
  const { code, out } = await carillon('test', 'none')
  assert.equal(code, 0, out)
  assert.match(out, /3 passed, 0 failed/)
})

test('the inbox has the title, the message and the button', async () => {
  const { eventId } = await publish({
    alert_type: 'goal',
    metadata: { goal_id: '4', goal_name: 'Vacation', progress: 75 },
  })
  const { items } = await call('GET', `/api/notifications?eventId=${eventId}`)
  const { content } = await call('GET', `/api/notifications/${items[0].id}?include=content`)
  assert.equal(content.in_app.subject, 'Goal progress')
  assert.equal(content.in_app.body, "Your goal 'Vacation' has reached 75% completion!")
  assert.deepEqual(content.in_app.actions, [
    { id: 'view', label: 'View Goal', url: 'https://money.example/app/goals/4' },
  ])
})

// covers: PFM-154, PFM-158
test('a partner’s own texts, and a partner’s own frame, go before those that come with the product', async () => {
  const as = t.tenant.adminKey
  // Before the rules are there: what is one's own is left as it is.
  await call(
    'POST',
    '/api/templates',
    {
      name: 'finance-base',
      channels: { email: { html: '<html><body><b>First Bank</b>{{> @partial-block}}</body></html>' } },
    },
    as,
  )
  await call(
    'POST',
    '/api/templates',
    {
      name: 'finance-goal',
      channels: { default: { subject: 'Well done', body: '{{metadata.goal_name}}: {{actionUrl}}' } },
    },
    as,
  )
  assert.match((await push(as)).out, /7 changed/)
  assert.match((await push(as)).out, /^Nothing to do\.$/m)
  await call(
    'PUT',
    '/api/users/ann',
    { addresses: [{ channel: 'email', address: 'ann@bank.example', verified: true }] },
    as,
  )
  const alert = (alert_type: string, metadata: object, title: string) =>
    call(
      'POST',
      '/api/events/publish',
      { type: 'finance.alert.triggered', data: { user_id: 'ann', alert_type, metadata, title } },
      as,
    )

  await alert(
    'upcoming_bill',
    { bill_id: 1, bill_name: 'Rent', amount: '9.00', days_until_due: 1 },
    'Rent is due',
  )
  const bill = await mail('Rent is due')
  assert.match(bill.html, /^<html lang="en"><body><b>First Bank<\/b>[^]*Due:<\/strong> tomorrow[^]*View Bill/)
  await alert('goal', { goal_id: 5, goal_name: 'Bike', progress: 100 }, 'not said')
  assert.match((await mail('Well done')).text, /^Bike: https:\/\/money\.example\/app\/goals\/5/)

  // The frame changes, and everything that stands in it with it.
  const { items } = await call('GET', '/api/templates?name=finance-base', undefined, as)
  const changed = await call(
    'PUT',
    `/api/templates/${items[0].id}`,
    {
      name: 'finance-base',
      republish: true,
      channels: { email: { html: '<html><body><b>Second Bank</b>{{> @partial-block}}</body></html>' } },
    },
    as,
  )
  assert.deepEqual(changed.usedBy, [])
  await alert(
    'upcoming_bill',
    { bill_id: 1, bill_name: 'Gas', amount: '9.00', days_until_due: 0 },
    'Gas is due',
  )
  assert.match((await mail('Gas is due')).html, /Second Bank[^]*today/)

  // For partners that have none of their own it is the operator's that counts, and then the file.
  const { adminKey } = await call('POST', '/api/tenants', { name: 'third' }, as)
  const texts = async (templateId: string): Promise<Loose> => {
    const body = { templateId, channel: 'email', data: { title: 'Title', metadata: { goal_name: 'Boat' } } }
    return (await call('POST', '/api/notifications/preview', body, adminKey)).content
  }
  assert.match((await push(adminKey)).out, /7 changed/)
  assert.match((await texts('finance-goal')).body, /^Boat: /)
  assert.match((await texts('finance-upcoming-bill')).html, /Second Bank[^]*<strong>Due:/)
})
