import { Type } from 'typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Db, Queryable } from '../db/pool.ts'
import { AppError, type ErrorDetail } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { fingerprint, keyOf, readIdempotencyKey } from '../ingest/idempotency.ts'
import type { Channel, Event, Id, JsonObject, TenantId, UserId } from '../types.ts'
import type { AcceptAnswer, Accepted, Acceptor, Answer } from './acceptor.ts'
import { DELIVERY_BODIES, DELIVERY_CHANNEL, readDelivery } from './delivery-input.ts'
import type { DeliveryKind } from './delivery-input.ts'
import { binaryIdentity, modeOf, readBinary, readStructured } from './cloudevents.ts'
import { EventInput, MAX_DATA_BYTES, SendInput, TypedEventInput, readEvent, readSend } from './event-input.ts'
import type { Origin } from './event-input.ts'
import { TemplateTestInput, TestInput, readTest } from './test-input.ts'

export interface IngestDeps {
  db: Db
  acceptor: Acceptor
  now(): Date
  /** The templates behind ids or unique names, and what is sent of them; what there is not is not in the map. */
  findTemplates(
    q: Queryable,
    tenantId: TenantId,
    idsOrNames: readonly string[],
  ): Promise<Map<string, { id: Id; revision: number | undefined }>>
  /** What is wrong with the variables that each request gives its template, by JSON pointer. */
  checkVariables(
    q: Queryable,
    sends: readonly {
      tenantId: TenantId
      templateId: Id
      revision: number | undefined
      channels: readonly Channel[]
      given: JsonObject
      at: string
    }[],
  ): Promise<ErrorDetail[][]>
  /** Items of one batch, and bytes of its body. */
  maxItems: number
  maxBytes: number
  /** The end of the hours in which this person is not to be told so by this companion; null: they are to be. */
  quietUntil(
    tenantId: TenantId,
    test: { userId: UserId; channel: Channel; auraId: string },
  ): Promise<Date | null>
}

/** How far the event itself has come; what became of its deliveries is at /api/events/status/{id}. */
const Status = Type.Enum(['PENDING', 'COMPLETED', 'FAILED'])
const Uuid = Type.String({ format: 'uuid' })
const Published = Type.Object({
  id: Uuid,
  eventId: Uuid,
  status: Status,
  duplicate: Type.Optional(
    Type.Boolean({ description: 'An event with this source and id was accepted before.' }),
  ),
})
const ItemError = Type.Object({
  code: Type.String(),
  field: Type.Optional(Type.String()),
  message: Type.String(),
  errors: Type.Optional(
    Type.Array(Type.Object({ field: Type.String(), message: Type.String() }), {
      description: 'Where several things are wrong: each, with a JSON pointer within the item.',
    }),
  ),
})
const BatchAnswer = Type.Object({
  results: Type.Array(
    Type.Object({
      index: Type.Integer(),
      eventId: Type.Optional(Uuid),
      status: Type.Optional(Status),
      duplicate: Type.Optional(Type.Boolean()),
      error: Type.Optional(ItemError),
    }),
  ),
})
const Sent = Type.Object({
  id: Type.Union([Uuid, Type.Null()], { description: 'The notification, when there is exactly one.' }),
  eventId: Uuid,
  status: Type.Enum(['PENDING', 'ACCEPTED', 'SUPPRESSED']),
  notifications: Type.Array(
    Type.Object({ id: Uuid, recipientId: Type.String(), channels: Type.Array(Type.String()) }),
  ),
  suppressed: Type.Integer({ description: 'Deliveries decided against; explain says why.' }),
})
const BulkAnswer = Type.Object({
  results: Type.Array(
    Type.Object({ index: Type.Integer(), error: Type.Optional(ItemError), ...Type.Partial(Sent).properties }),
  ),
})

const Delivered = Type.Object({
  deliveryId: Type.Union([Type.String(), Type.Null()], {
    description:
      'For /api/delivery/status; null while a scheduled one is not planned, and where there is none.',
  }),
  notificationId: Type.Union([Uuid, Type.Null()]),
  eventId: Uuid,
  status: Type.Enum(['PENDING', 'ACCEPTED', 'SUPPRESSED']),
})
const DELIVERIES: Record<DeliveryKind, string> = {
  email: 'Send one e-mail',
  sms: 'Send one text message',
  push: 'Send a push to the devices of one person',
  'in-app': 'Put one item into an inbox',
  webhook: 'Post to one endpoint',
}

