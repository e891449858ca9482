import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { alertsRoutes } from './alerts/routes.ts'
import { standingBook } from './alerts/standing-book.ts'
import { deadLettersRoutes } from './admin/dead-letters-routes.ts'
import { housekeeping } from './admin/housekeeping.ts'
import { adminRoutes } from './admin/routes.ts'
import { tenantBook } from './people/tenant-book.ts'
import { LINKED_TEXTS, wantsShortLinks } from './people/tracking-consent.ts'
import type { Config } from './config.ts'
import { masterKeyring } from './config.ts'
import { changeWatch } from './db/changes.ts'
import { openDb } from './db/pool.ts'
import type { Queryable } from './db/pool.ts'
import { derivedKeys, sealer as openSealer } from './db/seal.ts'
import { backlog as openBacklog } from './deliver/backlog.ts'
import { breakerBoard } from './deliver/breaker-board.ts'
import { codeVendors } from './deliver/code-vendors.ts'
import { deliveriesOf } from './deliver/delivery.ts'
import { deliveryRoutes } from './deliver/delivery-routes.ts'
import { deliveryLoop } from './deliver/loop.ts'
import { mailboxRoutes } from './deliver/mailbox-routes.ts'
import { outcomes as openOutcomes } from './deliver/outcomes.ts'
import { pushTokenRoutes } from './deliver/push-token-routes.ts'
import { providerRoutes } from './deliver/provider-routes.ts'
import { openProviders } from './deliver/set-up.ts'
import type { ProviderSetting } from './deliver/set-up.ts'
import { stateful, takeBack } from './deliver/stateful.ts'
import { experimentBook } from './experiments/experiment-book.ts'
import { experimentRoutes } from './experiments/routes.ts'
import { heartbeatBook } from './heartbeats/book.ts'
import { heartbeatsRoutes } from './heartbeats/routes.ts'
import { heartbeatWatcher } from './heartbeats/watcher.ts'
import { explainFor } from './explain/explain.ts'
import { explainRoutes } from './explain/routes.ts'
import { AppError } from './errors.ts'
import { notifyFanout, redisFanout } from './feed/fanout.ts'
import { feedStore } from './feed/feed.ts'
import { createHub } from './feed/hub.ts'
import { feedKeeper } from './feed/keeper.ts'
import { realtimeRoutes } from './feed/realtime.ts'
import type { Dialect } from './feed/realtime.ts'
import { feedRoutes } from './feed/routes.ts'
import type { Api } from './http/api.ts'
import { assetBook } from './assets/asset-book.ts'
import { assetKeeper } from './assets/keeper.ts'
import { assetLinks } from './assets/links.ts'
import { objectStore } from './assets/object-store.ts'
import { assetRoutes } from './assets/routes.ts'
import { OPERATOR_TENANT_ID, auth as openAuth } from './http/auth.ts'
import { limiter as openLimiter } from './http/limits.ts'
import { consoleRoutes } from './http/console.ts'
import { buildServer } from './http/server.ts'
import { tokenVerifier } from './http/tokens.ts'
import { acceptor as openAcceptor, readRefused } from './ingest/accept.ts'
import { dryRunner } from './dry-run.ts'
import type { Accepted } from './ingest/acceptor.ts'
import { eventTypeBook } from './ingest/event-types.ts'
import { eventTypeRoutes } from './ingest/event-types-routes.ts'
import { closer as digestCloser } from './digest/closer.ts'
import { digestRoutes } from './digest/routes.ts'
import { planner as openPlanner } from './ingest/planner.ts'
import { ingestRoutes } from './ingest/routes.ts'
import { githubSecrets } from './ingest/senders/github.ts'
import { senderRoutes } from './ingest/senders/routes.ts'
import { SHARDS } from './ledger/counters.ts'
import { replanEvent } from './ledger/events.ts'
import { contentChanger, contentOpener, sealedContent } from './ledger/notifications.ts'
import { ownEvents } from './ledger/own-events.ts'
import { ledgerRoutes } from './ledger/routes.ts'
import type { Settlement } from './ledger/settle.ts'
import { LEASE_SECONDS, claimOwner } from './ledger/owner.ts'
import type { Owner } from './ledger/owner.ts'
import { limitHits } from './limits/hits.ts'
import { limitBook } from './limits/limit-book.ts'
import { quotasRoutes } from './allowance/quotas-routes.ts'
import { rateLimitsRoutes } from './allowance/rate-limits-routes.ts'
import { limitsRoutes } from './limits/routes.ts'
import { spamRoutes } from './limits/spam-routes.ts'
import { ruleBook } from './match/rule-book.ts'
import { updateRule } from './match/rules-store.ts'
import { rulesRoutes } from './match/routes.ts'
import { replayer } from './replay/replay.ts'
import { standingAgain } from './alerts/standing-again.ts'
import { replayRoutes } from './replay/routes.ts'
import { scheduleRoutes } from './match/schedule-routes.ts'
import type { Logger } from './observe/log.ts'
import { createMetrics } from './observe/metrics.ts'
import { readiness, standardChecks } from './observe/ready.ts'
import { metricsArePublic, observeRoutes } from './observe/routes.ts'
import { eventSpanId, openTraces, planSpanId } from './observe/traces.ts'
import { peopleFacts } from './people/facts.ts'
import { quietHoursOf } from './people/preferences-evaluate.ts'
import { peopleRoutes } from './people/routes.ts'
import { deviceKeeper } from './people/device-keeper.ts'
import { pushRoutes } from './people/push-routes.ts'
import { verificationRoutes } from './people/verification-routes.ts'
import { preferencePageRoutes } from './people/preference-page-routes.ts'
import { unsubscribeRoutes } from './people/unsubscribe-routes.ts'
import { unsubscribeLinks } from './people/unsubscribe.ts'
import { pipeline as openPipeline } from './pipeline.ts'
import {
  findTemplate,
  findTemplates,
  publishTemplate,
  templates as openTemplates,
  updateTemplate,
} from './render/templates.ts'
import { defaultBook } from './render/default-book.ts'
import { messageBook } from './render/message-book.ts'
import { messagesRoutes } from './render/messages-routes.ts'
import { previewRoutes } from './render/preview-routes.ts'
import { templateRoutes } from './render/routes.ts'
import { variableCheck } from './render/variable-check.ts'
import { streamsRoutes } from './streams/routes.ts'
import { receipts as trackReceipts } from './track/receipts.ts'
import { bounceAddresses } from './track/bounce-address.ts'
import { type BounceDoor, bounceDoor } from './track/bounce-door.ts'
import { trackingLinks } from './track/links.ts'
import { trackedHtml } from './track/rewrite.ts'
import { shortLinks } from './track/short-links.ts'
import { callbackOnce } from './track/callback-once.ts'
import { callbackRoutes } from './track/routes.ts'
import { trackingRoutes } from './track/tracking-routes.ts'
import { SOLUTIONS } from '../solutions/index.ts'
import { type Closure, type Core, type Solution, type TakeEvent, besideOf } from './solution.ts'
import { CHANNELS } from './types.ts'
import type { Channel, TenantId } from './types.ts'

