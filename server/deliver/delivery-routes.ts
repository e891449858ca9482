import { Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import { sql } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { redriveDelivery } from '../ledger/dead-letters.ts'
import { attemptsKey, attemptsOf, deliveriesOf, isLive } from '../ledger/status.ts'
import type { DeliveryState, DeliveryView } from '../ledger/status.ts'
import { asDeliveryError } from './provider.ts'
import type { Receipt } from './provider.ts'
import type { ListedProvider } from './set-up.ts'
import { CHANNELS } from '../types.ts'
import type { Channel, Id, TenantId } from '../types.ts'

export interface DeliveryRoutesDeps {
  db: Db
  listed: readonly ListedProvider[]
  /** What a vendor tells of messages it took (server/track/receipts.ts). */
  takeReceipts(provider: string, channel: Channel, receipts: readonly Receipt[]): Promise<unknown>
  now?: () => Date
  /** Which rows of the counters are this process's to change. */
  shard: number
}

const STATUSES = ['PENDING', 'SENT', 'DELIVERED', 'FAILED', 'BOUNCED', 'CANCELLED'] as const

/** The documented words (ALP-035), and one for what we ended ourselves. */
const statusOf = (state: DeliveryState): (typeof STATUSES)[number] => {
  if (isLive(state)) return 'PENDING'
  switch (state) {
    case 'sent':
      return 'SENT'
    case 'delivered':
      return 'DELIVERED'
    case 'bounced':
      return 'BOUNCED'
    case 'cancelled':
    case 'expired':
    case 'suppressed':
      return 'CANCELLED'
    default:
      return 'FAILED'
  }
}

const Time = Type.String({ format: 'date-time' })
const Maybe = <T extends Parameters<typeof Type.Union>[0][number]>(type: T) => Type.Union([type, Type.Null()])
const UUID = '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}'
const ById = Type.Object(
  {
    id: Type.String({
      maxLength: 60,
      pattern: `^${UUID}(\\.(${CHANNELS.join('|')}))?$`,
      description:
        'Of a notification and its channel, as in `<uuid>.email`; the channel may be left out where there is one.',
    }),
  },
  { additionalProperties: false },
)

const selectReceipt = sql(
  'delivery_receipt',
  `select opened_at, clicked_at from delivery_state where tenant_id = $1 and notification_id = $2 and channel = $3`,
)

const lastMessage = sql(
  'delivery_last_message',
  `select provider, message_id from attempts
   where tenant_id = $1 and notification_id = $2 and channel = $3 and message_id is not null and provider is not null
   order by attempt desc, worker desc limit 1`,
)
const ASK_MS = 15_000

/** One delivery by its own id (ALP-101, ALP-102): where it stands, and sending it again. */
export function deliveryRoutes(api: Api, deps: DeliveryRoutesDeps): void {
  const { db, shard } = deps
  const now = deps.now ?? (() => new Date())
  const tags = ['Deliveries']

  async function find(tenantId: TenantId, id: string): Promise<DeliveryView> {
    const [notificationId, channel] = id.toLowerCase().split('.') as [Id, Channel | undefined]
    const all = (await deliveriesOf(db, tenantId, [notificationId])).get(notificationId) ?? []
    const found = channel === undefined ? all : all.filter(one => one.channel === channel)
    if (found.length === 0) throw new AppError('not_found', 'There is no delivery with this id.')
    if (found.length > 1) {
      throw new AppError(
        'invalid_request',
        'The notification has several channels: add one, as in <id>.email',
        {
          field: 'id',
        },
      )
    }
    return found[0]!
  }

  api.get(
    '/api/delivery/status/:id',
    {
      config: { access: { role: 'service', scope: 'notifications:read' } },
      schema: {
        tags,
        operationId: 'getDeliveryStatus',
        summary: 'Where one delivery stands',
        params: ById,
        response: {
          200: Type.Object({
            deliveryId: Type.String(),
            notificationId: Type.String({ format: 'uuid' }),
            channel: Type.Enum(CHANNELS),
            status: Type.Enum([...STATUSES]),
            state: Type.String({ description: 'The same in finer words, as a notification shows it.' }),
            retryCount: Type.Integer({ description: 'Tries beyond the first.' }),
            provider: Maybe(Type.String()),
            failureReason: Maybe(Type.String()),
            deliveredAt: Maybe(Time),
            openedAt: Maybe(Time),
            clickedAt: Maybe(Time),
            updatedAt: Maybe(Time),
            waitsUntil: Maybe(Time),
            tries: Type.Array(
              Type.Object({
                attempt: Type.Integer(),
                at: Time,
                outcome: Type.String(),
                provider: Maybe(Type.String()),
                code: Maybe(Type.String()),
                durationMs: Maybe(Type.Integer()),
                cost: Maybe(
                  Type.Number({
                    description:
                      'What the vendor asks for it, in the currency of the provider; later than the try where it is told later.',
                  }),
                ),
              }),
            ),
          }),
        },
      },
    },
    async request => {
      const { tenantId } = request.caller
      const delivery = await find(tenantId, request.params.id)
      const { notificationId, channel, status } = delivery
      const [tries, receipt] = await Promise.all([
        attemptsOf(db, tenantId, [notificationId]),
        db.one<{ opened_at: Date | null; clicked_at: Date | null }>(selectReceipt, [
          tenantId,
          notificationId,
          CHANNELS.indexOf(channel),
        ]),
      ])
      const word = statusOf(status)
      return {
        deliveryId: idOf(notificationId, channel),
        notificationId,
        channel,
        status: word,
        state: status,
        retryCount: Math.max(0, delivery.attempts - 1),
        provider: delivery.provider,
        failureReason: word === 'FAILED' || word === 'BOUNCED' ? (delivery.code ?? status) : null,
        deliveredAt: word === 'DELIVERED' ? iso(delivery.lastAt) : null,
        openedAt: iso(receipt?.opened_at ?? null),
        clickedAt: iso(receipt?.clicked_at ?? null),
        updatedAt: iso(delivery.lastAt),
        waitsUntil: iso(delivery.waitsFor?.until ?? null),
        tries: (tries.get(attemptsKey(notificationId, channel)) ?? []).map(one => ({
          attempt: one.attempt,
          at: one.at.toISOString(),
          outcome: one.outcome,
          provider: one.provider,
          code: one.code,
          durationMs: one.durationMs,
          cost: one.cost,
        })),
      }
    },
  )

  api.post(
    '/api/delivery/status/:id/refresh',
    {
      config: { access: { role: 'service', scope: 'notifications:write' } },
      schema: {
        tags,
        operationId: 'refreshDeliveryStatus',
        summary: 'Ask the vendor what became of a delivery',
        description:
          'For reports that were lost. What it says counts as if it had reported it, once. Answers 409 where the vendor ' +
          'took no message, or cannot be asked.',
        params: ById,
        body: Type.Optional(Type.Object({}, { additionalProperties: false })),
        response: {
          200: Type.Object({
            deliveryId: Type.String(),
            status: Type.Enum([...STATUSES]),
            state: Type.String(),
            told: Type.Integer({ description: 'How many things the vendor had to tell.' }),
            code: Maybe(
              Type.String({
                description: 'Why it could not be asked; as in docs/reference/delivery-codes.md.',
              }),
            ),
          }),
        },
      },
    },
    async request => {
      const { tenantId } = request.caller
      const { notificationId, channel } = await find(tenantId, request.params.id)
      const last = await db.one<{ provider: string; message_id: string }>(lastMessage, [
        tenantId,
        notificationId,
        CHANNELS.indexOf(channel),
      ])
      const ask = deps.listed.find(({ name }) => name === last?.provider)?.opened?.getDeliveryStatus
      if (last === undefined || ask === undefined) {
        throw new AppError('conflict', 'There is no vendor that could be asked about this delivery.')
      }
      const found = await ask(last.message_id, AbortSignal.timeout(ASK_MS)).catch(asDeliveryError)
      const failed = found instanceof Error
      // Whatever the vendor takes it for, it is this delivery's.
      if (!failed && found.length > 0) {
        await deps.takeReceipts(
          last.provider,
          channel,
          found.map(receipt => ({ ...receipt, notificationId })),
        )
      }
      const { status } = await find(tenantId, idOf(notificationId, channel))
      return {
        deliveryId: idOf(notificationId, channel),
        status: statusOf(status),
        state: status,
        told: failed ? 0 : found.length,
        code: failed ? found.code : null,
      }
    },
  )

  api.post(
    '/api/delivery/retry/:id',
    {
      config: { access: { role: 'service', scope: 'notifications:write' } },
      schema: {
        tags,
        operationId: 'retryDelivery',
        summary: 'Send a delivery again that failed',
        description:
          'Answers 409 unless it failed, bounced, was rejected, or nobody knows what became of it. It starts its tries anew.',
        params: ById,
        body: Type.Optional(Type.Object({}, { additionalProperties: false })),
        response: { 202: Type.Object({ deliveryId: Type.String(), status: Type.Enum([...STATUSES]) }) },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params } = request
      const { notificationId, channel, status } = await find(caller.tenantId, params.id)
      const deliveryId = idOf(notificationId, channel)
      await db.tx(async tx => {
        if (!(await redriveDelivery(tx, caller.tenantId, notificationId, channel, now(), shard))) {
          throw new AppError('conflict', `The delivery is ${status}; only a failed one is sent again.`)
        }
        await audit(tx, caller, {
          action: 'delivery.retried',
          objectKind: 'notification',
          objectId: notificationId,
          details: { channel },
          traceId,
        })
      })
      reply.code(202)
      return { deliveryId, status: 'PENDING' as const }
    },
  )
}

const idOf = (notificationId: Id, channel: Channel): string => `${notificationId}.${channel}`
const iso = (date: Date | null): string | null => date?.toISOString() ?? null
