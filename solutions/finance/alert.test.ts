import assert from 'node:assert/strict'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { readTemplates } from '../../server/render/default-book.ts'
import { compileRevision, render } from '../../server/render/content.ts'
import { smsSize } from '../../server/sms-size.ts'
import type { JsonObject } from '../../server/types.ts'
import {
  ALERT_TYPES,
  type AlertType,
  FALLBACK,
  actionUrl,
  alertData,
  alertTypeOf,
  templateOf,
} from './alert.ts'

const AT = '2026-11-21T10:00:00.000Z'
const HOME = 'https://app.pfm.com'
const FOLDER = join(import.meta.dirname, 'templates')
const templates = await readTemplates([FOLDER])

/** What a channel says about an alert. */
function said(
  channel: 'email' | 'sms' | 'push',
  type: string,
  metadata: JsonObject,
  locale = 'en-US',
  more: JsonObject = {},
) {
  const definition = templates.get(templateOf(alertTypeOf(type)))!
  const data = { alert_type: type, metadata, ...more }
  const layers = [data, undefined, alertData(data, AT, HOME)]
  const view = { names: { data, user: { id: 'ann', locale } }, layers, locale, timezone: 'UTC' }
  return render(compileRevision({ ...definition, templateId: 't', revision: 1 }), channel, locale, view)
}

/** An alert of each kind. */
const ALERTS: Record<AlertType, JsonObject> = {
  account_threshold: {
    account_id: '12',
    account_name: 'Checking',
    current_balance: '450.25',
    threshold: '500.00',
    direction: 'below',
  },
  goal: { goal_id: 456, goal_name: 'Vacation', progress: 75 },
  merchant_name: { transaction_id: 't-9', merchant_name: 'Starbucks', amount: '5.75' },
  spending_target: {
    budget_id: '789',
    budget_name: 'Groceries',
    percent_used: 90,
    spent: '450.00',
    budget_amount: '500.00',
  },
  transaction_limit: { transaction_id: '31', amount: '1500.00', limit: '1000.00', description: 'Laptop' },
  upcoming_bill: { bill_id: '321', bill_name: 'Rent', amount: '1200.00', days_until_due: 3 },
}

// covers: PFM-148
test('a text gets title, message, metadata, time and address, whatever the event leaves out', () => {
  const metadata = ALERTS.goal
  assert.deepEqual(alertData({ alert_type: 'goal', title: 'T', message: 'M', metadata }, AT, HOME), {
    title: 'T',
    message: 'M',
    metadata,
    timestamp: AT,
    actionUrl: 'https://app.pfm.com/goals/456',
  })
  // The kind may stand among the metadata, as a stored notification has it.
  assert.equal(alertData({ metadata: { ...metadata, alert_type: 'goal' } }, AT, HOME).title, 'Goal progress')
  const made = (type: AlertType, more: JsonObject = {}) =>
    alertData({ alert_type: type, metadata: { ...ALERTS[type], ...more } }, AT, HOME).message
  assert.equal(made('account_threshold'), 'Your Checking balance is below $500.00. Current balance: $450.25')
  assert.equal(made('goal'), "Your goal 'Vacation' has reached 75% completion!")
  assert.equal(made('merchant_name'), 'Transaction detected: Starbucks for $5.75')
  assert.equal(made('spending_target'), "Your 'Groceries' budget is at 90% ($450.00 of $500.00)")
  assert.equal(
    made('transaction_limit'),
    'Large transaction detected: Laptop for $1500.00 exceeds your limit of $1000.00',
  )
  assert.equal(made('upcoming_bill', { days_until_due: 0 }), "Bill 'Rent' for $1200.00 is due today")
  assert.equal(made('upcoming_bill', { days_until_due: 1 }), "Bill 'Rent' for $1200.00 is due tomorrow")
  assert.equal(made('upcoming_bill'), "Bill 'Rent' for $1200.00 is due in 3 days")
  assert.equal(made('upcoming_bill', { days_until_due: -1 }), "Bill 'Rent' for $1200.00 is due today")
  assert.equal(made('upcoming_bill', { days_until_due: null }), "Bill 'Rent' for $1200.00 is due soon")
  assert.equal(made('upcoming_bill', { currency: 'EUR' }), "Bill 'Rent' for 1200.00 EUR is due in 3 days")

  // Never an error, and always something to read, of whatever is sent.
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), fc.constantFrom(...ALERT_TYPES, 'x'), (one, other, type) => {
      const alert = {
        alert_type: type,
        title: one,
        message: one,
        metadata: { ...(other as JsonObject), goal_id: one },
      }
      const data = alertData(alert as JsonObject, AT, HOME)
      assert.ok(data.title !== '' && data.message !== '')
      assert.ok(new URL(data.actionUrl).href.startsWith(`${HOME}/`))
    }),
  )
})

