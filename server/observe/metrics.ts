import type pg from 'pg'
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { Reason } from '../reasons.ts'
import type { Channel, Outcome, Priority } from '../types.ts'
import { histogram } from './histogram.ts'

type Kind = 'counter' | 'gauge' | 'histogram'

interface About {
  kind: Kind
  labels: readonly string[]
  help: string
  buckets?: readonly number[]
}

// To 30 s, so that a 95th percentile above 5 s can be seen (PFM-269); below 0.1 s for what is delivered in-app.
const DELIVERY_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30]
const REQUEST_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10]
const COMMIT_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1]
const EVALUATION_SECONDS = [0.000_001, 0.000_01, 0.0001, 0.001, 0.01, 0.1, 1, 5]
const BATCH_SIZES = [1, 5, 20, 50, 100, 200, 500, 1000, 2000]

/**
 * Every metric of our own, once; docs/reference/metrics.md lists the same table and a test compares. Prometheus
 * takes one set of labels per name, so these are the unified ones of all five systems; `system` is `core`, or the
 * solution whose traffic it is.
 */
export const METRICS = {
  events_received_total: counter(['system'], 'Events accepted'),
  events_duplicate_total: counter(['system'], 'Events that had been accepted before'),
  events_planned_total: counter(
    ['system', 'outcome'],
    'Events whose planning ended: completed, failed, cancelled or expired',
  ),
  event_planning_duration_seconds: timing(
    ['system'],
    'From accepting an event to having planned it',
    DELIVERY_SECONDS,
  ),
  rules_triggered_total: counter(['system'], 'Rules that matched an event'),
  rule_evaluation_duration_seconds: timing([], 'Evaluating one rule for one event', EVALUATION_SECONDS),
  template_render_duration_seconds: timing(
    ['channel'],
    'Rendering the content of one delivery',
    EVALUATION_SECONDS,
  ),

  notifications_queued_total: counter(['system', 'channel', 'priority'], 'Deliveries planned to be sent'),
  notifications_sent_total: counter(['system', 'channel'], 'Tries of delivery'),
  notifications_delivered_total: counter(
    ['system', 'channel', 'status'],
    'Deliveries that ended: delivered, sent (accepted by a provider that reports later or never), failed or bounced',
  ),
  notifications_failed_total: counter(['system', 'channel'], 'Deliveries that ended as failed or bounced'),
  notifications_suppressed_total: counter(['system', 'reason'], 'Deliveries decided against'),
  notifications_retried_total: counter(['system', 'channel'], 'Tries that will be repeated'),
  notification_delivery_duration_seconds: timing(
    ['system', 'channel'],
    'From accepting an event to the end of a delivery',
    DELIVERY_SECONDS,
  ),
  dead_letters_total: counter(['kind'], 'Events and deliveries given up'),

  delivery_attempt_duration_seconds: timing(
    ['channel', 'provider'],
    'One try at a provider',
    DELIVERY_SECONDS,
  ),
  provider_errors_total: counter(['provider', 'code'], 'Tries that failed'),
  provider_health: gauge(['channel', 'provider'], '1 healthy, 0 not'),
  email_provider_health: gauge(
    ['provider'],
    'provider_health of the e-mail providers, under its documented name',
  ),
  circuit_breaker_state: gauge(['service'], 'Circuit breaker of a provider: 0 closed, 1 half open, 2 open'),
  rate_limit_hits_total: counter(['scope'], 'Refused or delayed by a limit: api, provider or cap'),

  queue_size: gauge([], 'Deliveries alive: waiting, in flight, held or to be tried again'),
  queue_depth: gauge(['channel'], 'The same by channel'),
  planning_queue_size: gauge([], 'Events accepted and not planned yet'),
  in_flight: gauge(['channel'], 'Tries running in this process'),
  batch_size: sizes(['stage'], 'Rows of one transaction of the ledger: accept or settle'),
  commit_duration_seconds: timing(
    ['stage'],
    'One transaction of the ledger: accept or settle',
    COMMIT_SECONDS,
  ),
  db_pool_connections: gauge(['state'], 'Connections of the pool: busy or idle'),
  db_pool_waiting: gauge([], 'Statements that wait for a connection'),
  cache_hit_ratio: gauge(['cache'], 'Share of lookups since the start that a cache could answer'),

  http_requests_total: counter(['method', 'route', 'status'], 'Requests answered'),
  http_request_duration_seconds: timing(['method', 'route'], 'From a request to its answer', REQUEST_SECONDS),
  realtime_connections: gauge(['transport'], 'Streams open: websocket, sse or poll'),
  realtime_dropped_total: counter(['transport'], 'Streams closed because the client was too slow'),

  worker_executions_total: counter(['worker'], 'Runs of a background service'),
  worker_failures_total: counter(['worker'], 'Runs of a background service that failed'),
  traces_dropped_total: counter([], 'Batches of spans that the collector did not take'),
} as const satisfies Record<string, About>

