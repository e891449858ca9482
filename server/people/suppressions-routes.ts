import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import { CHANNELS } from '../types.ts'
import { ChannelField, MaybeTimeField, TimeField } from './fields.ts'
import { listSuppressions, type SuppressionEntry, suppress, unsuppress } from './suppressions.ts'

const Suppressed = Type.Object({
  channel: ChannelField,
  address: Type.String(),
  reason: Type.Enum(['hard_bounce', 'complaint', 'unsubscribe', 'manual', 'erased']),
  source: Type.String(),
  createdAt: TimeField,
  expiresAt: MaybeTimeField,
})
const Address = Type.String({ minLength: 1, maxLength: 2048 })
const tags = ['Suppressions']

const read = { role: 'service', scope: 'people:read' } as const
const write = { role: 'service', scope: 'people:write' } as const

/** Addresses that are not written to, whoever has them. */
export function suppressionsRoutes(api: Api, { db }: { db: Db }): void {
  api.get(
    '/api/suppressions',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listSuppressions',
        summary: 'List suppressed addresses by channel and address',
        querystring: Type.Object(
          { ...pageQuery, channel: Type.Optional(ChannelField) },
          { additionalProperties: false },
        ),
        response: { 200: pageOf(Suppressed) },
      },
    },
    async request => {
      const { limit, cursor, channel } = request.query
      const [code, address] =
        cursor === undefined
          ? []
          : (decodeCursor('suppressions', cursor, ['int', 'text']) as [number, string])
      if (code !== undefined && CHANNELS[code] === undefined) {
        throw new AppError('invalid_cursor', 'Use nextCursor exactly as it was returned.', {
          field: 'cursor',
        })
      }
      const after = code === undefined || address === undefined ? undefined : { code, address }
      const rows = await listSuppressions(db, request.caller.tenantId, channel, after, limit + 1)
      return toPage(rows.map(show), limit, last =>
        encodeCursor('suppressions', [CHANNELS.indexOf(last.channel), last.address]),
      )
    },
  )

  api.post(
    '/api/suppressions',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'suppress',
        summary: 'Suppress an address',
        description: 'An address that is suppressed already gets the new reason and end.',
        body: Type.Object(
          {
            channel: ChannelField,
            address: Address,
            reason: Type.Optional(Type.Enum(['hard_bounce', 'complaint', 'unsubscribe', 'manual'])),
            source: Type.Optional(Type.String({ maxLength: 200 })),
            expiresAt: Type.Optional(TimeField),
          },
          { additionalProperties: false },
        ),
        response: { 201: Suppressed },
      },
    },
    async (request, reply) => {
      const { caller, traceId, body } = request
      const { channel, address, reason = 'manual', source, expiresAt } = body
      const entry = await db.tx(async tx => {
        const expires = expiresAt === undefined ? undefined : new Date(expiresAt)
        const [made] = await suppress(tx, caller.tenantId, [
          { channel, address, reason, source, expiresAt: expires },
        ])
        // The address is somebody's: the audit trail, which is kept for long, says the channel only.
        const details = { reason, source: source ?? '', expiresAt: expiresAt ?? null }
        await audit(tx, caller, {
          action: 'suppression.created',
          objectKind: 'suppression',
          objectId: channel,
          details,
          traceId,
        })
        return made!
      })
      reply.code(201).header('location', `/api/suppressions?channel=${channel}`)
      return show(entry)
    },
  )

  api.delete(
    '/api/suppressions',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'unsuppress',
        summary: 'Take an address off the list',
        querystring: Type.Object(
          { channel: ChannelField, address: Address },
          { additionalProperties: false },
        ),
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { caller, traceId, query } = request
      const { channel, address } = query
      await db.tx(async tx => {
        await unsuppress(tx, caller.tenantId, channel, address)
        await audit(tx, caller, {
          action: 'suppression.deleted',
          objectKind: 'suppression',
          objectId: channel,
          traceId,
        })
      })
      return reply.code(204).send(null)
    },
  )
}

const show = ({ createdAt, expiresAt, ...entry }: SuppressionEntry): Static<typeof Suppressed> => ({
  ...entry,
  createdAt: createdAt.toISOString(),
  expiresAt: expiresAt?.toISOString() ?? null,
})
