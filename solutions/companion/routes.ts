import { Type } from 'typebox'
import { AppError, decodeCursor, encodeCursor, pageQuery, readerOf } from '../../server/solution.ts'
import type { Core } from '../../server/solution.ts'
import { NOTIFICATION_CHANNELS } from './channel.ts'
import { conversationId, messageOf, threadOf } from './conversation.ts'
import type { NotificationService } from './notification-service.ts'
import { Payload, readPayload } from './payload.ts'

const tags = ['Companion']
const Uuid = Type.String({ format: 'uuid' })
const Time = Type.String({ format: 'date-time' })
const Maybe = <T extends Parameters<typeof Type.Union>[0][number]>(type: T) => Type.Union([type, Type.Null()])
const Values = Type.Record(Type.String(), Type.Unknown())
const ByAura = Type.Object(
  { auraId: Type.String({ minLength: 1, maxLength: 100 }) },
  { additionalProperties: false },
)

const Message = Type.Object({
  id: Uuid,
  role: Type.Literal('aura'),
  aura_id: Type.String(),
  rule_id: Maybe(Type.String()),
  title: Maybe(Type.String()),
  message: Type.String(),
  priority: Maybe(Type.Integer()),
  context: Maybe(Values),
  trigger_data: Maybe(Values),
  status: Type.Enum(['delivered', 'read']),
  created_at: Time,
  read_at: Maybe(Time),
})
const Conversation = Type.Object({
  conversationId: Uuid,
  auraId: Type.String(),
  has_unread_proactive: Type.Boolean(),
  unread_proactive_count: Type.Integer(),
  messages: Type.Array(Message, { description: 'Newest first.' }),
  nextCursor: Maybe(Type.String()),
})
const Result = Type.Object({
  channel: Type.Enum([...NOTIFICATION_CHANNELS]),
  status: Type.Enum(['delivered', 'sent', 'queued', 'suppressed', 'failed']),
  eventId: Uuid,
  notificationId: Maybe(Uuid),
  until: Type.Optional(Time),
  error: Type.Optional(
    Type.Object({
      code: Type.Integer({ description: 'The documented number, such as 5002.' }),
      name: Type.String(),
      reason: Type.String(),
      message: Type.String(),
    }),
  ),
})

export function companionRoutes({ api, inbox, now }: Core, service: NotificationService): void {
  const said = Type.Omit(Payload, ['auraId'])

  api.get(
    '/api/auras/:auraId/conversation',
    {
      config: { access: { role: 'user', scope: 'notifications:read' } },
      schema: {
        tags,
        operationId: 'getConversation',
        summary: 'Read the conversation with an aura, newest first',
        description: 'It begins with the first message; before that it is empty.',
        params: ByAura,
        querystring: Type.Object(
          {
            ...pageQuery,
            userId: Type.Optional(
              Type.String({
                minLength: 1,
                maxLength: 255,
                description: 'Services and admins name the person.',
              }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: Conversation },
      },
    },
    async request => {
      const { auraId } = request.params
      const { limit, cursor, userId } = request.query
      const person = readerOf(request.caller, userId)
      const thread = threadOf(auraId)
      const before =
        cursor === undefined ? undefined : (decodeCursor('conversation', cursor, ['int'])[0] as number)
      const at = now()
      const [page, state] = await Promise.all([
        inbox.list(person.tenantId, person.userId, { filter: 'all', thread, before, limit, now: at }),
        inbox.thread(person.tenantId, person.userId, thread, at),
      ])
      const unread = state?.unread ?? 0
      return {
        conversationId: conversationId(person, auraId),
        auraId,
        has_unread_proactive: unread > 0,
        unread_proactive_count: unread,
        messages: page.items.map(item => messageOf(auraId, item)),
        nextCursor: page.nextSeq === null ? null : encodeCursor('conversation', [page.nextSeq]),
      }
    },
  )

  api.post(
    '/api/auras/:auraId/messages',
    {
      config: { access: { role: 'service', scope: 'notifications:write' } },
      schema: {
        tags,
        operationId: 'sendAuraMessage',
        summary: 'Let an aura say something, and tell what became of it on each channel',
        description:
          'The same as publishing the event `companion.rule.triggered`, with an answer for each channel. Channels that ' +
          'are switched off answer CHANNEL_UNAVAILABLE (5002); when all of them are, the request does.',
        params: ByAura,
        body: Type.Object(
          {
            ...said.properties,
            id: Type.Optional(
              Type.String({
                minLength: 1,
                maxLength: 255,
                description: 'A second one with it is a repetition.',
              }),
            ),
          },
          { additionalProperties: false },
        ),
        response: {
          202: Type.Object({ eventId: Uuid, notificationId: Maybe(Uuid), results: Type.Array(Result) }),
        },
      },
    },
    async (request, reply) => {
      const { id, ...rest } = request.body
      const payload = readPayload({ ...rest, auraId: request.params.auraId })
      const results = await service.deliver({
        tenantId: request.caller.tenantId,
        payload,
        ...(id !== undefined && { id }),
      })
      const [first] = results
      if (first === undefined) throw new AppError('internal', 'Nothing was answered')
      return reply.code(202).send({ eventId: first.eventId, notificationId: first.notificationId, results })
    },
  )
}