export type MetricName = keyof typeof METRICS

/** Recording is counting in memory: call it once for a batch with `n`, not for each item. */
export interface Metrics {
  readonly registry: Registry
  /** What /metrics answers. Runs the collectors first. */
  text(): Promise<string>
  readonly contentType: string
  /** Called before each exposition, to set gauges that are asked for rather than told. */
  onCollect(collect: () => void | Promise<void>): void

  received(n?: number, system?: string): void
  duplicate(n?: number, system?: string): void
  planned(outcome: 'completed' | 'failed' | 'cancelled' | 'expired', n?: number, system?: string): void
  /** @param seconds of each of the n */
  planningTook(seconds: number, n?: number, system?: string): void
  rulesTriggered(n?: number, system?: string): void
  ruleEvaluation(seconds: number, n?: number): void
  rendering(channel: Channel, seconds: number, n?: number): void

  queued(channel: Channel, priority: Priority, n?: number, system?: string): void
  sent(channel: Channel, n?: number, system?: string): void
  /** The end of n deliveries. Outcomes that are no delivery (cancelled, expired, suppressed) count nothing here. */
  delivered(channel: Channel, outcome: Outcome, n?: number, system?: string): void
  deliveryTook(channel: Channel, seconds: number, n?: number, system?: string): void
  suppressed(reason: Reason, n?: number, system?: string): void
  retried(channel: Channel, n?: number, system?: string): void
  deadLetter(kind: 'event' | 'delivery', n?: number): void

  attemptTook(channel: Channel, provider: string, seconds: number, n?: number): void
  providerError(provider: string, code: string, n?: number): void
  providerHealth(channel: Channel, provider: string, healthy: boolean): void
  breaker(service: string, state: 'closed' | 'half_open' | 'open'): void
  rateLimited(scope: 'api' | 'provider' | 'cap', n?: number): void

  /** Everything alive by channel; a channel left out has nothing. */
  queueDepth(byChannel: Partial<Record<Channel, number>>): void
  planningQueue(n: number): void
  inFlight(channel: Channel, n: number): void
  commit(stage: 'accept' | 'settle', rows: number, seconds: number): void
  pool(pool: Pick<pg.Pool, 'totalCount' | 'idleCount' | 'waitingCount'>): void
  /** Registers a cache; `read` is called at each exposition. */
  cache(name: string, read: () => { hits: number; misses: number }): void

  request(method: string, route: string, status: number, seconds: number): void
  realtime(transport: 'websocket' | 'sse' | 'poll', n: number): void
  realtimeDropped(transport: 'websocket' | 'sse' | 'poll', n?: number): void
  worker(name: string, outcome: 'ok' | 'failed'): void
  tracesDropped(n?: number): void
}

const COLLECT_MS = 2000
const BREAKER_VALUE = { closed: 0, half_open: 1, open: 2 } as const

