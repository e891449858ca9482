import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CHANNELS, PRIORITIES } from '../types.ts'
import type { Channel, Priority } from '../types.ts'
import type { Delivery } from './delivery.ts'
import { scheduler } from './scheduler.ts'

let serial = 0
const delivery = (tenantId: number, priority: Priority = 'NORMAL', channel: Channel = 'email'): Delivery =>
  ({ tenantId, priority, channel, notificationId: `n${serial++}` }) as Delivery

test('a newcomer waits for one turn, not for the backlog of another tenant', () => {
  const queue = scheduler()
  for (let i = 0; i < 10_000; i++) queue.push(delivery(1))
  queue.take('email')
  const newcomer = delivery(2)
  queue.push(newcomer)
  const turns = [queue.take('email'), queue.take('email')]
  assert.ok(turns.includes(newcomer))
})

test('tenants take turns', () => {
  const queue = scheduler()
  for (let i = 0; i < 30; i++) queue.push(delivery(1 + (i % 3)))
  const first = Array.from({ length: 9 }, () => queue.take('email')!.tenantId)
  for (const tenant of [1, 2, 3]) assert.equal(first.filter(id => id === tenant).length, 3)
})

// covers: DIC-133
test('the urgent go first, and the last is never stuck behind them', () => {
  const queue = scheduler()
  const low = delivery(1, 'LOW')
  queue.push(low)
  for (let i = 0; i < 100; i++) queue.push(delivery(1, 'CRITICAL'))
  const order = Array.from({ length: 40 }, () => queue.take('email')!)
  assert.equal(order[0]!.priority, 'CRITICAL')
  assert.ok(order.includes(low))
})

test('everything pushed comes out exactly once, and one tenant keeps its own order within a priority', () => {
  const job = fc.record({
    tenant: fc.integer({ min: 1, max: 4 }),
    priority: fc.constantFrom(...PRIORITIES),
    channel: fc.constantFrom(...CHANNELS.slice(0, 3)),
    take: fc.boolean(),
    more: fc.integer({ min: 0, max: 3 }),
  })
  fc.assert(
    fc.property(fc.array(job, { maxLength: 200 }), jobs => {
      const queue = scheduler()
      const pushed: Delivery[] = []
      const taken: Delivery[] = []
      for (const { tenant, priority, channel, take, more } of jobs) {
        const one = delivery(tenant, priority, channel)
        pushed.push(one)
        queue.push(one)
        if (take) {
          const got = queue.take(channel)!
          taken.push(got, ...queue.takeMore(got, more, () => true))
        }
        assert.equal(queue.waiting(), pushed.length - taken.length)
      }
      for (const channel of CHANNELS) for (let next; (next = queue.take(channel)); ) taken.push(next)
      assert.equal(new Set(taken).size, pushed.length)
      assert.equal(taken.length, pushed.length)
      const line = (list: Delivery[], like: Delivery) =>
        list
          .filter(
            d => d.tenantId === like.tenantId && d.priority === like.priority && d.channel === like.channel,
          )
          .map(d => d.notificationId)
      for (const one of pushed) assert.deepEqual(line(taken, one), line(pushed, one))
    }),
  )
})
