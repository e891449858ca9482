import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import { UserIdField } from '../people/fields.ts'
import { CHANNELS } from '../types.ts'
import { SPAM_ACTIONS, type SpamDetection, listSpam, resolveSpam, riskScore } from './spam.ts'

const closed = { additionalProperties: false }
const Id = Type.String({ format: 'uuid' })
const Time = Type.String({ format: 'date-time' })
const tags = ['Limits']

const Detection = Type.Object({
  id: Id,
  userId: Type.Union([Type.String(), Type.Null()], { description: 'null: an address that is nobody’s.' }),
  detectionRule: Type.String({ description: 'The limit, with its bound.' }),
  eventType: Type.String({ description: 'Of the first that was stopped, as the channel.' }),
  channel: Type.Enum(CHANNELS),
  suspiciousActivity: Type.Object({
    windowStart: Time,
    maxCount: Type.Integer(),
    count: Type.Integer({ description: 'All that came, those let through included.' }),
    stopped: Type.Integer(),
  }),
  riskScore: Type.Integer({ description: 'In hundredths of what is bearable: more than 100 is too much.' }),
  action: Type.Enum([...SPAM_ACTIONS]),
  detectedAt: Time,
  lastAt: Time,
  resolvedAt: Type.Union([Time, Type.Null()]),
  notes: Type.Union([Type.String(), Type.Null()]),
})

/** What limits took for abuse, for whoever looks into it. */
export function spamRoutes(api: Api, { db, now }: { db: Db; now: () => Date }): void {
  api.get(
    '/api/spam-detections',
    {
      config: { access: { role: 'service', scope: 'rules:read' } },
      schema: {
        tags,
        operationId: 'listSpamDetections',
        summary: 'What limits took for abuse, newest first: one for each counter and window that was full',
        querystring: Type.Object(
          {
            ...pageQuery,
            userId: Type.Optional(UserIdField),
            action: Type.Optional(Type.Enum([...SPAM_ACTIONS])),
            resolved: Type.Optional(Type.Boolean()),
          },
          closed,
        ),
        response: { 200: pageOf(Detection) },
      },
    },
    async request => {
      const { limit, cursor, ...filter } = request.query
      const [after = null] = cursor === undefined ? [] : (decodeCursor('spam', cursor, ['id']) as string[])
      const rows = await listSpam(db, request.caller.tenantId, filter, after, limit + 1)
      return toPage(rows.map(show), limit, last => encodeCursor('spam', [last.id]))
    },
  )

  api.post(
    '/api/spam-detections/:id/resolve',
    {
      config: { access: { role: 'service', scope: 'rules:write' } },
      schema: {
        tags,
        operationId: 'resolveSpamDetection',
        summary: 'Note that somebody looked into it',
        params: Type.Object({ id: Id }, closed),
        body: Type.Optional(
          Type.Object({ notes: Type.Optional(Type.String({ minLength: 1, maxLength: 2_000 })) }, closed),
        ),
        response: { 200: Detection },
      },
    },
    async request => {
      const { caller, params, body } = request
      return show(await db.tx(tx => resolveSpam(tx, caller, params.id, body?.notes ?? null, now())))
    },
  )
}

const show = (found: SpamDetection): Static<typeof Detection> => ({
  id: found.id,
  userId: found.userId,
  detectionRule: found.detectionRule,
  eventType: found.eventType,
  channel: found.channel,
  suspiciousActivity: {
    windowStart: found.windowStart.toISOString(),
    maxCount: found.max,
    count: found.max + found.stopped,
    stopped: found.stopped,
  },
  riskScore: riskScore(found),
  action: found.action,
  detectedAt: found.detectedAt.toISOString(),
  lastAt: found.lastAt.toISOString(),
  resolvedAt: found.resolvedAt?.toISOString() ?? null,
  notes: found.notes,
})
