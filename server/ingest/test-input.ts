import { type Static, Type } from 'typebox'
import { AppError } from '../errors.ts'
import { CHANNEL_SPELLINGS } from '../spelling.ts'
import type { Event, UserId } from '../types.ts'
import { readSend } from './event-input.ts'
import type { Origin } from './event-input.ts'

const common = {
  userId: Type.Optional(
    Type.String({ minLength: 1, maxLength: 255, description: 'Unless the caller is the person.' }),
  ),
  channel: Type.Optional(Type.Enum([...CHANNEL_SPELLINGS], { description: 'Default in_app.' })),
  templateVars: Type.Optional(
    Type.Record(Type.String({ maxLength: 255 }), Type.Unknown(), { maxProperties: 1000 }),
  ),
}

/** A message to try out a channel or a template (ALP-091), or the channel of a companion (AUR-140). */
export const TestInput = Type.Object(
  {
    ...common,
    auraId: Type.Optional(Type.String({ minLength: 1, maxLength: 255, description: 'Whose voice it is.' })),
    message: Type.Optional(Type.String({ minLength: 1, maxLength: 10_000 })),
    subject: Type.Optional(Type.String({ minLength: 1, maxLength: 998 })),
    templateId: Type.Optional(
      Type.String({ minLength: 1, maxLength: 255, description: 'Id or unique name, in place of a message.' }),
    ),
  },
  { additionalProperties: false },
)
/** The same where the path names the template. */
export const TemplateTestInput = Type.Object(common, { additionalProperties: false })
export type TestInput = Static<typeof TestInput>

/** The category of tests: for limits of their own, and to tell them from the rest. */
export const TEST_CATEGORY = 'test'

/**
 * A direct request like all others, but for the reader's wishes: whoever tries a channel out at night wants to see
 * whether it works, not wait until the morning. Limits hold, as do suppressed and unverified addresses.
 *
 * @throws AppError invalid_request naming the field
 */
export function readTest(given: TestInput, origin: Origin, userId: UserId): Event {
  const { channel = 'in_app', auraId, message, subject, templateId, templateVars } = given
  if (message !== undefined && templateId !== undefined) {
    throw new AppError('invalid_request', 'Give either a message or a templateId', { field: '/message' })
  }
  const event = readSend(
    {
      recipientId: userId,
      channels: [channel],
      category: TEST_CATEGORY,
      ...(templateId === undefined
        ? { subject: subject ?? 'Test', body: message ?? 'This is a test. It works.' }
        : { templateId, ...(subject !== undefined && { subject }) }),
      ...(templateVars !== undefined && { templateVars }),
      ...(auraId !== undefined && { metadata: { auraId } }),
    },
    origin,
  )
  event.direct!.test = true
  return event
}
