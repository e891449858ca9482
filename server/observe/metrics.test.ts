import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Registry } from 'prom-client'
import { histogram } from './histogram.ts'
import { createMetrics, METRICS } from './metrics.ts'

/** Every line of the exposition that is a sample, by its name and labels. */
const samples = (text: string): Map<string, number> =>
  new Map(
    text
      .split('\n')
      .filter(line => line !== '' && !line.startsWith('#'))
      .map(line => {
        const at = line.lastIndexOf(' ')
        return [line.slice(0, at), Number(line.slice(at + 1))]
      }),
  )

// covers: AUR-152, AUR-153, AUR-154, AUR-162, ALP-179, DIC-197, DIC-198
test('a batch of deliveries is counted under the documented names and unified labels', async () => {
  const metrics = createMetrics({ process: false })
  metrics.queued('email', 'HIGH', 4)
  metrics.sent('email', 5)
  metrics.delivered('email', 'delivered', 2)
  metrics.delivered('email', 'sent')
  metrics.delivered('email', 'bounced')
  metrics.delivered('sms', 'rejected', 3, 'trading')
  metrics.delivered('sms', 'suppressed', 7)
  metrics.suppressed('preference_channel_off', 7)
  metrics.rulesTriggered(9)
  const found = samples(await metrics.text())
  const expected: Record<string, number> = {
    'notifications_queued_total{system="core",channel="email",priority="HIGH"}': 4,
    'notifications_sent_total{system="core",channel="email"}': 5,
    'notifications_delivered_total{system="core",channel="email",status="delivered"}': 2,
    'notifications_delivered_total{system="core",channel="email",status="sent"}': 1,
    'notifications_delivered_total{system="core",channel="email",status="bounced"}': 1,
    'notifications_failed_total{system="core",channel="email"}': 1,
    'notifications_delivered_total{system="trading",channel="sms",status="failed"}': 3,
    'notifications_failed_total{system="trading",channel="sms"}': 3,
    'notifications_suppressed_total{system="core",reason="preference_channel_off"}': 7,
    'rules_triggered_total{system="core"}': 9,
  }
  for (const [name, value] of Object.entries(expected)) assert.equal(found.get(name), value, name)
  assert.deepEqual(
    [...found.keys()].filter(name => name.includes('channel="sms"') && name.includes('core')),
    [],
  )
})

// covers: AUR-156, PFM-257, PFM-269, DIC-199
test('delivery latency by channel has the documented buckets, up to 30 s', async () => {
  const metrics = createMetrics({ process: false })
  metrics.deliveryTook('in_app', 0.02, 500)
  metrics.deliveryTook('in_app', 12, 5)
  const found = samples(await metrics.text())
  const at = (le: string) =>
    found.get(`notification_delivery_duration_seconds_bucket{system="core",channel="in_app",le="${le}"}`)
  for (const le of ['0.1', '0.5', '1', '2', '5', '10']) assert.equal(at(le), 500, le)
  assert.equal(at('0.01'), 0)
  assert.equal(at('30'), 505)
  assert.equal(at('+Inf'), 505)
  assert.equal(found.get('notification_delivery_duration_seconds_count{system="core",channel="in_app"}'), 505)
})

// covers: ALP-179, PFM-259, DIC-203, PFM-194
test('health of providers and breakers', async () => {
  const metrics = createMetrics({ process: false })
  metrics.providerHealth('email', 'smtp', false)
  metrics.providerHealth('webhook', 'webhook', true)
  metrics.breaker('smtp', 'open')
  metrics.breaker('webhook', 'half_open')
  const found = samples(await metrics.text())
  assert.equal(found.get('email_provider_health{provider="smtp"}'), 0)
  assert.equal(found.get('provider_health{channel="webhook",provider="webhook"}'), 1)
  assert.equal(found.has('email_provider_health{provider="webhook"}'), false)
  // The documented alert is `circuit_breaker_state > 1`: open, and not half open.
  assert.equal(found.get('circuit_breaker_state{service="smtp"}'), 2)
  assert.equal(found.get('circuit_breaker_state{service="webhook"}'), 1)
})

// covers: AUR-160, AUR-161, DIC-200, ALP-174
test('gauges that are asked for: queue, pool, caches', async () => {
  const metrics = createMetrics({ process: false })
  metrics.queueDepth({ email: 3, webhook: 4 })
  metrics.queueDepth({ webhook: 6 })
  const pool = { totalCount: 8, idleCount: 5, waitingCount: 2 }
  metrics.pool(pool)
  metrics.cache('people', () => ({ hits: 3, misses: 1 }))
  metrics.cache('cold', () => ({ hits: 0, misses: 0 }))
  const found = samples(await metrics.text())
  assert.equal(found.get('queue_size'), 6)
  assert.equal(found.get('queue_depth{channel="email"}'), 0)
  assert.equal(found.get('queue_depth{channel="webhook"}'), 6)
  assert.equal(found.get('db_pool_connections{state="busy"}'), 3)
  assert.equal(found.get('db_pool_waiting'), 2)
  assert.equal(found.get('cache_hit_ratio{cache="people"}'), 0.75)
  assert.equal(found.has('cache_hit_ratio{cache="cold"}'), false)
})

test('a collector that fails costs only its own gauges', async () => {
  const metrics = createMetrics({ process: false })
  metrics.onCollect(() => {
    throw new Error('broken')
  })
  metrics.onCollect(async () => {
    await Promise.reject(new Error('broken'))
  })
  metrics.onCollect(() => metrics.planningQueue(7))
  assert.equal(samples(await metrics.text()).get('planning_queue_size'), 7)
})

test('nothing is counted for an empty batch', async () => {
  const metrics = createMetrics({ process: false })
  metrics.received(0)
  metrics.deliveryTook('sms', 1, 0)
  metrics.deliveryTook('sms', Number.NaN)
  assert.doesNotMatch(
    await metrics.text(),
    /^(events_received_total|notification_delivery_duration_seconds)/m,
  )
})

// covers: ALP-178, ALP-179
test('the process itself is measured', async () => {
  const metrics = createMetrics()
  const found = samples(await metrics.text())
  assert.ok(found.get('process_resident_memory_bytes')! > 1_000_000)
  assert.ok(found.has('nodejs_eventloop_lag_seconds'))
})

test('every metric of the table is exposed, with its help', async () => {
  const text = await createMetrics({ process: false }).text()
  for (const [name, { kind, help }] of Object.entries(METRICS)) {
    assert.ok(text.includes(`# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n`), name)
  }
})

test('observing a value n times is observing it, n times', async () => {
  const about = { name: 'h', help: 'h', labels: ['l'], buckets: [0.5, 1, 10] }
  const value = fc.constantFrom(0, 0.5, 0.75, 1, 7, 10, 11)
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(value, fc.integer({ min: 1, max: 9 }))), async observed => {
      const [one, many] = [new Registry(), new Registry()]
      const [byOne, byMany] = [histogram(one, about), histogram(many, about)]
      for (const [seconds, n] of observed) {
        byMany.observe(['x'], seconds, n)
        for (let i = 0; i < n; i++) byOne.observe(['x'], seconds)
      }
      assert.equal(await many.metrics(), await one.metrics())
      const total = observed.reduce((sum, [, n]) => sum + n, 0)
      if (total > 0) assert.equal(samples(await many.metrics()).get('h_count{l="x"}'), total)
    }),
  )
})