/** What an outcome counts as in `notifications_delivered_total`. */
const STATUS: Partial<Record<Outcome, 'delivered' | 'sent' | 'failed' | 'bounced'>> = {
  delivered: 'delivered',
  sent: 'sent',
  failed: 'failed',
  rejected: 'failed',
  unknown: 'failed',
  bounced: 'bounced',
}

/** @param options.process false leaves out the metrics of the process itself, which start timers; for tests. */
export function createMetrics(options: { process?: boolean } = {}): Metrics {
  const registry = new Registry()
  if (options.process ?? true) collectDefaultMetrics({ register: registry })
  const collectors: (() => void | Promise<void>)[] = []

  const counts = family('counter', ({ name, help, labels }) => {
    const made = new Counter({ name, help, labelNames: [...labels], registers: [registry] })
    // Without labels there is one series, which shall be there from the start.
    return (values: readonly string[]) => (values.length === 0 ? made : made.labels(...values))
  })
  const gauges = family('gauge', ({ name, help, labels }) => {
    const made = new Gauge({ name, help, labelNames: [...labels], registers: [registry] })
    return (values: readonly string[]) => (values.length === 0 ? made : made.labels(...values))
  })
  const timings = new Map(
    namesOf('histogram').map(name => [
      name,
      histogram(registry, { name, ...(METRICS[name] as About & { buckets: readonly number[] }) }),
    ]),
  )

  const add = (name: NameOf<'counter'>, labels: readonly string[], n: number) => {
    if (n > 0) counts(name, labels).inc(n)
  }
  const set = (name: NameOf<'gauge'>, labels: readonly string[], n: number) => gauges(name, labels).set(n)
  const took = (name: NameOf<'histogram'>, labels: readonly string[], seconds: number, n: number) =>
    timings.get(name)!.observe(labels, seconds, n)

  const self: Metrics = {
    registry,
    contentType: registry.contentType,
    async text() {
      // One that hangs or fails leaves its gauges as they were; the others must still be seen.
      await Promise.all(collectors.map(collect => within(COLLECT_MS, async () => collect())))
      return registry.metrics()
    },
    onCollect: collect => void collectors.push(collect),

    received: (n = 1, system = 'core') => add('events_received_total', [system], n),
    duplicate: (n = 1, system = 'core') => add('events_duplicate_total', [system], n),
    planned: (outcome, n = 1, system = 'core') => add('events_planned_total', [system, outcome], n),
    planningTook: (seconds, n = 1, system = 'core') =>
      took('event_planning_duration_seconds', [system], seconds, n),
    rulesTriggered: (n = 1, system = 'core') => add('rules_triggered_total', [system], n),
    ruleEvaluation: (seconds, n = 1) => took('rule_evaluation_duration_seconds', [], seconds, n),
    rendering: (channel, seconds, n = 1) => took('template_render_duration_seconds', [channel], seconds, n),

    queued: (channel, priority, n = 1, system = 'core') =>
      add('notifications_queued_total', [system, channel, priority], n),
    sent: (channel, n = 1, system = 'core') => add('notifications_sent_total', [system, channel], n),
    delivered(channel, outcome, n = 1, system = 'core') {
      const status = STATUS[outcome]
      if (status === undefined) return
      add('notifications_delivered_total', [system, channel, status], n)
      if (status === 'failed' || status === 'bounced') add('notifications_failed_total', [system, channel], n)
    },
    deliveryTook: (channel, seconds, n = 1, system = 'core') =>
      took('notification_delivery_duration_seconds', [system, channel], seconds, n),
    suppressed: (reason, n = 1, system = 'core') =>
      add('notifications_suppressed_total', [system, reason], n),
    retried: (channel, n = 1, system = 'core') => add('notifications_retried_total', [system, channel], n),
    deadLetter: (kind, n = 1) => add('dead_letters_total', [kind], n),

    attemptTook: (channel, provider, seconds, n = 1) =>
      took('delivery_attempt_duration_seconds', [channel, provider], seconds, n),
    providerError: (provider, code, n = 1) => add('provider_errors_total', [provider, code], n),
    providerHealth(channel, provider, healthy) {
      set('provider_health', [channel, provider], healthy ? 1 : 0)
      if (channel === 'email') set('email_provider_health', [provider], healthy ? 1 : 0)
    },
    breaker: (service, state) => set('circuit_breaker_state', [service], BREAKER_VALUE[state]),
    rateLimited: (scope, n = 1) => add('rate_limit_hits_total', [scope], n),

    queueDepth(byChannel) {
      let sum = 0
      for (const channel of seenChannels) set('queue_depth', [channel], byChannel[channel] ?? 0)
      for (const [channel, n] of Object.entries(byChannel) as [Channel, number][]) {
        seenChannels.add(channel)
        set('queue_depth', [channel], n)
        sum += n
      }
      set('queue_size', [], sum)
    },
    planningQueue: n => set('planning_queue_size', [], n),
    inFlight: (channel, n) => set('in_flight', [channel], n),
    commit(stage, rows, seconds) {
      took('batch_size', [stage], rows, 1)
      took('commit_duration_seconds', [stage], seconds, 1)
    },
    pool: pool =>
      self.onCollect(() => {
        set('db_pool_connections', ['busy'], pool.totalCount - pool.idleCount)
        set('db_pool_connections', ['idle'], pool.idleCount)
        set('db_pool_waiting', [], pool.waitingCount)
      }),
    cache: (name, read) =>
      self.onCollect(() => {
        const { hits, misses } = read()
        if (hits + misses > 0) set('cache_hit_ratio', [name], hits / (hits + misses))
      }),

    request(method, route, status, seconds) {
      add('http_requests_total', [method, route, String(status)], 1)
      took('http_request_duration_seconds', [method, route], seconds, 1)
    },
    realtime: (transport, n) => set('realtime_connections', [transport], n),
    realtimeDropped: (transport, n = 1) => add('realtime_dropped_total', [transport], n),
    worker(name, outcome) {
      add('worker_executions_total', [name], 1)
      if (outcome === 'failed') add('worker_failures_total', [name], 1)
    },
    tracesDropped: (n = 1) => add('traces_dropped_total', [], n),
  }
  const seenChannels = new Set<Channel>()
  return self
}