/** Bodies have several documented shapes: the reader of each names what is wrong better than a union could. */
const readByHand = { validatorCompiler: () => () => true }

export function ingestRoutes(api: Api, deps: IngestDeps): void {
  const { acceptor, now, maxItems } = deps
  const write = { role: 'service', scope: 'events:write' } as const
  const send = { role: 'service', scope: 'notifications:write' } as const

  const originOf = (request: FastifyRequest): Origin => ({
    tenantId: request.caller.tenantId,
    now: now(),
    traceId: request.traceId,
    small: Number(request.headers['content-length'] ?? Infinity) <= MAX_DATA_BYTES,
  })

  /**
   * Accepts what could be read; an item that could not keeps its error at its place.
   *
   * @param ready what they name is found and judged, as of now
   */
  async function accept(
    request: FastifyRequest,
    reply: FastifyReply,
    events: Event[],
    ready: () => Promise<void>,
    answer: (results: Accepted[]) => Answer,
  ): Promise<void> {
    const key = readIdempotencyKey(request.headers['idempotency-key'])
    const idempotency =
      key === undefined
        ? undefined
        : {
            key: keyOf(request.caller, `${request.method} ${request.routeOptions.url}`, key),
            fingerprint: fingerprint(
              modeOf(request.headers) === 'binary'
                ? binaryIdentity(request.headers, request.body)
                : request.body,
            ),
          }
    const { tenantId } = request.caller
    let said: AcceptAnswer | undefined
    try {
      await ready()
    } catch (error) {
      // The same request again gets the same answer, whatever has become of what it names.
      said = idempotency && (await acceptor.answered(tenantId, idempotency))
      if (!said) throw error
    }
    if (events.length === 0 && !idempotency) {
      const { status, body } = answer([])
      await reply.code(status).send(body)
      return
    }
    const { status, body, replayed } =
      said ?? (await acceptor.accept({ tenantId, events, idempotency, answer }))
    if (replayed) reply.header('idempotency-replayed', 'true')
    // Decided in the transaction, which keeps the event as a dead letter; said here, like every other problem.
    if (status === 422) {
      const { eventId, field, message } = body as { eventId: string; field: string; message: string }
      throw new AppError('event_schema_violation', message, { field, extra: { eventId } })
    }
    await reply.code(status).send(body)
  }

  const published = (result: Accepted) => ({
    id: result.eventId,
    eventId: result.eventId,
    status: result.status === 'pending' ? 'PENDING' : result.status === 'refused' ? 'FAILED' : 'COMPLETED',
    ...(result.status === 'duplicate' && { duplicate: true }),
  })

  api.post(
    '/api/events/publish',
    {
      // In binary mode the data may be of any type.
      config: { access: write, rawBody: true },
      ...readByHand,
      schema: {
        tags: ['Events'],
        operationId: 'publishEvent',
        summary: 'Publish one event: our own shape, a typed one, or CloudEvents 1.0 (structured or binary)',
        body: Type.Union([EventInput, TypedEventInput]),
        response: { 202: Published },
      },
    },
    async (request, reply) => {
      const event = readOne(request, originOf(request))
      const ready = () => resolve(deps, [event])
      return accept(request, reply, [event], ready, ([result]) => {
        if (result!.status === 'refused') {
          return { status: 422, body: { eventId: result!.eventId, ...result!.error } }
        }
        return { status: 202, body: published(result!) }
      })
    },
  )

  api.post(
    '/api/events/batch',
    {
      config: { access: write },
      ...readByHand,
      bodyLimit: deps.maxBytes,
      schema: {
        tags: ['Events'],
        operationId: 'publishEvents',
        summary: 'Publish many events; each has its own result',
        body: Type.Object(
          { events: Type.Array(Type.Union([EventInput, TypedEventInput]), { minItems: 1, maxItems }) },
          { additionalProperties: false },
        ),
        response: { 202: BatchAnswer },
      },
    },
    async (request, reply) => {
      const origin = originOf(request)
      const batched = modeOf(request.headers) === 'batched'
      const items = listOf(
        batched ? request.body : onlyMember(request.body, 'events'),
        maxItems,
        batched ? '/' : '/events',
      )
      const { events, errors } = readAll(items, item =>
        batched || isCloudEvent(item) ? readStructured(item, origin) : readEvent(item, origin),
      )
      const ready = () => resolve(deps, events)
      return accept(request, reply, events, ready, results => {
        let at = 0
        return {
          status: 202,
          body: {
            results: items.map((_, index) => {
              const error = errors.get(index)
              if (error) return { index, error }
              const result = results[at++]!
              const { eventId, status, duplicate } = published(result)
              return {
                index,
                eventId,
                status,
                ...(duplicate && { duplicate }),
                ...(result.error && { error: { code: 'event_schema_violation', ...result.error } }),
              }
            }),
          },
        }
      })
    },
  )

  const sent = (result: Accepted) => ({
    id: result.notifications.length === 1 ? result.notifications[0]!.id : null,
    eventId: result.eventId,
    status:
      result.status === 'pending'
        ? 'PENDING'
        : result.notifications.length === 0 && result.status !== 'duplicate'
          ? 'SUPPRESSED'
          : 'ACCEPTED',
    notifications: result.notifications,
    suppressed: result.suppressed,
  })

  api.post(
    '/api/notifications',
    {
      config: { access: send },
      ...readByHand,
      schema: {
        tags: ['Notifications'],
        operationId: 'sendNotification',
        summary: 'Tell a user, role, group, topic or bare address something, without a rule',
        body: SendInput,
        response: { 202: Sent },
      },
    },
    async (request, reply) => {
      const event = readSend(request.body, originOf(request))
      const ready = () => resolveSend(deps, event, request.body)
      return accept(request, reply, [event], ready, ([result]) => ({ status: 202, body: sent(result!) }))
    },
  )

  api.post(
    '/api/notifications/test',
    {
      config: { access: { role: 'user', scope: 'notifications:write' } },
      schema: {
        tags: ['Notifications'],
        operationId: 'sendTestNotification',
        summary: 'Try out a channel or a template: now, whatever the person prefers; limits hold',
        description: 'Of a companion (auraId): unless it is in quiet hours, which is an error.',
        body: TestInput,
        response: { 202: Sent },
      },
    },
    async (request, reply) => {
      const { userId = request.caller.userId } = request.body
      if (userId === undefined) {
        throw new AppError('invalid_request', 'Say who is to be told', { field: '/userId' })
      }
      requireSelf(request, userId)
      const event = readTest(request.body, originOf(request), userId)
      const ready = async () => {
        await resolveSend(deps, event, request.body)
        const { auraId } = request.body
        if (auraId === undefined) return
        const [channel] = event.direct!.channels
        const until = await deps.quietUntil(request.caller.tenantId, { userId, channel: channel!, auraId })
        if (until) {
          const message = `Quiet hours last until ${until.toISOString()}.`
          throw new AppError('quiet_hours_active', message, { field: '/channel' })
        }
      }
      return accept(request, reply, [event], ready, ([result]) => ({ status: 202, body: sent(result!) }))
    },
  )

  api.post(
    '/api/templates/:id/test',
    {
      config: { access: send },
      schema: {
        tags: ['Templates'],
        operationId: 'sendTestOfTemplate',
        summary: 'Send somebody what a template says now',
        params: Type.Object(
          { id: Type.String({ minLength: 1, maxLength: 255 }) },
          { additionalProperties: false },
        ),
        body: TemplateTestInput,
        response: { 202: Sent },
      },
    },
    async (request, reply) => {
      const { userId = request.caller.userId } = request.body
      if (userId === undefined) {
        throw new AppError('invalid_request', 'Say who is to be told', { field: '/userId' })
      }
      const body = { ...request.body, templateId: request.params.id }
      const event = readTest(body, originOf(request), userId)
      const ready = () =>
        resolveSend(
          deps,
          event,
          request.body,
          () => new AppError('not_found', 'There is no template with this id or name.'),
        )
      return accept(request, reply, [event], ready, ([result]) => ({ status: 202, body: sent(result!) }))
    },
  )

  for (const [kind, summary] of Object.entries(DELIVERIES) as [DeliveryKind, string][]) {
    const channel = DELIVERY_CHANNEL[kind]
    api.post(
      `/api/delivery/${kind}`,
      {
        config: { access: send },
        schema: {
          tags: ['Deliveries'],
          operationId: `deliver${channel.replace(/(?:^|_)(.)/g, (_, letter: string) => letter.toUpperCase())}`,
          summary,
          description: 'Preferences and limits hold as for every other message.',
          body: DELIVERY_BODIES[kind],
          response: { 202: Delivered },
        },
      },
      async (request, reply) => {
        const event = readDelivery(kind, request.body, originOf(request), request.caller.role === 'admin')
        const ready = () => resolveSend(deps, event, request.body)
        return accept(request, reply, [event], ready, ([result]) => {
          const { id, status, eventId } = sent(result!)
          return {
            status: 202,
            body: {
              deliveryId: id === null ? null : `${id}.${channel}`,
              notificationId: id,
              eventId,
              status,
            },
          }
        })
      },
    )
  }

  api.post(
    '/api/notifications/bulk',
    {
      config: { access: send },
      ...readByHand,
      bodyLimit: deps.maxBytes,
      schema: {
        tags: ['Notifications'],
        operationId: 'sendNotifications',
        summary: 'Send many; each has its own result',
        body: Type.Object(
          { notifications: Type.Array(SendInput, { minItems: 1, maxItems }) },
          { additionalProperties: false },
        ),
        response: { 202: BulkAnswer },
      },
    },
    async (request, reply) => {
      const origin = originOf(request)
      const items = listOf(onlyMember(request.body, 'notifications'), maxItems, '/notifications')
      const read = readAll(items, item => readSend(item, origin))
      const events = await resolveEach(deps, items, read)
      return accept(
        request,
        reply,
        events,
        async () => {},
        results => {
          let at = 0
          return {
            status: 202,
            body: {
              results: items.map((_, index) => {
                const error = read.errors.get(index)
                return error ? { index, error } : { index, ...sent(results[at++]!) }
              }),
            },
          }
        },
      )
    },
  )
}

