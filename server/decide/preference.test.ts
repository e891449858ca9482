import assert from 'node:assert/strict'
import { test } from 'node:test'
import { effectivePreference } from '../people/effective-preference.ts'
import type { PreferenceRow } from '../people/facts.ts'
import { scopesOf } from '../people/preference-scopes.ts'
import type { PreferenceSettings } from '../people/preference-settings.ts'
import { candidate, event, now } from '../test/candidate.ts'
import type { Channel, JsonObject, Priority } from '../types.ts'
import type { Candidate } from './candidate.ts'
import { decide } from './decide.ts'

const row = (
  scope: string,
  channel: Channel | null,
  enabled: boolean | null,
  settings: PreferenceSettings = {},
): PreferenceRow => ({ scope, channel, enabled, settings: settings as JsonObject })

interface Asked extends Partial<Candidate> {
  tenant?: PreferenceRow[]
  category?: string
  priority?: Priority
}

/** What becomes of alice's mail when she said this; `send`, or reason and detail. */
function outcome(
  rows: PreferenceRow[],
  { tenant = [], category = 'offers', priority = 'NORMAL', ...more }: Asked = {},
) {
  const scopes = scopesOf({ ruleId: 'r', category, eventType: event.type })
  const preference = effectivePreference(rows, tenant, {
    channel: 'email',
    scopes,
    eventType: event.type,
    priority,
  })
  const decision = decide(candidate({ preference, category, priority, ...more }), now)
  return decision.kind === 'send' ? 'send' : `${decision.reason} ${decision.detail}`
}

// covers: AUR-079, AUR-080, DIC-080, DIC-081, ALP-119, ALP-121, ALP-130, ALP-061
test('each no of a preference has its reason, and names the layer that said it', () => {
  const category = 'MARKETING'
  assert.equal(outcome([]), 'send')
  assert.equal(outcome([row('', null, false)]), 'preference_global_off user:global')
  assert.equal(outcome([row('', null, false)], { priority: 'CRITICAL' }), 'preference_global_off user:global')
  assert.equal(outcome([], { tenant: [row('', 'email', false)] }), 'preference_channel_off tenant:email')
  assert.equal(
    outcome([row('category:offers', 'email', false)]),
    'preference_category_off user:category:offers:email',
  )
  assert.equal(outcome([row('rule:r', null, false)]), 'preference_scope_off user:rule:r')
  assert.equal(outcome([], { category }), 'no_consent built_in:class:marketing')
  assert.equal(outcome([row('class:marketing', 'email', true)], { category }), 'send')
  assert.equal(
    outcome([row('class:marketing', 'email', false)], { category }),
    'preference_category_off user:class:marketing:email',
  )
  assert.equal(
    outcome([row('category:offers', null, null, { mutedUntil: '2026-11-21T13:00:00Z' })]),
    'muted user:category:offers until 2026-11-21T13:00:00.000Z',
  )
})

// covers: DIC-081, AUR-082, ALP-122, ALP-127
test('what is less important than somebody wants to hear of is named as such', () => {
  assert.equal(
    outcome([row('category:offers', null, null, { minPriority: 'HIGH' })]),
    'below_minimum_priority user:category:offers from HIGH',
  )
  assert.equal(
    outcome([row('category:offers', null, null, { minPriority: 'HIGH' })], { priority: 'HIGH' }),
    'send',
  )
  assert.equal(
    outcome([row('', 'email', null, { priorityThreshold: 7 })], { score: 6 }),
    'below_minimum_priority user:email from 7, the rule has 6',
  )
  assert.equal(outcome([row('', 'email', null, { priorityThreshold: 7 })], { score: 7 }), 'send')
  assert.equal(outcome([row('', 'email', null, { priorityThreshold: 7 })], { score: null }), 'send')
  assert.equal(
    outcome([row('topic_level:offers', null, null, { minPriority: 'HIGH' })]),
    'topic_important_only user:topic_level:offers from HIGH',
  )
  assert.equal(
    outcome([row('topic_level:offers', null, false)]),
    'preference_category_off user:topic_level:offers',
  )
  assert.equal(outcome([], { level: 'IMPORTANT' }), 'topic_important_only undefined')
  assert.equal(outcome([], { level: 'IMPORTANT', priority: 'HIGH' }), 'send')
})

test('what is required is sent against everything the person said, and still needs an address', () => {
  const tenant = [row('category:offers', null, true, { mode: 'REQUIRED' })]
  const against = [
    row('', null, false, { mutedUntil: '2027-01-01T00:00:00Z', minPriority: 'CRITICAL' }),
    row('rule:r', 'email', false, { priorityThreshold: 10 }),
  ]
  assert.equal(outcome(against, { tenant, score: 1, level: 'IMPORTANT' }), 'send')
  assert.equal(outcome(against, { tenant, address: null }), 'missing_address undefined')
})

// covers: DIC-085
test('a bare address has no preferences', () => {
  assert.equal(decide(candidate({ user: null, preference: null }), now).kind, 'send')
})