// covers: PFM-150, PFM-157
test('the button leads to what the alert is about, under the frontend’s address', () => {
  const urls = Object.fromEntries(ALERT_TYPES.map(type => [type, actionUrl(type, ALERTS[type], HOME)]))
  assert.deepEqual(urls, {
    account_threshold: 'https://app.pfm.com/accounts/12',
    goal: 'https://app.pfm.com/goals/456',
    merchant_name: 'https://app.pfm.com/transactions/t-9',
    spending_target: 'https://app.pfm.com/budgets/789',
    transaction_limit: 'https://app.pfm.com/transactions/31',
    upcoming_bill: 'https://app.pfm.com/cashflow/bills/321',
  })
  // Without the id, for other kinds, and with ids that are no ids.
  assert.equal(actionUrl('merchant_name', { merchant_name: 'x' }, HOME), 'https://app.pfm.com/notifications')
  assert.equal(
    actionUrl(FALLBACK, { goal_id: 1 }, 'http://localhost:3000/app/'),
    'http://localhost:3000/app/notifications',
  )
  assert.equal(
    actionUrl('goal', { goal_id: '../admin?x#y' }, HOME),
    'https://app.pfm.com/goals/..%2Fadmin%3Fx%23y',
  )
  for (const goal_id of ['..', '', null, {}, [], '\ud800']) {
    assert.ok(
      new URL(actionUrl('goal', { goal_id }, HOME)).pathname.match(/^\/(goals\/%EF%BF%BD|notifications)$/),
    )
  }
})

// covers: PFM-153, PFM-156
test('only kinds on the list choose a text; all others, and system, get the general one', () => {
  for (const type of ALERT_TYPES) assert.equal(alertTypeOf(type), type)
  for (const given of [
    'system',
    'goal_milestone',
    '../../etc/passwd',
    '__proto__',
    'constructor',
    '',
    undefined,
    null,
    7,
    ['goal'],
  ]) {
    assert.equal(alertTypeOf(given), 'alert_triggered')
  }
})

