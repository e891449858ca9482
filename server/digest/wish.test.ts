import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RulePolicy } from '../match/policy.ts'
import type { EffectivePreference } from '../people/effective-preference.ts'
import { DIGEST_EVENT } from './compose.ts'
import { type Collectable, digestWish, overflowWish } from './wish.ts'

const about = (more: Partial<Collectable>): Collectable => ({
  ruleId: '01890a5d-ac96-774b-bcce-b302099a8057',
  eventType: 'shop.order',
  policy: {},
  key: 'shop 1',
  preference: null,
  channel: 'email',
  zone: 'Europe/Berlin',
  ...more,
})
const prefers = (wish: Partial<EffectivePreference>) => wish as EffectivePreference
const closes = (more: Partial<Collectable>, now: string) =>
  digestWish(about(more), new Date(now))?.closesAt.toISOString()

// covers: DIC-097, DIC-100
test('a rule collects by its own key, until it is quiet, or its window ends', () => {
  const policy: RulePolicy = { digest: { windowSeconds: 3_600, quietSeconds: 300, maxItems: 20 } }
  const wish = digestWish(about({ policy }), new Date('2026-06-01T10:00:00Z'))!
  assert.equal(wish.key, 'rule:01890a5d-ac96-774b-bcce-b302099a8057:shop 1')
  assert.equal(wish.closesAt.toISOString(), '2026-06-01T10:05:00.000Z')
  assert.equal(wish.latestAt.toISOString(), '2026-06-01T11:00:00.000Z')
  assert.deepEqual([wish.quietSeconds, wish.maxItems], [300, 20])
  // Being quiet never takes longer than the window.
  const longer: RulePolicy = { digest: { windowSeconds: 60, quietSeconds: 300 } }
  assert.equal(closes({ policy: longer }, '2026-06-01T10:00:00Z'), '2026-06-01T10:01:00.000Z')
  const others: RulePolicy = { digest: { windowSeconds: 60, channels: ['push'] } }
  assert.equal(closes({ policy: others }, '2026-06-01T10:00:00Z'), undefined)
  assert.equal(closes({ policy, eventType: DIGEST_EVENT }, '2026-06-01T10:00:00Z'), undefined)
})

test('a reader’s own interval takes the place of a rule’s window; zero does not gather', () => {
  const policy: RulePolicy = { digest: { windowSeconds: 3_600 } }
  const with_ = (wish: Partial<EffectivePreference>) =>
    closes({ policy, preference: prefers({ frequency: 'instant', ...wish }) }, '2026-06-01T10:00:00Z')
  assert.equal(with_({}), '2026-06-01T11:00:00.000Z')
  assert.equal(with_({ batchMinutes: 15 }), '2026-06-01T10:15:00.000Z')
  assert.equal(with_({ batchMinutes: 0 }), undefined)
  // A rule that goes at a time of the day keeps it.
  const daily: RulePolicy = { digest: { schedule: { daily: '09:00' } } }
  assert.equal(
    closes(
      { policy: daily, preference: prefers({ frequency: 'instant', batchMinutes: 15 }) },
      '2026-03-27T12:00:00Z',
    ),
    '2026-03-28T08:00:00.000Z',
  )
})

test('a digest by schedule goes at the local time of its reader, also when clocks change', () => {
  const daily: RulePolicy = { digest: { schedule: { daily: '09:00' } } }
  // Berlin goes from UTC+1 to UTC+2 on 29 March 2026, New York went on 8 March.
  assert.equal(closes({ policy: daily }, '2026-03-27T12:00:00Z'), '2026-03-28T08:00:00.000Z')
  assert.equal(closes({ policy: daily }, '2026-03-28T12:00:00Z'), '2026-03-29T07:00:00.000Z')
  assert.equal(
    closes({ policy: daily, zone: 'America/New_York' }, '2026-03-28T12:00:00Z'),
    '2026-03-28T13:00:00.000Z',
  )
  const gone: RulePolicy = { digest: { schedule: { daily: '02:30' } } }
  assert.equal(closes({ policy: gone }, '2026-03-28T12:00:00Z'), '2026-03-29T01:00:00.000Z')
  const weekly: RulePolicy = { digest: { schedule: { weekly: { weekday: 1, time: '08:00' } } } }
  assert.equal(closes({ policy: weekly }, '2026-10-23T12:00:00Z'), '2026-10-26T07:00:00.000Z')
})

// covers: ALP-124
test('a person gathers by the hour, the day or the week, in local time; never what is in-app', () => {
  const at = '2026-10-24T20:10:00Z'
  const frequency = (wish: Partial<EffectivePreference>, more: Partial<Collectable> = {}) =>
    closes({ preference: prefers(wish), ...more }, at)
  assert.equal(frequency({ frequency: 'instant' }), undefined)
  assert.equal(frequency({ frequency: 'hourly' }), '2026-10-24T21:00:00.000Z')
  // Hours are those of UTC, as those of limits are, also where clocks are half an hour beside them.
  assert.equal(frequency({ frequency: 'hourly' }, { zone: 'Asia/Kolkata' }), '2026-10-24T21:00:00.000Z')
  // Berlin goes back to UTC+1 in this night.
  assert.equal(frequency({ frequency: 'daily', digestAt: '07:30' }), '2026-10-25T06:30:00.000Z')
  assert.equal(
    frequency({ frequency: 'weekly', digestAt: '09:00', digestWeekday: 7 }),
    '2026-10-25T08:00:00.000Z',
  )
  assert.equal(frequency({ frequency: 'daily' }, { channel: 'in_app' }), undefined)
})

test("a rule's own digest goes before the person's frequency", () => {
  const policy: RulePolicy = { digest: { windowSeconds: 60 } }
  const wish = digestWish(about({ policy, preference: prefers({ frequency: 'daily' }) }), new Date())!
  assert.equal(wish.reason, 'digest')
})

// covers: AUR-092
test('what a limit leaves over goes with the next full hour, in one digest a person', () => {
  const wish = overflowWish('Asia/Kolkata', new Date('2026-06-01T10:00:00Z'))
  assert.equal(wish.closesAt.toISOString(), '2026-06-01T11:00:00.000Z')
  assert.deepEqual([wish.key, wish.ruleId], ['overflow', null])
})