const isCloudEvent = (item: unknown): boolean =>
  typeof item === 'object' && item !== null && 'specversion' in item

function readOne(request: FastifyRequest, origin: Origin): Event {
  const mode = modeOf(request.headers)
  if (mode === 'batched') throw new AppError('unsupported_media_type', 'Batches go to /api/events/batch')
  if (mode === 'binary') return readBinary(request.headers, request.body, origin)
  if (Buffer.isBuffer(request.body)) {
    throw new AppError('unsupported_media_type', 'Send JSON, or a CloudEvent with its headers', {
      field: 'content-type',
    })
  }
  return mode === 'structured' || isCloudEvent(request.body)
    ? readStructured(request.body, origin)
    : readEvent(request.body, origin)
}

/** The one field of a batch's body; a second one would be a mistake that nobody sees. */
function onlyMember(body: unknown, name: string): unknown {
  if (typeof body !== 'object' || body === null) return undefined
  const unknown = Object.keys(body).find(other => other !== name)
  if (unknown !== undefined) {
    throw new AppError('invalid_request', 'There is no such field', { field: `/${unknown.slice(0, 100)}` })
  }
  return (body as Record<string, unknown>)[name]
}

function listOf(value: unknown, maxItems: number, field: string): unknown[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new AppError('invalid_request', 'A list of at least one item is needed', { field })
  }
  if (value.length > maxItems) {
    throw new AppError('invalid_request', `At most ${maxItems} items in one request`, { field })
  }
  return value
}

