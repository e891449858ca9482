import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { OUTCOMES } from '../types.ts'
import {
  LIVE,
  NOTIFICATION_STATUSES,
  OUTCOME_RANK,
  eventStatus,
  forward,
  notificationStatus,
} from './status.ts'
import type { DeliveryState } from './status.ts'

const all = (...statuses: DeliveryState[]) => statuses.map(status => ({ status }))

// covers: DIC-023
test('a notification is shown in the eight documented words', () => {
  const words: [DeliveryState, string][] = [
    ['held', 'pending'],
    ['backlog', 'queued'],
    ['in_flight', 'sending'],
    ['retrying', 'retrying'],
    ['sent', 'sent'],
    ['delivered', 'delivered'],
    ['failed', 'failed'],
    ['bounced', 'failed'],
    ['rejected', 'failed'],
    ['unknown', 'failed'],
    ['cancelled', 'cancelled'],
    ['expired', 'cancelled'],
    ['suppressed', 'cancelled'],
  ]
  for (const [status, word] of words) assert.equal(notificationStatus(all(status)), word)
  assert.deepEqual(new Set(words.map(([, word]) => word)), new Set(NOTIFICATION_STATUSES))
})

test('one channel that arrived counts more than others that failed or wait', () => {
  assert.equal(notificationStatus(all('failed', 'delivered', 'held')), 'delivered')
  assert.equal(notificationStatus(all('failed', 'retrying')), 'retrying')
  assert.equal(notificationStatus(all('cancelled', 'bounced')), 'failed')
  assert.equal(notificationStatus([]), 'cancelled')
})

test('events: processing is not success', () => {
  assert.equal(eventStatus('waiting', []), 'PENDING')
  assert.equal(eventStatus('running', all('delivered')), 'PROCESSING')
  assert.equal(eventStatus('failed', []), 'FAILED')
  assert.equal(eventStatus('expired', []), 'CANCELLED')
  assert.equal(eventStatus('planned', []), 'COMPLETED')
  assert.equal(eventStatus('planned', all('held', 'backlog')), 'PENDING')
  assert.equal(eventStatus('planned', all('held', 'delivered')), 'PROCESSING')
  assert.equal(eventStatus('planned', all('in_flight')), 'PROCESSING')
  assert.equal(eventStatus('planned', all('bounced', 'failed')), 'COMPLETED')
  assert.equal(eventStatus('planned', all('cancelled', 'expired')), 'CANCELLED')
})

test('whatever receipts come, in whatever order, an outcome never goes back', () => {
  const outcome = fc.constantFrom(...OUTCOMES)
  fc.assert(
    fc.property(outcome, fc.array(outcome), (first, receipts) => {
      let current = first
      for (const receipt of receipts) {
        const next = forward(current, receipt)
        assert.ok(OUTCOME_RANK[next] >= OUTCOME_RANK[current])
        current = next
      }
      assert.equal(OUTCOME_RANK[current], Math.max(...[first, ...receipts].map(o => OUTCOME_RANK[o])))
    }),
  )
  assert.equal(forward('sent', 'delivered'), 'delivered')
  assert.equal(forward('delivered', 'sent'), 'delivered')
  assert.equal(forward('cancelled', 'delivered'), 'cancelled')
  assert.equal(LIVE.length, 4)
})
