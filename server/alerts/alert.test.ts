import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Event, JsonObject } from '../types.ts'
import { alertOf, alertsOf, firing, stateKey, withIncident } from './alert.ts'

const RULE = { id: '01890a5d-ac96-774b-bcce-b302099a8057' }
const event = (data: JsonObject): Event => ({
  tenantId: 1,
  id: '01890a5d-ac96-774b-bcce-b302099a8058',
  source: 'x',
  type: 'x',
  time: new Date('2026-03-01T12:00:00Z'),
  receivedAt: new Date('2026-03-01T12:00:01Z'),
  data,
})

test('an alert has a fingerprint and a status; everything else is none', () => {
  const alert = alertOf(event({ fingerprint: 'f', status: 'firing', labels: { team: 'shop' } }))!
  assert.deepEqual([alert.key, alert.status, alert.labels['labels.team']], ['alert:f', 'firing', 'shop'])
  // Nobody says when it ends, so it ends thirty days after it was heard of.
  assert.equal(alert.endsAt?.toISOString(), '2026-03-31T12:00:01.000Z')
  assert.equal(alertOf(event({ fingerprint: 'f', status: 'resolved' }))!.endsAt, null)
  const others: JsonObject[] = [
    {},
    { status: 'firing' },
    { fingerprint: 'f', status: 'suppressed' },
    { fingerprint: '', status: 'firing' },
    { fingerprint: 7, status: 'firing' },
    { fingerprint: 'a\0', status: 'firing' },
    { fingerprint: '\ud800', status: 'firing' },
    { fingerprint: 'x'.repeat(201), status: 'firing' },
  ]
  for (const data of others) {
    assert.equal(alertOf(event(data)), null, JSON.stringify(data))
  }
})

test('an alert fires until it resolves or its end has passed; the year 1 is no end', () => {
  const at = (endsAt: string) => alertOf(event({ fingerprint: 'f', status: 'firing', endsAt }))!
  const now = new Date('2026-03-01T12:00:00Z')
  assert.ok(firing(at('2026-03-01T12:00:01Z'), now))
  assert.ok(!firing(at('2026-03-01T12:00:00Z'), now))
  assert.ok(firing(at('0001-01-01T00:00:00Z'), now))
  assert.ok(firing(at('soon'), now))
  assert.ok(!firing({ status: 'resolved', endsAt: null }, now))
})

test('a rule with a state makes an alert of any event; its key is short, and its own', () => {
  const routes = [
    { rule: RULE, state: { key: '["door"]', resolved: true } },
    { rule: RULE, state: null },
    { rule: null, state: null },
  ]
  const { alerts } = alertsOf(event({}), routes)
  assert.deepEqual(
    alerts!.map(({ key, status, ruleId }) => [key, status, ruleId]),
    [[`rule:${RULE.id}:["door"]`, 'resolved', RULE.id]],
  )
  assert.deepEqual(alertsOf(event({}), []), {})
  const long = 'x'.repeat(5_000)
  assert.ok(stateKey(RULE.id, long).length <= 255)
  assert.notEqual(stateKey(RULE.id, `${long}a`), stateKey(RULE.id, `${long}b`))
})

test('PagerDuty gets one incident a key, unless the template says which', () => {
  const about = { rule: RULE, state: { key: '["door"]', resolved: false } }
  const data = (route: typeof about, content: object = {}) =>
    withIncident('pagerduty', route, { body: 'x', ...content }).data
  assert.deepEqual(data(about), { dedup_key: stateKey(RULE.id, '["door"]'), event_action: 'trigger' })
  const over = { ...about, state: { ...about.state, resolved: true } }
  assert.equal(data(over)!['event_action'], 'resolve')
  assert.equal(data(about, { data: { dedup_key: 'mine' } })!['dedup_key'], 'mine')
  assert.equal(withIncident('email', about, { body: 'x' }).data, undefined)
})