export const VERSION: string = (
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
).version

/** Channels whose addresses belong to people; those of machines are mended by whoever set them. */
const SUPPRESSED_AT_ONCE: ReadonlySet<Channel> = new Set(['email', 'sms', 'whatsapp', 'voice'])

export interface App {
  /** Base URL it answers at; absent without the role `api`. */
  url: string | undefined
  api: Api
  /** Of the local mailbox, where mail stays on this machine. */
  mailboxPort: number | undefined
  /** Where bounces come back, where that is set up. */
  bouncePort: number | undefined
  stop(): Promise<void>
}

export interface AppOptions {
  config: Config
  databaseUrl: string
  log: Logger
  now?: () => Date
  random?: () => number
  /** Besides those that the configuration names: for tests and benches. */
  providers?: readonly ProviderSetting[]
  /** Those that there are; the configuration says which of them are opened. */
  solutions?: readonly Solution[]
}

/**
 * Everything wired, in one straight line, in the order in which an event meets it. Long on purpose: this is the
 * one place where the whole shows.
 */
export async function startApp({ config, databaseUrl, log, ...options }: AppOptions): Promise<App> {
  const now = options.now ?? (() => new Date())
  // First, as wrong settings of a provider end it here, with nothing open yet.
  const outside = await openProviders({ config, now, more: options.providers ?? [] })
  const random = options.random ?? Math.random
  const solutions = (options.solutions ?? SOLUTIONS).filter(({ id }) => config.solutions.has(id))
  const { roles } = config.process
  const onError = (where: string) => (error: unknown) => log.error({ err: error, where }, 'failed')

  // ---- what everything stands on
  const db = openDb(databaseUrl, { max: config.database.poolSize })
  const sealer = openSealer(masterKeyring(config).reveal())
  const metrics = createMetrics()
  metrics.onCollect(() => metrics.pool(db.pool))
  const traces = await openTraces({
    endpoint: config.observe.otlpEndpoint,
    headers: config.observe.otlpHeaders?.reveal(),
    serviceName: config.observe.serviceName,
    serviceVersion: VERSION,
    sampleRatio: config.observe.sampleRatio,
    onDropped: n => metrics.tracesDropped(n),
  })
  // Loaded only where it is used: 30 MB.
  const redis = config.redis.url
    ? (await import('redis')).createClient({ url: config.redis.url.reveal(), disableOfflineQueue: true })
    : undefined
  redis?.on('error', onError('redis'))
  void redis?.connect().catch(onError('redis'))

  let owner: Owner = await claimOwner(db, { roles: roles.names, version: VERSION })
  /** Between losing the control connection and drawing a new number nothing is leased to us. */
  let owned = true
  const keeper = housekeeping({ db, now, retention: config.retention, onError: onError('housekeeping') })
  await keeper.prepare()

  // ---- realtime
  const feed = feedStore(db, sealer)
  const fanout = config.redis.url
    ? await redisFanout(db, config.redis.url.reveal(), {
        othersAlive: () => owner.othersAlive(),
        onError: onError('fanout'),
      })
    : await notifyFanout(db, { othersAlive: () => owner.othersAlive(), onError: onError('fanout') })
  const hub = createHub({
    catchUp: feed.catchUp,
    heads: feed.heads,
    fanout,
    now,
    onError: onError('realtime'),
    perUser: config.realtime.connectionsPerUser,
    total: config.realtime.connections,
    heartbeatMs: config.realtime.heartbeatSeconds * 1000,
    slowBytes: config.realtime.bufferBytes,
  })
  const inboxKeeper = feedKeeper({
    db,
    hub,
    now,
    retentionDays: config.retention.feedDays,
    maxUnread: config.retention.feedItems,
    onError: onError('feed'),
  })
  const onFed = (people: { tenantId: TenantId; userId: string }[]) => {
    if (people.length === 0) return
    hub.wake(people.map(person => ({ ...person, seq: 0 })))
    inboxKeeper.grew(people)
  }

  // ---- delivery
  const links = unsubscribeLinks({
    publicUrl: config.http.publicUrl,
    key: derivedKeys(masterKeyring(config).reveal(), 'unsubscribe'),
  })
  const trackLinks = trackingLinks({
    publicUrl: config.http.publicUrl,
    keys: derivedKeys(masterKeyring(config).reveal(), 'tracking'),
  })
  const textLinks = shortLinks({
    publicUrl: config.http.publicUrl,
    keys: derivedKeys(masterKeyring(config).reveal(), 'short links'),
    keptMs: config.retention.notificationsDays * 86_400_000,
    links: trackLinks,
  })
  const bounces =
    config.bounces.address === undefined
      ? undefined
      : bounceAddresses({
          address: config.bounces.address,
          keys: derivedKeys(masterKeyring(config).reveal(), 'bounces'),
        })
  const watch = changeWatch()
  const tenants = tenantBook(watch, sealer)
  const assets = assetLinks({
    publicUrl: config.http.publicUrl,
    key: derivedKeys(masterKeyring(config).reveal(), 'asset links'),
  })
  const pictures = assetBook(watch, assets)
  const messages = messageBook(watch)
  const { store } = config.assets
  const objects =
    store &&
    objectStore({
      ...store,
      // Of one pair: what is missing there was found out at the start (server/config.ts).
      accessKeyId: (config.assets.storeKeyId ?? config.providers.awsKeyId)!,
      secretAccessKey: (config.assets.storeSecret ?? config.providers.awsSecret)!.reveal(),
      sessionToken: config.assets.storeKeyId ? undefined : config.providers.awsToken?.reveal(),
      now,
    })
  const assetsKept = assetKeeper({ db, objects, now, onError: onError('assets') })
  const people = peopleFacts({ sealer })
  const tenantKey = (tenantId: TenantId) => tenants.get(tenantId)?.dataKey
  const look = async (q: Queryable) => {
    await watch.look(q)
    await tenants.refresh(q)
  }
  const outcomes = openOutcomes({
    db,
    owner: () => owner.number,
    now,
    flushMs: config.deliver.flushMs,
    flushItems: config.deliver.flushItems,
    onError: onError('settle'),
    onSettled(settlements, seconds) {
      metrics.commit('settle', settlements.length, seconds)
      for (const settlement of settlements) refusedAtOnce(settlement)
      let soonest = Number.POSITIVE_INFINITY
      for (const { again } of settlements) if (again && again.runAtMs < soonest) soonest = again.runAtMs
      if (soonest < Number.POSITIVE_INFINITY) backlog.expect(soonest)
      // A failure may have begun a fallback, which is due at once.
      else if (settlements.some(one => one.hasFallback)) backlog.expect(now().getTime())
    },
  })
  const board = breakerBoard({
    db,
    now,
    publish: event =>
      acceptor.accept({
        tenantId: event.tenantId,
        events: [event],
        answer: () => ({ status: 202, body: null }),
      }),
    onError: onError('breaker'),
  })
  // A server that knows at once that there is no such address says the same as a bounce that comes back later. A crash
  // in between loses only this: the next message is refused again.
  const refusedAtOnce = ({ notificationId, channel, attempts }: Settlement) => {
    const last = attempts.at(-1)
    if (last?.outcome !== 'bounced' || !last.provider || !last.code?.startsWith('unknown_address')) return
    if (!SUPPRESSED_AT_ONCE.has(channel)) return
    tracked
      .take(last.provider, channel, [
        {
          kind: 'bounced',
          at: new Date(last.atMs),
          notificationId,
          receiptId: `refused ${notificationId} ${last.attempt}`,
          code: 'unknown_address',
        },
      ])
      .catch(onError('receipts'))
  }
  const devices = deviceKeeper({ db, now, onError: onError('devices') })
  const loop = deliveryLoop({
    // What tells how something stands may change what was said of it before.
    providers: new Map(
      [...outside.providers].map(([channel, of]) => [
        channel,
        of.map(provider => stateful(provider, { db, now, onError: onError('deliver') })),
      ]),
    ),
    settle: outcomes.add,
    now,
    random,
    inFlight: config.deliver.inFlight,
    perChannel: config.deliver.inFlightPerChannel,
    onError: onError('deliver'),
    onAnswer: ({ tenantId, channel }, to, said) =>
      said === 'taken' ? devices.reached(tenantId, channel, to) : devices.gone(tenantId, channel, to),
    linksFor: ({ tenantId, recipient, channel, notificationId, priority }) =>
      channel !== 'email'
        ? undefined
        : {
            // A bare address has no preferences to change; a critical message is not one to opt out of by accident.
            unsubscribeUrl:
              recipient.type === 'user' && priority !== 'CRITICAL'
                ? links.urlFor(tenantId, recipient.id, channel, notificationId)
                : undefined,
            returnPath: bounces?.addressFor(notificationId),
          },
    contentFor: ({ body, tenantId, notificationId, channel }) =>
      body.track && body.html !== undefined
        ? {
            ...body,
            html: trackedHtml(body.html, { tenantId, notificationId, channel }, body.track, trackLinks),
          }
        : body,
    onBreaker(change, lane, channel) {
      log.warn({ lane, channel, change }, 'circuit breaker')
      metrics.breaker(lane, change === 'opened' ? 'open' : 'closed')
      board.changed(change, lane, channel)
    },
    observe: {
      attempt(delivery, attempt) {
        metrics.sent(delivery.channel)
        metrics.attemptTook(delivery.channel, attempt.provider ?? '', (attempt.durationMs ?? 0) / 1000)
        if (attempt.code && attempt.outcome !== 'sent' && attempt.outcome !== 'delivered') {
          metrics.providerError(attempt.provider ?? '', attempt.code.split(' ')[0]!)
        }
        if (delivery.traceId) {
          traces
            .startSpan('deliver', {
              traceId: delivery.traceId,
              parentSpanId: planSpanId(delivery.eventId),
              attributes: {
                'carillon.channel': delivery.channel,
                'carillon.provider': attempt.provider ?? '',
                'carillon.outcome': attempt.outcome,
                'carillon.attempt': attempt.attempt,
              },
              startedAt: new Date(attempt.atMs),
            })
            .end()
        }
      },
      settled(settlement, delivery) {
        if (settlement.again) metrics.retried(delivery.channel)
        else {
          metrics.delivered(delivery.channel, settlement.attempts.at(-1)!.outcome)
          metrics.deliveryTook(delivery.channel, Math.max(0, now().getTime() - delivery.createdAtMs) / 1000)
        }
      },
    },
  })
  const backlog = openBacklog({
    db,
    loop,
    sealer,
    tenantKey,
    people,
    look,
    settle: outcomes.add,
    owner: () => owner.number,
    now,
    channels: roles.deliver.filter(channel => channel !== 'in_app'),
    claimJobs: config.deliver.claimJobs,
    claimBatches: config.deliver.claimBatches,
    sweepMs: config.deliver.sweepMs,
    onFed,
    onError: onError('backlog'),
  })

  // ---- what solutions say of their own events (filled when they are opened, before anything comes in)
  const takers = new Map<string, TakeEvent>()
  const closures: Closure[] = []
  const dialects = new Map<string, Dialect>()
  const closedTo: Closure = (event, channel) => {
    for (const closure of closures) {
      const why = closure(event, channel)
      if (why !== undefined) return why
    }
    return undefined
  }

  // ---- the way in
  const rules = ruleBook(watch)
  const eventTypes = eventTypeBook(watch)
  const templates = openTemplates()
  const limitsInForce = limitBook(watch)
  const hits = limitHits((about, message) => log.warn(about, message))
  const standings = standingBook(watch)
  const beside = besideOf(solutions, config.solutions)
  const pipeline = openPipeline({
    beside,
    watch,
    tenants,
    rules,
    eventTypes,
    people,
    templates,
    sealer,
    limits: limitsInForce,
    experiments: experimentBook(watch),
    assets: pictures,
    messages,
    shortLinks: textLinks,
    standing: standings.standing,
    channelOpen: channel => channel === 'in_app' || outside.configured.has(channel),
    ...(solutions.length > 0 && { closedTo }),
    observe: {
      matched(seconds, events, matched) {
        metrics.ruleEvaluation(seconds / Math.max(1, events), events)
        if (matched > 0) metrics.rulesTriggered(matched)
      },
      rendered: metrics.rendering,
      skipped: (reason, n) => metrics.suppressed(reason, n),
      limited(hit) {
        metrics.rateLimited('cap')
        hits(hit, Date.now())
      },
    },
  })
  const ledger = () => ({
    owner: owner.number,
    nextBatchId: () => owner.nextBatchId(),
    leaseSeconds: LEASE_SECONDS,
    roomFor: (tenantId: TenantId, n: number) =>
      owned && roles.deliver.length > 0 && loop.roomFor(tenantId, n),
  })
  const mine = new Set(roles.deliver)
  const handOver: Parameters<typeof openAcceptor>[0]['handOver'] = ({
    batches,
    fed,
    toPlan,
    nextJobMs,
    nextDigestMs,
  }) => {
    onFed(fed)
    if (nextJobMs !== null) backlog.expect(nextJobMs)
    if (nextDigestMs !== null) digests.expect(nextDigestMs)
    let spilled = false
    for (const batch of batches) {
      if (batch.spilled) {
        spilled = true
        continue
      }
      const deliveries = deliveriesOf(batch, owner.number)
      for (const channel of CHANNELS) {
        const n = deliveries.reduce((sum, delivery) => sum + (delivery.channel === channel ? 1 : 0), 0)
        if (n > 0) metrics.queued(channel, batch.priority, n)
      }
      loop.push(deliveries.filter(delivery => mine.has(delivery.channel)))
      // A channel that other processes deliver: it waits for them in the database.
      for (const delivery of deliveries) {
        if (mine.has(delivery.channel)) continue
        outcomes.add({
          ...delivery,
          attempts: [],
          again: { kind: 'held', runAtMs: now().getTime(), reason: 'spilled', provider: null, attempt: 0 },
        })
      }
    }
    if (spilled) backlog.expect(now().getTime())
    if (toPlan > 0 && roles.plan) planner.expect()
  }
  const acceptor = openAcceptor({
    db,
    pipeline,
    heartbeats: heartbeatBook(watch),
    eventTypes: {
      refuse: event => eventTypes.refuse(event) ?? takers.get(event.type)?.(event) ?? null,
    },
    sealAnswer: (tenantId, text) => sealer.seal(tenantKey(tenantId)!, text),
    openAnswer: (tenantId, sealed) => sealer.open(tenantKey(tenantId)!, sealed).toString('utf8'),
    ledger,
    handOver,
    now,
    lanes: config.ingest.lanes,
    batchSize: config.ingest.batchSize,
    maxWaiting: config.ingest.maxWaiting,
    lingerMs: config.ingest.lingerMs,
    eventKeysDays: config.retention.eventKeysDays,
    idempotencySeconds: config.retention.idempotencySeconds,
    onError: onError('accept'),
    observe: {
      accepted(events, duplicates, seconds) {
        metrics.received(events)
        if (duplicates > 0) metrics.duplicate(duplicates)
        metrics.planned('completed', events - duplicates)
        metrics.planningTook(seconds, events)
        metrics.commit('accept', events, seconds)
      },
      traced(event, startedMs, plannedMs) {
        const attributes = { 'carillon.event.type': event.type, 'carillon.event.id': event.id }
        const { traceId } = event
        const at = new Date(startedMs)
        const root = traces.startSpan('event', {
          traceId: traceId!,
          spanId: eventSpanId(event.id),
          attributes,
          startedAt: at,
        })
        traces
          .startSpan('plan', {
            traceId: traceId!,
            parentSpanId: eventSpanId(event.id),
            spanId: planSpanId(event.id),
            startedAt: new Date(plannedMs),
          })
          .end()
        root.end()
      },
    },
  })
  const unseal = async (tenantId: TenantId, sealedFor: string | null, sealed: Buffer) => {
    if (sealedFor === null) {
      await look(db)
      return sealer.open(tenantKey(tenantId)!, sealed)
    }
    const facts = await people.load(db, [{ tenantId, userIds: [sealedFor] }])
    const key = facts.get(tenantId, sealedFor)?.dataKey
    return key && sealer.open(key, sealed)
  }
  const planner = openPlanner({
    db,
    pipeline,
    unseal,
    ledger,
    handOver,
    now,
    chunkSize: config.ingest.inlineRecipients,
    pollMs: 1000,
    onError: onError('plan'),
  })

  const digests = digestCloser({
    db,
    sealer,
    people,
    look: () => watch.look(db),
    tenantKey,
    ledger,
    standing: standingAgain({ db, sealer, people, tenantKey, book: standings }),
    onClosed(told, released) {
      if (told > 0 && roles.plan) planner.expect()
      if (released > 0) backlog.expect(now().getTime())
    },
    now,
    pollMs: 1000,
    onError: onError('digest'),
  })

  // ---- what is watched over time, and becomes an event
  const tellOwn = ownEvents({ sealer, look, tenantKey, ledger, shard: (owner.number * 16 + 15) % SHARDS })
  const onTold = () => roles.plan && planner.expect()
  const heartbeats = heartbeatWatcher({
    db,
    write: tellOwn,
    listens: roles.api,
    looks: roles.schedule,
    onTold,
    now,
    pollMs: 2000,
    onError: onError('heartbeats'),
  })

  const tracked = trackReceipts({
    db,
    addressOf: async (tenantId, notificationId, channel) => {
      const sealed = await sealedContent(db, tenantId, notificationId)
      const [bodies] = sealed ? await contentOpener(sealer)(db, tenantId, [sealed]) : []
      return bodies?.[channel]?.to
    },
    async publish(event) {
      const { body } = await acceptor.accept({
        tenantId: event.tenantId,
        events: [event],
        answer: ([result]) => ({ status: 202, body: result?.status !== 'duplicate' }),
      })
      return body as boolean
    },
    seal: { sealer, keys: derivedKeys(masterKeyring(config).reveal(), 'receipts') },
    onFallback: () => backlog.expect(now().getTime()),
    now,
    shard: (owner.number * 16 + 10) % SHARDS,
    onError: onError('receipts'),
  })

  // ---- the doors
  const credentials = openAuth({
    db,
    now,
    tokens:
      config.auth.jwtSecret || config.auth.jwksUrl || config.auth.jwtPublicKey
        ? tokenVerifier({
            secret: config.auth.jwtSecret?.reveal(),
            publicKey: config.auth.jwtPublicKey,
            jwksUrl: config.auth.jwksUrl,
            issuer: config.auth.issuer,
            audience: config.auth.audience,
            tenantClaim: config.auth.tenantClaim,
            defaultTenant: config.auth.defaultTenant,
            clockToleranceSeconds: config.auth.clockToleranceSeconds,
          })
        : undefined,
  })
  watch.on('api_key', credentials.forget)
  watch.on('tenant', credentials.forget)
  watch.onReset(credentials.forget)
  const limits = openLimiter({ redis: redis as never })
  let draining = false
  const api = await buildServer({
    auth: credentials,
    version: VERSION,
    logger: log,
    bodyLimitBytes: config.http.bodyLimitBytes,
    trustProxy: config.http.trustedProxies.length > 0 ? [...config.http.trustedProxies] : undefined,
    corsOrigins: [...config.http.corsOrigins],
    limits: {
      perUser: config.limits.perUser,
      perIp: config.limits.perIp,
      perKey: config.limits.perKey,
      failuresPerIp: config.limits.failuresPerIp,
    },
    limiter: limits,
    hsts: config.http.publicUrl.startsWith('https:'),
  })
  observeRoutes(api, {
    metrics,
    ready: readiness(standardChecks({ db, now, draining: () => draining })),
    version: VERSION,
    metricsPublic: metricsArePublic(config.http),
  })
  /** Counter rows of what the doors themselves change: cancelling, redriving. */
  const shard = (owner.number * 16 + 12) % SHARDS
  const replan: Parameters<typeof ledgerRoutes>[1]['replan'] = async (tx, tenantId, eventId) => {
    const again = await replanEvent(tx, tenantId, eventId, now(), shard)
    if (again) setImmediate(planner.expect)
    return again
  }
  const reaccept: Parameters<typeof deadLettersRoutes>[1]['reaccept'] = async (tenantId, { payload }) => {
    const event = readRefused(tenantId, sealer.open(tenantKey(tenantId)!, payload), now())
    const { body } = await acceptor.accept({
      tenantId,
      events: [event],
      answer: ([result]) => ({ status: 202, body: result }),
    })
    const result = body as Accepted
    if (result.status === 'refused') {
      throw new AppError('event_schema_violation', result.error!.message, { field: result.error!.field })
    }
    return { eventId: result.eventId }
  }

  const defaults = defaultBook({
    db,
    operator: OPERATOR_TENANT_ID,
    folders: [
      join(import.meta.dirname, '..', 'templates'),
      ...solutions.flatMap(({ templates }) => templates ?? []),
      ...(config.templates.dir === undefined ? [] : [config.templates.dir]),
    ],
  })
  adminRoutes(api, { db, sealer, auth: credentials })
  peopleRoutes(api, { db, sealer })
  pushRoutes(api, { db, sealer, vapidPublicKey: config.providers.vapidPublic })
  verificationRoutes(api, {
    db,
    send: event =>
      acceptor.accept({
        tenantId: event.tenantId,
        events: [event],
        answer: () => ({ status: 202, body: null }),
      }),
    vendors: codeVendors(outside.listed, now),
    now,
  })
  unsubscribeRoutes(api, { db, links, now })
  preferencePageRoutes(api, { db, sealer, links })
  rulesRoutes(api, {
    db,
    dryRun: dryRunner({ db, pipeline }),
    keptSeconds: config.retention.notificationsDays * 86_400,
    adoptTemplates: defaults.adopt,
  })
  limitsRoutes(api, { db })
  rateLimitsRoutes(api, { db, sealer, now })
  quotasRoutes(api, { db, sealer, now })
  spamRoutes(api, { db, now })
  replayRoutes(api, {
    db,
    replay: replayer({
      db,
      sealer,
      tenants,
      people,
      templates,
      messages,
      beside,
      limits: limitsInForce,
      look: () => watch.look(db),
      tenantKey,
      channelOpen: channel => channel === 'in_app' || outside.configured.has(channel),
      closedTo,
    }),
  })
  scheduleRoutes(api)
  streamsRoutes(api, { db, now, write: tellOwn, onTold })
  heartbeatsRoutes(api, { db, now, write: tellOwn, onTold, onDue: heartbeats.expect })
  alertsRoutes(api, {
    db,
    now,
    shard,
    async removeFromInbox(tenantId, id, at) {
      const changes = await feed.retract(tenantId, [id], at)
      hub.publish(changes)
      return changes.length > 0
    },
    async takeBack(tenantId, id) {
      const named = (name: string) => outside.listed.find(one => one.name === name)?.opened
      const codes = await takeBack(db, named, tenantId, id, onError('retract'))
      return codes.map(code => CHANNELS[code]!)
    },
  })
  eventTypeRoutes(api, { db })
  const picturesOf = async (tenantId: TenantId) => {
    await watch.look(db)
    return (await pictures.load(db, [tenantId], now()))(tenantId)
  }
  templateRoutes(api, { db, assets: picturesOf, defaults: defaults.list })
  messagesRoutes(api, { db })
  experimentRoutes(api, {
    db,
    now,
    publish: {
      async template(tx, actor, id, revision, traceId) {
        const winner = await findTemplate(tx, actor.tenantId, id, revision)
        if (!winner) throw new AppError('conflict', 'The template was deleted meanwhile.')
        const published = winner.publishedRevision ?? 0
        if (revision > published) await publishTemplate(tx, actor, id, revision, traceId)
        // What was before comes again as the next revision, as a rollback has it.
        else if (revision < published) {
          await updateTemplate(tx, actor, id, { ...winner, version: undefined }, undefined, traceId)
        }
      },
      async rule(tx, actor, id, { templateId, channels }, traceId) {
        await updateRule(
          tx,
          actor,
          id,
          before => ({
            ...before,
            ...(templateId !== null && { templateId }),
            ...(channels !== null && {
              channels,
              fallbackChannels: before.fallbackChannels.filter(channel => !channels.includes(channel)),
            }),
          }),
          undefined,
          traceId,
        )
      },
    },
  })
  previewRoutes(api, {
    db,
    now,
    assets: picturesOf,
    async links(tenantId, channel) {
      if (!LINKED_TEXTS.includes(channel)) return undefined
      await watch.look(db)
      const facts = await people.load(db, [{ tenantId, userIds: new Set() }])
      return {
        publicUrl: config.http.publicUrl,
        wanted: wantsShortLinks(facts.tenantDefaults(tenantId), channel),
      }
    },
  })
  assetRoutes(api, {
    db,
    objects,
    links: assets,
    now,
    maxBytes: config.assets.maxBytes,
    tenantBytes: config.assets.tenantBytes,
  })
  trackingRoutes(api, {
    links: trackLinks,
    findShort: code => textLinks.find(db, code, now()),
    receipts: tracked,
    now,
    onError: onError('tracking'),
  })
  callbackRoutes(api, {
    callbacks: outside.callbacks,
    receipts: tracked,
    once: callbackOnce(db, now),
    publicUrl: () => config.http.publicUrl,
  })
  ingestRoutes(api, {
    db,
    acceptor,
    now,
    async findTemplates(q, tenantId, names) {
      const found = await findTemplates(q, tenantId, names)
      if (names.every(name => found.has(name))) return found
      await defaults.adopt(tenantId, names)
      return findTemplates(q, tenantId, names)
    },
    checkVariables: variableCheck(templates),
    quietUntil: (tenantId, test) => quietHoursOf(db, sealer, tenantId, test, now()),
    maxItems: config.http.batchItems,
    maxBytes: config.http.batchBodyLimitBytes,
  })
  senderRoutes(api, {
    db,
    acceptor,
    now,
    maxBytes: config.http.batchBodyLimitBytes,
    github: githubSecrets(derivedKeys(masterKeyring(config).reveal(), 'github webhook')),
    publicUrl: config.http.publicUrl,
  })
  ledgerRoutes(api, {
    db,
    shard,
    now,
    openContent: contentOpener(sealer),
    changeContent: contentChanger(sealer),
    replan,
    onAcknowledged: () => backlog.expect(now().getTime()),
  })
  digestRoutes(api, {
    db,
    shard,
    now,
    openContent: contentOpener(sealer),
    onDue: () => digests.expect(now().getTime()),
    onReleased: () => backlog.expect(now().getTime()),
  })
  explainRoutes(api, { db, unseal })
  deadLettersRoutes(api, { db, shard, now, replan, reaccept })
  deliveryRoutes(api, { db, shard, now, listed: outside.listed, takeReceipts: tracked.take })
  pushTokenRoutes(api, { db, listed: outside.listed, now })
  providerRoutes(api, { db, listed: outside.listed, publicUrl: config.http.publicUrl })
  feedRoutes(api, { feed, hub, now })
  realtimeRoutes(api, { db, auth: credentials, feed, hub, now, dialects, onError: onError('realtime') })
  if (outside.mailbox) mailboxRoutes(api, { mailbox: outside.mailbox })
  await consoleRoutes(api, { folder: join(import.meta.dirname, '..', 'console', 'dist') })

  // ---- what stands on all of it
  const core: Core = {
    api,
    now,
    accept: request => acceptor.accept(request),
    inbox: feed,
    explain: (tenantId, userId, eventId) => explainFor(db, tenantId, userId, eventId),
    takeEvents: (type, take) => takers.set(type, take),
    closeChannels: closure => closures.push(closure),
    speak: (name, dialect) => dialects.set(name, dialect),
  }
  for (const { id, open } of solutions) open?.(core, config.solutions.get(id)!)

  // ---- running
  const renewal = setInterval(() => void owner.renew().catch(onError('lease')), 10_000)
  const draw = () => {
    owner.onLost(() => {
      owned = false
      loop.clear()
      void redraw()
    })
  }
  async function redraw(): Promise<void> {
    while (!draining) {
      try {
        owner = await claimOwner(db, { roles: roles.names, version: VERSION })
        owned = true
        draw()
        backlog.expect(now().getTime())
        return
      } catch (error) {
        onError('owner')(error)
        await new Promise(resolve => setTimeout(resolve, 500))
      }
    }
  }
  draw()

  credentials.start()
  limits.start()
  tracked.start()
  hub.start()
  if (roles.schedule) {
    keeper.start()
    assetsKept.start()
    inboxKeeper.start()
    digests.start()
  }
  if (roles.deliver.length > 0) backlog.start()
  if (roles.plan) planner.start()
  if (roles.api || roles.schedule) heartbeats.start()
  metrics.onCollect(() =>
    metrics.queueDepth(
      Object.fromEntries(CHANNELS.map(channel => [channel, loop.waiting(channel) + loop.inFlight(channel)])),
    ),
  )

  let door: BounceDoor | undefined
  let stopping: Promise<void> | undefined
  const stop = async () => {
    draining = true
    // First no new work, then what runs, then what it has to write, then what it stands on.
    const closing = api.close()
    const hurry = setTimeout(() => api.server.closeAllConnections(), 1000)
    await door?.close()
    await acceptor.close()
    await tracked.close()
    await Promise.all([planner.stop(), backlog.stop(), digests.stop(), heartbeats.stop()])
    await loop.drain(config.http.drainMs)
    await devices.stop()
    await outcomes.close()
    await closing
    clearTimeout(hurry)
    clearInterval(renewal)
    hub.close()
    limits.close()
    await Promise.all([inboxKeeper.close(), keeper.stop(), assetsKept.stop(), credentials.close()])
    await fanout.close()
    await outside.close()
    await owner.close()
    if (redis?.isOpen) redis.destroy()
    await traces.close()
    await db.close()
  }
  let url: string | undefined
  try {
    if (roles.api && bounces && config.bounces.port !== undefined) {
      door = await bounceDoor({
        addresses: bounces,
        host: config.http.host,
        port: config.bounces.port,
        take: found => tracked.take('bounces', 'email', found),
        now,
        onError: onError('bounces'),
      })
    }
    if (roles.api) url = await api.listen({ port: config.http.port, host: config.http.host })
  } catch (error) {
    // A port is taken. All the loops run by now, and would keep the process alive for nothing.
    await stop()
    throw error
  }
  return {
    url,
    api,
    mailboxPort: outside.mailbox?.port,
    bouncePort: door?.port,
    stop: () => (stopping ??= stop()),
  }
}
