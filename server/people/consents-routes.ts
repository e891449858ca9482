import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import type { JsonObject } from '../types.ts'
import { addReceipts, latestReceiptAt, listReceipts, type Receipt, receiptSubject } from './consents.ts'
import { ChannelField, IdField, TimeField, UserIdField } from './fields.ts'
import { checkScope, orNull, ScopeField } from './preference-fields.ts'
import { MARKETING } from './preference-scopes.ts'
import { changePreferences, readPreferences, touchPreferences } from './preference-store.ts'
import { getUser, lockUser } from './users.ts'

/** Bytes of JSON that may go with a receipt: the wording that was agreed to, a form, an address. */
const MAX_EVIDENCE = 4_096

const strict = { additionalProperties: false }
const Value = orNull(Type.Record(Type.String(), Type.Unknown()))
const ReceiptView = Type.Object({
  id: IdField,
  userId: Type.String(),
  at: TimeField,
  subject: Type.String({
    description: '`class:marketing`, `class:marketing:email`, `channel:email`, `global` …',
  }),
  oldValue: Value,
  newValue: Value,
  actor: Type.String({ description: '`user`: the person; else `key:<id>` or `user:<id>`.' }),
  origin: Type.String(),
})
const Params = Type.Object({ userId: UserIdField }, strict)
const tags = ['Consents']

/** Receipts of what people agreed to and refused. They are added, never changed. */
export function consentsRoutes(api: Api, { db, now = () => new Date() }: { db: Db; now?: () => Date }): void {
  api.get(
    '/api/users/:userId/consents',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'listConsents',
        summary: 'What a user agreed to or refused, and when, who and where; latest first',
        params: Params,
        querystring: Type.Object(
          { ...pageQuery, subject: Type.Optional(Type.String({ minLength: 1, maxLength: 400 })) },
          strict,
        ),
        response: { 200: pageOf(ReceiptView) },
      },
    },
    async request => {
      const { userId } = request.params
      const { tenantId } = request.caller
      const { limit, cursor, subject } = request.query
      requireSelf(request, userId)
      const [before] = cursor === undefined ? [] : (decodeCursor('consents', cursor, ['id']) as [string])
      const rows = await listReceipts(db, tenantId, userId, { subject, before, limit: limit + 1 })
      // Nothing found: is it the user who is unknown?
      if (rows.length === 0) await getUser(db, tenantId, userId)
      return toPage(rows.map(show), limit, last => encodeCursor('consents', [last.id]))
    },
  )

  api.post(
    '/api/users/:userId/consents',
    {
      config: { access: { role: 'service', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'recordConsent',
        summary: 'Record what a user agreed to or refused elsewhere',
        description:
          'The switch follows, unless a later receipt of the same subject is there. What cannot be marketing needs no receipt and is refused.',
        params: Params,
        body: Type.Object(
          {
            granted: Type.Boolean(),
            scope: Type.Optional(Type.String({ ...ScopeField, default: MARKETING })),
            channel: Type.Optional(orNull(ChannelField)),
            at: Type.Optional(TimeField),
            origin: Type.String({
              minLength: 1,
              maxLength: 300,
              description: 'Where: a form, a list, a shop.',
            }),
            evidence: Type.Optional(
              Type.Record(Type.String({ maxLength: 100 }), Type.Unknown(), { maxProperties: 50 }),
            ),
          },
          strict,
        ),
        response: { 201: ReceiptView },
      },
    },
    async (request, reply) => {
      const { caller, traceId, body } = request
      const { tenantId } = caller
      const { userId } = request.params
      const { granted, scope = MARKETING, channel = null, origin, evidence } = body
      checkScope(scope)
      const subject = receiptSubject(scope, channel)
      if (subject === undefined) {
        throw new AppError(
          'invalid_request',
          'Consent is recorded of marketing, of a channel, or of everything.',
          {
            field: '/scope',
          },
        )
      }
      const at = body.at === undefined ? now() : new Date(body.at)
      if (at > now()) throw new AppError('invalid_request', 'It lies in the future.', { field: '/at' })
      if (evidence !== undefined && Buffer.byteLength(JSON.stringify(evidence)) > MAX_EVIDENCE) {
        throw new AppError('invalid_request', `Evidence takes at most ${MAX_EVIDENCE} bytes of JSON.`, {
          field: '/evidence',
        })
      }
      const receipt = await db.tx(async tx => {
        await lockUser(tx, tenantId, userId)
        const later = await latestReceiptAt(tx, tenantId, userId, subject)
        const own = await readPreferences(tx, tenantId, userId)
        const enabled = own.find(row => row.scope === scope && row.channel === channel)?.enabled ?? null
        if (later === null || later <= at) {
          await changePreferences(tx, tenantId, userId, null, [{ scope, channel, enabled: granted }])
          await touchPreferences(tx, tenantId, userId)
        }
        const newValue: JsonObject = {
          enabled: granted,
          ...(evidence && { evidence: evidence as JsonObject }),
        }
        const oldValue = { enabled }
        const by = { actor: `${caller.kind}:${caller.id}`, origin }
        const [id] = await addReceipts(tx, tenantId, userId, by, [{ subject, oldValue, newValue, at }])
        await audit(tx, caller, {
          action: 'consent.recorded',
          objectKind: 'user',
          objectId: userId,
          details: { subject, granted, at: at.toISOString(), consentId: id },
          traceId,
        })
        return { id: id!, userId, at, subject, oldValue, newValue, ...by }
      })
      reply.code(201).header('location', `/api/users/${encodeURIComponent(userId)}/consents`)
      return show(receipt)
    },
  )
}

const show = ({ at, ...receipt }: Receipt): Static<typeof ReceiptView> => ({
  ...receipt,
  at: at.toISOString(),
})
