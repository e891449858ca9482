import { test } from 'node:test'
import assert from 'node:assert/strict'
import { AppError, type ErrorCode } from '../errors.ts'
import { celEvent } from './cel.ts'
import { recipientSelector, ruleDefinition, ruleFromRow, type RuleRow } from './rules.ts'

const now = new Date('2026-11-21T12:00:00Z')
const least = { name: 'a rule', channels: ['email'], recipients: { users: ['alice'] } }
const define = (body: Record<string, unknown>) => ruleDefinition({ ...least, ...body }, now)

function refuses(work: () => unknown, code: ErrorCode, field: string): void {
  assert.throws(work, (error: unknown) => {
    assert.ok(error instanceof AppError, String(error))
    assert.deepEqual([error.code, error.errors?.[0]?.field], [code, field])
    return true
  })
}

const row = (more: Partial<RuleRow> = {}): RuleRow => ({
  id: '01930000-0000-7000-8000-000000000001',
  no: 7,
  revision: 3,
  tenant_id: 1,
  name: 'a rule',
  description: '',
  event_pattern: '',
  domains: [],
  event_types: [],
  priority: 'HIGH',
  channels: ['email'],
  fallback_channels: ['sms'],
  recipient_selector: { users: ['alice'] },
  template_id: null,
  template_vars: {},
  schedule: null,
  timezone: 'UTC',
  batch_window_seconds: null,
  batch_size: null,
  category: '',
  settings: {},
  enabled: true,
  valid_from: now,
  valid_until: null,
  ...more,
})

// covers: DIC-052
test('a request becomes a definition with every documented part', () => {
  const definition = define({
    description: 'tells people',
    eventPattern: 'event.data.n > 3',
    domains: ['commerce', 'commerce'],
    eventTypes: ['commerce.order.*'],
    priority: 'CRITICAL',
    channels: ['email', 'push'],
    fallbackChannels: ['sms', 'email'],
    templateId: 'order-shipped',
    templateVars: { brand: 'Acme' },
    schedule: { cron: '0 9 * * 1-5' },
    timezone: 'Europe/Berlin',
    batchWindow: '5m',
    batchSize: 50,
    category: 'orders',
    enabled: false,
    validFrom: '2026-12-01T00:00:00Z',
    validUntil: '2027-01-01T00:00:00Z',
  })
  assert.deepEqual(definition, {
    name: 'a rule',
    description: 'tells people',
    eventPattern: 'event.data.n > 3',
    domains: ['commerce'],
    eventTypes: ['commerce.order.*'],
    priority: 'CRITICAL',
    channels: ['email', 'push'],
    fallbackChannels: ['sms'],
    recipients: { users: ['alice'] },
    templateId: 'order-shipped',
    templateVars: { brand: 'Acme' },
    schedule: { cron: '0 9 * * 1-5' },
    timezone: 'Europe/Berlin',
    batchWindowSeconds: 300,
    batchSize: 50,
    category: 'orders',
    policy: {},
    enabled: false,
    validFrom: new Date('2026-12-01T00:00:00Z'),
    validUntil: new Date('2027-01-01T00:00:00Z'),
  })
})

test('what is left out has its default', () => {
  const definition = define({})
  assert.equal(definition.priority, 'NORMAL')
  assert.equal(definition.timezone, 'UTC')
  assert.equal(definition.enabled, true)
  assert.equal(definition.validFrom, now)
  assert.equal(define({ priority: 'medium' }).priority, 'NORMAL')
})

// covers: DIC-054
test('bad input is refused under its field', () => {
  refuses(() => define({ eventPattern: 'event.type ==' }), 'invalid_expression', 'eventPattern')
  refuses(() => define({ name: ' ' }), 'invalid_rule', 'name')
  refuses(() => define({ channels: [] }), 'invalid_rule', 'channels')
  refuses(() => define({ channels: ['fax'] }), 'invalid_rule', 'channels')
  refuses(() => define({ priority: 'URGENT' }), 'invalid_rule', 'priority')
  refuses(() => define({ eventTypes: ['com*'] }), 'invalid_rule', 'eventTypes')
  refuses(() => define({ eventTypes: ['*.created'] }), 'invalid_rule', 'eventTypes')
  refuses(() => define({ eventTypes: ['.*'] }), 'invalid_rule', 'eventTypes')
  refuses(() => define({ timezone: 'Mars/Olympus' }), 'invalid_schedule', 'timezone')
  refuses(() => define({ batchWindow: '5 minutes' }), 'invalid_rule', 'batchWindowSeconds')
  refuses(() => define({ batchSize: 0 }), 'invalid_rule', 'batchSize')
  refuses(() => define({ validFrom: 'soon' }), 'invalid_rule', 'validFrom')
  refuses(() => define({ validUntil: '2026-11-21T12:00:00Z' }), 'invalid_rule', 'validUntil')
  refuses(() => define({ domains: 'commerce' }), 'invalid_rule', 'domains')
})