interface Read {
  events: Event[]
  /** By place in the request. */
  errors: Map<number, { code: string; field?: string; message: string; errors?: ErrorDetail[] }>
}

function readAll(items: readonly unknown[], read: (item: unknown) => Event): Read {
  const events: Event[] = []
  const errors: Read['errors'] = new Map()
  for (const [index, item] of items.entries()) {
    try {
      events.push(read(item))
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      errors.set(index, itemError(error))
    }
  }
  return { events, errors }
}

const itemError = (error: AppError) => ({
  code: error.code,
  field: error.errors?.[0]?.field,
  message: error.message,
  ...(error.errors && error.errors.length > 1 && { errors: error.errors }),
})

const unknownTemplate = () =>
  new AppError('invalid_request', 'There is no such template', { field: '/templateId' })

/** Template names become ids; one statement for all. */
async function resolve(deps: IngestDeps, events: readonly Event[]): Promise<void> {
  const { missing } = await resolveNames(deps, events)
  if (missing.size > 0) throw unknownTemplate()
}

/** The same for one direct request, which is refused where its template needs other variables. */
async function resolveSend(
  deps: IngestDeps,
  event: Event,
  body: unknown,
  unknown = unknownTemplate,
): Promise<void> {
  const { missing, named } = await resolveNames(deps, [event])
  if (missing.size > 0) throw unknown()
  const [refused] = await refusals(deps, [event], () => body, named)
  if (refused) throw refused[1]
}

