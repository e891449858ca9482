import type { Candidate } from '../decide/candidate.ts'
import { NO_USAGE, usage } from '../limits/usage.ts'
import { effectivePreference } from '../people/effective-preference.ts'
import type { AddressFact, PreferenceRow, UserFacts } from '../people/facts.ts'
import type { Channel, Event } from '../types.ts'

/** A Saturday, noon UTC. */
export const now = new Date('2026-11-21T12:00:00Z')
export const verified: AddressFact = {
  id: 'a',
  address: 'alice@example.org',
  verification: 'verified',
  settings: {},
}
export const alice: UserFacts = {
  tenantId: 1,
  userId: 'alice',
  known: true,
  enabled: true,
  erased: false,
  locale: 'en',
  timezone: 'UTC',
  attributes: {},
  dataKey: undefined,
  addresses: { email: [verified] },
  devices: [],
  preferences: [],
}
export const event: Event = {
  tenantId: 1,
  id: '019388c0-0000-7000-8000-000000000000',
  source: 'shop',
  type: 'commerce.order.shipped',
  time: now,
  receivedAt: now,
  data: {},
}
/** What somebody with these rows wants of that event. */
export const wanted = (
  rows: readonly PreferenceRow[],
  defaults: readonly PreferenceRow[] = [],
  channel: Channel = 'email',
) => effectivePreference(rows, defaults, { channel, scopes: [], eventType: event.type, priority: 'NORMAL' })
/** A delivery that nothing speaks against: alice, in UTC, by e-mail. */
export const candidate = (more: Partial<Candidate> = {}): Candidate => ({
  event,
  channel: 'email',
  recipient: { type: 'user', id: 'alice' },
  priority: 'NORMAL',
  category: 'commerce',
  expiresAt: null,
  user: alice,
  address: verified,
  preference: wanted([]),
  level: 'ALL',
  schedule: null,
  alreadyTold: false,
  channelOpen: true,
  zone: 'UTC',
  policy: {},
  score: null,
  standing: null,
  heldOut: null,
  cooldown: null,
  sameness: null,
  caps: [],
  usage: usage(NO_USAGE),
  telling: {},
  digest: null,
  overflow: null,
  ...more,
})
