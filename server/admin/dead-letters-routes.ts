import { Type } from 'typebox'
import type { Db, Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import {
  MAX_REDRIVE,
  closeLetter,
  listDeadLetters,
  lockDeadLetter,
  redriveLetters,
} from '../ledger/dead-letters.ts'
import type { DeadLetterFilter } from '../ledger/dead-letters.ts'
import { CHANNELS } from '../types.ts'
import type { Id, TenantId } from '../types.ts'
import { audit } from './audit.ts'

export interface DeadLettersDeps {
  db: Db
  now?: () => Date
  /** Which rows of `ledger_counters` are this process's to change. */
  shard: number
  /**
   * Puts an event whose planning failed into `planning` again, in this transaction, event_counters.failed
   * included. False when it is not failed any more.
   */
  replan(tx: Tx, tenantId: TenantId, eventId: Id): Promise<boolean>
  /**
   * Accepts an event again that its type's schema, or a disabled type, refused; `payload` is what dead_letters
   * keeps. The letter stays locked meanwhile. When the process dies between this and the commit of the letter the
   * event may be accepted twice, unless it bears a producer's id.
   *
   * @throws AppError event_schema_violation when it is refused again: the letter stays open
   */
  reaccept(
    tenantId: TenantId,
    letter: { id: Id; eventId: Id | null; payload: Buffer },
  ): Promise<{ eventId: Id }>
}

const Kind = Type.Enum(['event', 'delivery'])
const Time = Type.String({ format: 'date-time' })
const Uuid = Type.String({ format: 'uuid' })
const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(type: T) =>
  Type.Union([type, Type.Null()])

const filterFields = {
  kind: Type.Optional(Kind),
  code: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
  channel: Type.Optional(Type.Enum(CHANNELS)),
  eventType: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
  since: Type.Optional(Time),
}
const Letter = Type.Object({
  id: Uuid,
  at: Time,
  kind: Kind,
  eventId: Nullable(Uuid),
  notificationId: Nullable(Uuid),
  channel: Nullable(Type.Enum(CHANNELS)),
  eventType: Nullable(Type.String()),
  code: Type.String({ description: 'What failed, such as `timeout` or `schema_violation`.' }),
  error: Type.String(),
})
const Result = Type.Object({
  redriven: Type.Integer({ description: 'On their way again.' }),
  notNeeded: Type.Integer({ description: 'On their way, or arrived, already; or removed by retention.' }),
})
const tags = ['Dead letters']
const read = { role: 'service', scope: 'notifications:read' } as const
const write = { role: 'service', scope: 'notifications:write' } as const

/** What could not be delivered or planned, and sending it again. */
export function deadLettersRoutes(api: Api, deps: DeadLettersDeps): void {
  const { db, shard } = deps
  const now = deps.now ?? (() => new Date())

  api.get(
    '/api/dead-letters',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listDeadLetters',
        summary: 'List what failed for good and was not sent again, newest first',
        querystring: Type.Object({ ...pageQuery, ...filterFields }, { additionalProperties: false }),
        response: { 200: pageOf(Letter) },
      },
    },
    async request => {
      const { limit, cursor, ...filter } = request.query
      const [before] = cursor === undefined ? [] : (decodeCursor('dead-letters', cursor, ['id']) as [Id])
      const rows = await listDeadLetters(db, request.caller.tenantId, filterOf(filter), before, limit + 1)
      const page = toPage(rows, limit, last => encodeCursor('dead-letters', [last.id]))
      return {
        ...page,
        items: page.items.map(({ redrivenAt: _, at, ...letter }) => ({ ...letter, at: at.toISOString() })),
      }
    },
  )

  api.post(
    '/api/dead-letters/:id/redrive',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'redriveDeadLetter',
        summary: 'Send one dead letter again',
        params: Type.Object({ id: Uuid }, { additionalProperties: false }),
        body: Type.Optional(Type.Object({}, { additionalProperties: false })),
        response: { 200: Result },
      },
    },
    async request => {
      const { caller, traceId, params } = request
      return db.tx(async tx => {
        const letter = await lockDeadLetter(tx, caller.tenantId, params.id)
        const result =
          letter.kind === 'delivery'
            ? await redriveLetters(tx, caller.tenantId, { ids: [letter.id], limit: 1 }, now(), shard)
            : await redriveEvent(tx, caller.tenantId, letter)
        await audit(tx, caller, {
          action: 'dead_letter.redriven',
          objectKind: 'dead_letter',
          objectId: letter.id,
          details: result,
          traceId,
        })
        return result
      })
    },
  )

  async function redriveEvent(
    tx: Tx,
    tenantId: TenantId,
    letter: Awaited<ReturnType<typeof lockDeadLetter>>,
  ): Promise<{ redriven: number; notNeeded: number }> {
    const { id, eventId, payload } = letter
    let again = false
    if (payload) again = Boolean(await deps.reaccept(tenantId, { id, eventId, payload }))
    else if (eventId) again = await deps.replan(tx, tenantId, eventId)
    await closeLetter(tx, tenantId, id, now())
    return again ? { redriven: 1, notNeeded: 0 } : { redriven: 0, notNeeded: 1 }
  }

  api.post(
    '/api/dead-letters/redrive',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'redriveDeadLetters',
        summary: 'Send failed deliveries again, the oldest first',
        description:
          'Deliveries only: an event is sent again by its id. Call again while `redriven` equals `limit`.',
        body: Type.Object(
          {
            filter: Type.Optional(Type.Object(filterFields, { additionalProperties: false })),
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: MAX_REDRIVE, default: MAX_REDRIVE })),
          },
          { additionalProperties: false },
        ),
        response: { 200: Result },
      },
    },
    async request => {
      const { caller, traceId, body } = request
      const { filter = {}, limit = MAX_REDRIVE } = body
      if (filter.kind === 'event') {
        throw new AppError('invalid_request', 'Events are sent again one by one, by the id of the letter.', {
          field: '/filter/kind',
        })
      }
      return db.tx(async tx => {
        const result = await redriveLetters(
          tx,
          caller.tenantId,
          { filter: filterOf(filter), limit },
          now(),
          shard,
        )
        await audit(tx, caller, {
          action: 'dead_letters.redriven',
          objectKind: 'dead_letter',
          objectId: '*',
          details: { filter, ...result },
          traceId,
        })
        return result
      })
    },
  )
}

const filterOf = ({
  since,
  ...filter
}: Omit<DeadLetterFilter, 'since'> & { since?: string }): DeadLetterFilter => ({
  ...filter,
  since: since === undefined ? undefined : new Date(since),
})