/** The same for a bulk: an item that is refused gets its error, the others go on. */
async function resolveEach(deps: IngestDeps, items: readonly unknown[], read: Read): Promise<Event[]> {
  const { missing, named } = await resolveNames(deps, read.events)
  if (named.size === 0 && missing.size === 0) return read.events
  const places = [...items.keys()].filter(index => !read.errors.has(index))
  const placeOf = new Map(read.events.map((event, at) => [event, places[at]!]))
  const refused = await refusals(deps, read.events, event => items[placeOf.get(event)!], named)
  for (const event of missing) refused.set(event, unknownTemplate())
  for (const [event, error] of refused) read.errors.set(placeOf.get(event)!, itemError(error))
  return read.events.filter(event => !refused.has(event))
}

async function resolveNames(
  { db, findTemplates }: IngestDeps,
  events: readonly Event[],
): Promise<{ missing: Set<Event>; named: Map<Event, { id: Id; revision: number | undefined }> }> {
  const missing = new Set<Event>()
  const named = new Map<Event, { id: Id; revision: number | undefined }>()
  const naming = events.filter(event => event.direct?.templateId !== undefined)
  if (naming.length === 0) return { missing, named }
  const names = [...new Set(naming.map(event => event.direct!.templateId!))]
  const byName = await findTemplates(db, naming[0]!.tenantId, names)
  for (const event of naming) {
    const found = byName.get(event.direct!.templateId!)
    if (found === undefined) {
      missing.add(event)
      continue
    }
    event.direct!.templateId = found.id
    named.set(event, found)
  }
  return { missing, named }
}

/** Whoever asks for a message that could not be written is told at once; an event is a fact, and is taken. */
async function refusals(
  { db, checkVariables }: IngestDeps,
  events: readonly Event[],
  bodyOf: (event: Event) => unknown,
  named: ReadonlyMap<Event, { id: Id; revision: number | undefined }>,
): Promise<Map<Event, AppError>> {
  const refused = new Map<Event, AppError>()
  const naming = events.filter(event => named.has(event))
  if (naming.length === 0) return refused
  const found = await checkVariables(
    db,
    naming.map(event => {
      const { id, revision } = named.get(event)!
      const { channels, fallback, addresses } = event.direct!
      return {
        tenantId: event.tenantId,
        templateId: id,
        revision,
        channels: [...channels, ...fallback, ...(Object.keys(addresses ?? {}) as Channel[])],
        given: event.data,
        at: givenAt(bodyOf(event)),
      }
    }),
  )
  for (const [at, errors] of found.entries()) {
    const [first] = errors
    if (!first) continue
    const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : ''
    refused.set(naming[at]!, new AppError('invalid_variables', `${first.message}${more}`, { errors }))
  }
  return refused
}

/** Where a request gives its variables: `templateVars`, or `data` where there are none. */
const givenAt = (body: unknown): string => {
  const { templateVars, data } = (body ?? {}) as { templateVars?: unknown; data?: unknown }
  return templateVars === undefined && data !== undefined ? '/data' : '/templateVars'
}