type NameOf<K extends Kind> = {
  [N in MetricName]: (typeof METRICS)[N]['kind'] extends K ? N : never
}[MetricName]

const namesOf = <K extends Kind>(kind: K): NameOf<K>[] =>
  (Object.keys(METRICS) as MetricName[]).filter(name => METRICS[name].kind === kind) as NameOf<K>[]

/** Makes all metrics of a kind, and remembers the series of each set of labels: finding one is one map lookup. */
function family<K extends Kind, Series>(
  kind: K,
  make: (about: About & { name: string }) => (labels: readonly string[]) => Series,
) {
  const metrics = new Map(
    namesOf(kind).map(name => [
      name,
      { series: make({ name, ...METRICS[name] }), made: new Map<string, Series>() },
    ]),
  )
  return (name: NameOf<K>, labels: readonly string[]): Series => {
    const { series, made } = metrics.get(name)!
    const key = labels.join('\0')
    let found = made.get(key)
    if (found === undefined) made.set(key, (found = series(labels)))
    return found
  }
}

async function within(ms: number, work: () => Promise<void>): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  await Promise.race([work().catch(() => {}), late])
  clearTimeout(timer)
}

function counter<const L extends readonly string[]>(labels: L, help: string) {
  return { kind: 'counter', labels, help } as const
}

function gauge<const L extends readonly string[]>(labels: L, help: string) {
  return { kind: 'gauge', labels, help } as const
}

function timing<const L extends readonly string[]>(labels: L, help: string, buckets: readonly number[]) {
  return { kind: 'histogram', labels, help: `${help}, in seconds`, buckets } as const
}

function sizes<const L extends readonly string[]>(labels: L, help: string) {
  return { kind: 'histogram', labels, help, buckets: BATCH_SIZES } as const
}
