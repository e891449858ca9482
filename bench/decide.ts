import { decide, use } from '../server/decide/decide.ts'
import type { Candidate } from '../server/decide/candidate.ts'
import { ownCaps } from '../server/limits/limit-book.ts'
import { NO_USAGE, usage } from '../server/limits/usage.ts'
import { effectivePreference } from '../server/people/effective-preference.ts'
import type { AddressFact, PreferenceRow, UserFacts } from '../server/people/facts.ts'
import { scopesOf } from '../server/people/preference-scopes.ts'
import type { Channel, Event } from '../server/types.ts'
import { argument, figure, machine, median, table } from './machine.ts'

/**
 * Pure decisions a second on one core, everything switched on for each person: preferences in four layers, quiet hours,
 * two limits, a cooldown. Facts are at hand, as they are in a batch.
 */
const PEOPLE = 10_000
const ROUNDS = argument('rounds', 5)
const CHANNELS: Channel[] = ['in_app', 'email']
const ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Shanghai', 'America/Sao_Paulo']
const now = new Date('2026-11-21T21:30:00Z')

const event: Event = {
  tenantId: 1,
  id: '019388c0-0000-7000-8000-000000000000',
  source: 'bench',
  type: 'commerce.order.shipped',
  time: now,
  receivedAt: now,
  data: {},
}
const address: AddressFact = { id: 'a', address: 'a@example.org', verification: 'verified', settings: {} }
const row = (scope: string, channel: Channel | null, more: Partial<PreferenceRow> = {}): PreferenceRow => ({
  scope,
  channel,
  enabled: true,
  settings: {},
  ...more,
})
const defaults = [row('', 'sms', { enabled: false }), row('category:orders', null)]
const people = Array.from(
  { length: PEOPLE },
  (_, i): UserFacts => ({
    tenantId: 1,
    userId: `user-${i}`,
    known: true,
    enabled: true,
    erased: false,
    locale: 'en',
    timezone: ZONES[i % ZONES.length]!,
    attributes: {},
    dataKey: undefined,
    addresses: { email: [address] },
    devices: [],
    preferences: [
      row('', null, {
        settings: {
          quietHours: { enabled: true, start: '22:00', end: '07:00' },
          maxPerHour: 20,
          maxPerDay: 100,
        },
      }),
      row('', 'email'),
      row('category:orders', null, { settings: { minPriority: 'LOW' } }),
    ],
  }),
)
const scopes = scopesOf({ ruleId: 'r', category: 'orders', eventType: event.type })

function round(): { seconds: number; held: number } {
  // A batch reads its usage once; five hundred decisions share it.
  let book = usage(NO_USAGE)
  let held = 0
  const started = performance.now()
  for (const [i, user] of people.entries()) {
    if (i % 500 === 0) book = usage(NO_USAGE)
    const telling = {}
    for (const channel of CHANNELS) {
      const preference = effectivePreference(user.preferences, defaults, {
        channel,
        scopes,
        eventType: event.type,
        priority: 'NORMAL',
      })
      const candidate: Candidate = {
        event,
        channel,
        recipient: { type: 'user', id: user.userId },
        priority: 'NORMAL',
        category: 'orders',
        expiresAt: null,
        heldOut: null,
        user,
        address,
        preference,
        level: 'ALL',
        schedule: null,
        alreadyTold: false,
        channelOpen: true,
        zone: user.timezone,
        policy: {},
        score: null,
        standing: null,
        cooldown: { key: `cooldown:r:${user.userId}`, untilMs: at => at + 3_600_000 },
        sameness: null,
        caps: ownCaps.caps({
          tenantId: 1,
          userId: user.userId,
          address: address.address,
          channel,
          category: 'orders',
          eventType: event.type,
          priority: 'NORMAL',
          ruleId: 'r',
          preference,
          zone: user.timezone,
          attributes: user.attributes,
          summary: false,
          said: () => null,
        }),
        usage: book,
        telling,
        digest: null,
        overflow: null,
      }
      const decision = decide(candidate, now)
      if (decision.kind === 'hold') held++
      if (decision.kind !== 'skip') use(candidate, decision.kind === 'hold' ? decision.until : now)
    }
  }
  return { seconds: (performance.now() - started) / 1000, held }
}

for (let warm = 0; warm < 3; warm++) round()
const rounds = Array.from({ length: ROUNDS }, round)
const decisions = PEOPLE * CHANNELS.length
console.log(machine())
console.log(
  table(
    ['decisions with everything on', 'a second', 'µs each', 'held'],
    [
      [
        `${figure(decisions)} × ${ROUNDS}`,
        figure(decisions / median(rounds.map(one => one.seconds))),
        figure((median(rounds.map(one => one.seconds)) / decisions) * 1e6),
        figure(rounds[0]!.held),
      ],
    ],
  ),
)
