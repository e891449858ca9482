import { Type } from 'typebox'
import type { TSchema } from 'typebox'
import { AppError } from '../errors.ts'
import { PRIORITY_SPELLINGS } from '../spelling.ts'
import type { Channel, Event } from '../types.ts'
import { bareAddress, ThreadName, readSend } from './event-input.ts'
import type { Origin, SendInput } from './event-input.ts'

const Time = Type.String({ format: 'date-time' })
const Data = Type.Record(Type.String({ maxLength: 255 }), Type.Unknown(), { maxProperties: 1000 })

/** What every message may say besides its content. */
const common = {
  userId: Type.Optional(
    Type.String({ minLength: 1, maxLength: 255, description: 'A person, at their own address.' }),
  ),
  templateId: Type.Optional(
    Type.String({ minLength: 1, maxLength: 255, description: 'Id or unique name, in place of a body.' }),
  ),
  templateVars: Type.Optional(Data),
  priority: Type.Optional(Type.Enum([...PRIORITY_SPELLINGS])),
  category: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
  thread: Type.Optional(ThreadName),
  scheduledAt: Type.Optional(Time),
  expiresAt: Type.Optional(Time),
  force: Type.Optional(
    Type.Boolean({
      description:
        'Whatever the person prefers, and past limits. For admins. A suppressed address stays suppressed.',
    }),
  ),
}
const to = (description: string) =>
  Type.Optional(
    Type.String({ minLength: 1, maxLength: 2048, description: `${description}, in place of userId.` }),
  )
const Subject = Type.Optional(Type.String({ minLength: 1, maxLength: 998 }))
const Text = Type.Optional(Type.String({ minLength: 1, maxLength: 100_000 }))
const Mailboxes = Type.Optional(
  Type.Array(Type.String({ minLength: 3, maxLength: 320 }), { minItems: 1, maxItems: 50 }),
)

/** The documented direct sends (ALP-096 to ALP-100): the path's last part, and what it takes. */
export const DELIVERY_BODIES = {
  email: body({
    to: to('An e-mail address'),
    subject: Subject,
    body: Text,
    html: Type.Optional(Type.String({ minLength: 1, maxLength: 256_000 })),
    cc: Mailboxes,
    bcc: Mailboxes,
    replyTo: Type.Optional(Type.String({ minLength: 3, maxLength: 998 })),
  }),
  sms: body({ to: to('A phone number such as +15551234567'), body: Text }),
  push: body({
    to: to('A device token, or `/topics/<name>` for a topic that FCM keeps'),
    title: Subject,
    body: Text,
    data: Type.Optional(Data),
  }),
  'in-app': body({ title: Subject, body: Text, data: Type.Optional(Data) }),
  webhook: body({ to: to('A URL'), subject: Subject, body: Text, data: Type.Optional(Data) }),
} as const

export type DeliveryKind = keyof typeof DELIVERY_BODIES

export const DELIVERY_CHANNEL: Record<DeliveryKind, Channel> = {
  email: 'email',
  sms: 'sms',
  push: 'push',
  'in-app': 'in_app',
  webhook: 'webhook',
}

function body<T extends Record<string, TSchema>>(fields: T) {
  return Type.Object({ ...common, ...fields }, { additionalProperties: false })
}

type DeliveryBody = Pick<
  SendInput,
  | 'templateId'
  | 'templateVars'
  | 'priority'
  | 'category'
  | 'thread'
  | 'scheduledAt'
  | 'expiresAt'
  | 'subject'
  | 'body'
  | 'data'
> & {
  userId?: string
  force?: boolean
  to?: string
  title?: string
  html?: string
  cc?: string[]
  bcc?: string[]
  replyTo?: string
}

/**
 * The message as the direct request that `POST /api/notifications` would be: same checks, same engine.
 *
 * @param given what the schema of `kind` let through
 * @throws AppError invalid_request naming the field; forbidden for `force` without being allowed to
 */
export function readDelivery(
  kind: DeliveryKind,
  given: DeliveryBody,
  origin: Origin,
  mayForce: boolean,
): Event {
  const { userId, to: address, force, title, html, cc, bcc, replyTo, data, ...rest } = given
  if (force && !mayForce)
    throw new AppError('forbidden', 'Only admins may force a delivery.', { field: '/force' })
  if ((userId === undefined) === (address === undefined)) {
    throw new AppError(
      'invalid_request',
      kind === 'in-app' ? 'Say whose inbox' : 'Give either a userId or an address in to',
      { field: kind === 'in-app' ? '/userId' : '/to' },
    )
  }
  const channel = DELIVERY_CHANNEL[kind]
  // Here, as the field has another name there.
  if (address !== undefined) bareAddress(channel, address, '/to')
  const extras = { ...(cc && { cc }), ...(bcc && { bcc }), ...(replyTo !== undefined && { replyTo }) }
  const content = Object.keys(extras).length > 0 ? { ...data, email: extras } : data
  const send: SendInput = {
    ...rest,
    ...(userId === undefined
      ? { recipientType: 'system', address: address! }
      : { recipientType: 'user', recipientId: userId }),
    channels: [channel],
    ...(title !== undefined && { subject: title }),
    ...(html !== undefined && { bodyHtml: html }),
    ...(content !== undefined && { data: content }),
  }
  const event = readSend(send, origin)
  if (force) event.direct!.force = true
  return event
}