// covers: DIC-055
test('selectors are taken in our spelling and in the documented one', () => {
  const read = (input: unknown) => recipientSelector(input, 'recipients')
  assert.deepEqual(read({ users: ['a', 'a', 'b'], topics: ['news'] }), {
    users: ['a', 'b'],
    topics: ['news'],
  })
  assert.deepEqual(read({ type: 'role', Roles: ['ops-team', 'on-call'] }), { roles: ['ops-team', 'on-call'] })
  assert.deepEqual(read({ Type: 'user', UserIDs: ['a'], Groups: null }), { users: ['a'] })
  assert.deepEqual(read({ type: 'group', Groups: ['g'] }), { groups: ['g'] })
  assert.deepEqual(read({ type: 'dynamic', Expression: 'event.data.customer_id' }), {
    expression: 'event.data.customer_id',
  })
  assert.deepEqual(read({ type: 'system', targets: { webhook: ['https://a.example/x'] } }), {
    targets: { webhook: ['https://a.example/x'] },
  })

  refuses(() => read({}), 'invalid_rule', 'recipients')
  refuses(() => read({ users: [] }), 'invalid_rule', 'recipients')
  refuses(() => read([]), 'invalid_rule', 'recipients')
  refuses(() => read({ user: ['a'] }), 'invalid_rule', 'recipients.user')
  refuses(() => read({ users: [''] }), 'invalid_rule', 'recipients.users')
  refuses(() => read({ type: 'role', users: ['a'] }), 'invalid_rule', 'recipients.type')
  refuses(() => read({ type: 'everyone' }), 'invalid_rule', 'recipients.type')
  refuses(() => read({ expression: 'event.data.' }), 'invalid_expression', 'recipients.expression')
  refuses(() => read({ targets: { fax: ['1'] } }), 'invalid_rule', 'recipients.targets')
  refuses(() => read({ targets: { in_app: ['alice'] } }), 'invalid_rule', 'recipients.targets')
})

// covers: DIC-061, DIC-064
test('a schedule is checked in the rule’s zone', () => {
  assert.deepEqual(define({ schedule: { cron: '30 8 1 * *' }, timezone: 'Europe/Berlin' }).schedule, {
    cron: '30 8 1 * *',
  })
  assert.deepEqual(define({ schedule: { interval_seconds: 60 } }).schedule, { interval_seconds: 60 })
  assert.deepEqual(define({ schedule: { daily: '06:00' } }).schedule, { daily: '06:00' })
  refuses(() => define({ schedule: { cron: '0 0 31 2 *' } }), 'invalid_schedule', '/schedule/cron')
  refuses(() => define({ schedule: {} }), 'invalid_schedule', '/schedule')
})

test('the times of a policy are checked when it is written', () => {
  const policy = {
    deliveryWindows: [{ start: '09:00', end: '17:00', weekdays: [1, 2, 3, 4, 5], timezone: 'Europe/Berlin' }],
    digest: { schedule: { weekly: { weekday: 1, time: '08:00' } } },
  }
  assert.deepEqual(define({ policy }).policy, policy)
  const window = (more: object) => () =>
    define({ policy: { deliveryWindows: [{ start: '09:00', end: '17:00', ...more }] } })
  refuses(window({ end: '17' }), 'invalid_schedule', '/policy/deliveryWindows/0/end')
  refuses(window({ timezone: 'Mars/Olympus' }), 'invalid_schedule', '/policy/deliveryWindows/0/timezone')
  const digest = (schedule: object) => () => define({ policy: { digest: { schedule } } })
  refuses(digest({ daily: '25:00' }), 'invalid_schedule', '/policy/digest/schedule/daily')
  refuses(digest({ cron: '0 0 30 2 *' }), 'invalid_schedule', '/policy/digest/schedule/cron')
  refuses(digest({ interval_seconds: 60 }), 'invalid_rule', 'policy.digest.schedule')
})

const event = celEvent({
  tenantId: 1,
  id: 'e-1',
  source: '/shop',
  type: 'commerce.order.shipped',
  time: now,
  receivedAt: now,
  data: { customer_id: 'c-9' },
})

// covers: DIC-056
test('a stored row becomes a rule that is ready to match', () => {
  const rule = ruleFromRow(
    row({
      event_pattern: 'event.data.customer_id.startsWith("c-")',
      recipient_selector: { expression: 'event.data.customer_id' },
      category: 'orders',
      batch_window_seconds: 300,
    }),
  )
  assert.deepEqual([rule.no, rule.revision, rule.priority, rule.category], [7, 3, 'HIGH', 'orders'])
  assert.equal(rule.batchWindowSeconds, 300)
  assert.equal(rule.validUntil, undefined)
  assert.deepEqual(rule.pattern.evaluate(event, now), { ok: true, value: true })
  assert.deepEqual(rule.recipientExpression?.evaluate(event, now), { ok: true, value: ['c-9'] })
  assert.equal(ruleFromRow(row()).recipientExpression, undefined)
  assert.deepEqual(ruleFromRow(row()).pattern.evaluate(event, now), { ok: true, value: true })
})

test('a stored expression that no longer compiles fails where it is used, not where it is loaded', () => {
  const rule = ruleFromRow(
    row({ event_pattern: 'event.type ==', recipient_selector: { expression: 'no.such' } }),
  )
  const pattern = rule.pattern.evaluate(event, now)
  assert.equal(!pattern.ok && pattern.code, 'invalid_expression')
  const recipients = rule.recipientExpression?.evaluate(event, now)
  assert.equal(recipients?.ok, false)
})