// covers: PFM-147, PFM-153
test('there is a layout, a file for each kind of alert and one for all others', () => {
  const files = readdirSync(join(FOLDER, 'email'))
  for (const name of ['base', ...ALERT_TYPES, 'alert_triggered'])
    assert.ok(files.includes(`${name}.hbs`), name)
  for (const name of [...ALERT_TYPES, 'alert_triggered']) {
    assert.ok(existsSync(join(FOLDER, 'sms', `${name}.hbs`)), name)
    assert.match(
      readFileSync(join(FOLDER, 'email', `${name}.hbs`), 'utf8'),
      /^\{\{#> base\}\}[^]*\{\{\/base\}\}\n$/,
    )
  }
  assert.deepEqual(
    [...templates.keys()].sort(),
    ['finance-base', ...[...ALERT_TYPES, FALLBACK].map(type => templateOf(type as AlertType))].sort(),
  )
})

// covers: PFM-149, PFM-151
test('a mail has the title as subject, the details in HTML, and the same as text', () => {
  const mail = said('email', 'account_threshold', ALERTS.account_threshold, 'en-US', {
    title: 'Low <balance>',
  })
  assert.equal(mail.subject, 'Low <balance>')
  for (const part of [
    '<h2[^>]*>Low &lt;balance&gt;</h2>',
    '<p[^>]*>Your Checking balance is below \\$500\\.00\\. Current balance: \\$450\\.25</p>',
    '<strong>Account:</strong> Checking</p>',
    '<strong>Current Balance:</strong> \\$450\\.25</p>',
    '<strong>Threshold:</strong> \\$500\\.00 \\(below\\)</p>',
    '<a href="https://app\\.pfm\\.com/accounts/12"[^>]*>View Account</a>',
  ]) {
    assert.match(mail.html!, new RegExp(part))
  }
  assert.match(mail.html!, /^<!doctype html>\n<html lang="en"/)
  assert.equal(mail.html!.match(/<html/g)!.length, 1)
  assert.doesNotMatch(mail.html!, /\{\{|undefined|\[object/)
  assert.doesNotMatch(mail.body, /<\/|<p|style=/)
  for (const part of [
    'Low <balance>',
    'Account: Checking',
    'Current Balance: $450.25',
    'Threshold: $500.00 (below)',
    'View Account [https://app.pfm.com/accounts/12]',
    'November 21, 2026',
  ]) {
    assert.ok(mail.body.includes(part), `${part} in ${mail.body}`)
  }
})

// covers: PFM-147, PFM-153
test('each kind’s mail says its own details and has its own button', () => {
  const expected: Record<AlertType, string[]> = {
    account_threshold: ['View Account'],
    goal: ['Goal: Vacation', 'Progress: 75%', 'View Goal [https://app.pfm.com/goals/456]'],
    merchant_name: [
      'Merchant: Starbucks',
      'Amount: $5.75',
      'View Transaction [https://app.pfm.com/transactions/t-9]',
    ],
    spending_target: ['Budget: Groceries', 'Used: 90%', 'Spent: $450.00 of $500.00', 'View Budget'],
    transaction_limit: ['Transaction: Laptop', 'Amount: $1500.00', 'Limit: $1000.00', 'View Transaction'],
    upcoming_bill: [
      'Bill: Rent',
      'Amount: $1200.00',
      'Due: in 3 days',
      'View Bill [https://app.pfm.com/cashflow/bills/321]',
    ],
  }
  for (const type of ALERT_TYPES) {
    const { body, html } = said('email', type, ALERTS[type])
    for (const part of expected[type]) assert.ok(body.includes(part), `${part} in ${body}`)
    assert.match(html!, /<\/html>\s*$/)
    const pushed = said('push', type, ALERTS[type])
    assert.equal(pushed.actions![0]!.url, actionUrl(type, ALERTS[type], HOME))
  }
  const other = said('email', 'system', {}, 'en', { title: 'Maintenance', message: 'Tonight at 3' })
  assert.equal(other.subject, 'Maintenance')
  assert.match(other.body, /Tonight at 3[^]*View Notifications \[https:\/\/app\.pfm\.com\/notifications\]/)
})

// covers: PFM-160, PFM-161, PFM-162, PFM-163, PFM-164, PFM-165
test('each kind’s SMS, letter by letter', () => {
  const sms = (type: AlertType, more: JsonObject = {}) => said('sms', type, { ...ALERTS[type], ...more }).body
  assert.equal(sms('account_threshold'), 'Checking: $450.25 (below $500.00)')
  assert.equal(
    sms('account_threshold', { direction: 'above', current_balance: '900.10' }),
    'Checking: $900.10 (above $500.00)',
  )
  assert.equal(sms('goal'), 'Goal "Vacation" reached 75%!')
  assert.equal(sms('spending_target'), 'Budget "Groceries" at 90%')
  assert.equal(sms('transaction_limit'), 'Large transaction: $1500.00 (limit: $1000.00)')
  assert.equal(sms('upcoming_bill'), 'Bill "Rent" ($1200.00) due in 3 days')
  assert.equal(sms('upcoming_bill', { days_until_due: null }), 'Bill "Rent" ($1200.00) due soon')
  for (const today of [0, '0'])
    assert.equal(sms('upcoming_bill', { days_until_due: today }), 'Bill "Rent" ($1200.00) due today')
  for (const one of [1, '1'])
    assert.equal(sms('upcoming_bill', { days_until_due: one }), 'Bill "Rent" ($1200.00) due tomorrow')
  assert.equal(sms('merchant_name'), 'Starbucks: $5.75')
})

// covers: PFM-166, PFM-168
test('any other kind’s SMS is its message, cut; a kind of its own never is', () => {
  const message = 'x'.repeat(200)
  assert.equal(said('sms', 'system', {}, 'en', { message }).body, `${'x'.repeat(157)}...`)
  assert.equal(said('sms', 'nobody knows', {}, 'en', { message: 'Short' }).body, 'Short')
  assert.equal(said('sms', 'system', {}, 'en', { message: 'y'.repeat(160) }).body, 'y'.repeat(160))
  // The text of the kind goes before the message, however long that is.
  assert.equal(said('sms', 'goal', ALERTS.goal, 'en', { message }).body, 'Goal "Vacation" reached 75%!')
})

// covers: PFM-159, PFM-167
test('every SMS is one SMS: names are shortened, and the numbers stay', () => {
  const NAMES: Partial<Record<AlertType, string>> = {
    account_threshold: 'account_name',
    goal: 'goal_name',
    merchant_name: 'merchant_name',
    spending_target: 'budget_name',
    upcoming_bill: 'bill_name',
  }
  const letters = fc.string({ unit: fc.constantFrom('a', 'Z', ' ', 'é', '7'), minLength: 1, maxLength: 300 })
  fc.assert(
    fc.property(
      fc.constantFrom(...ALERT_TYPES),
      letters,
      fc.integer({ min: 0, max: 10 ** 9 }),
      (type, name, cents) => {
        const money = (cents / 100).toFixed(2)
        const metadata: JsonObject = {
          ...ALERTS[type],
          amount: money,
          limit: money,
          current_balance: money,
          threshold: money,
        }
        if (NAMES[type]) metadata[NAMES[type]] = name
        const { body } = said('sms', type, metadata)
        assert.equal(smsSize(body).segments, 1, body)
        assert.ok(body.length <= 160)
        if (!['goal', 'spending_target'].includes(type)) assert.ok(body.includes(`$${money}`), body)
        // No more is cut than must be.
        if (name.length <= 60 && NAMES[type]) assert.ok(body.includes(name), body)
      },
    ),
  )
  // A letter that is not in GSM-7 leaves room for 70.
  const greek = said('sms', 'account_threshold', {
    ...ALERTS.account_threshold,
    account_name: 'Ωψ'.repeat(60),
  }).body
  assert.equal(smsSize(greek).segments, 1)
  assert.match(greek, /^Ωψ.*: \$450\.25 \(below \$500\.00\)$/)
})

test('money of a named currency is written as the reader writes it, and an SMS of it stays one', () => {
  const metadata = { ...ALERTS.account_threshold, currency: 'EUR', current_balance: '1450.25' }
  assert.equal(
    said('sms', 'account_threshold', metadata, 'de-DE').body,
    'Checking: 1.450,25 € (below 500,00 €)',
  )
  assert.equal(smsSize(said('sms', 'account_threshold', metadata, 'fr-FR').body).encoding, 'gsm7')
  assert.equal(
    said('sms', 'account_threshold', metadata, 'en-IE').body,
    'Checking: €1,450.25 (below €500.00)',
  )
  assert.match(
    said('email', 'account_threshold', metadata, 'de-DE').html!,
    /Balance:<\/strong> 1\.450,25\u00a0€/,
  )
  // A currency that there is not costs nobody the alert.
  assert.match(said('sms', 'goal', { ...ALERTS.goal, currency: 'nonsense' }).body, /^Goal/)
  assert.match(
    said('sms', 'merchant_name', { ...ALERTS.merchant_name, currency: 'nonsense' }).body,
    /^Starbucks: 5\.75/,
  )
})
