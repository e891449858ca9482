import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import { AppError, compileTemplate, newId } from '../../server/solution.ts'
import type { DirectSend, Event, Json, JsonObject, Priority, TenantId } from '../../server/solution.ts'
import { NOTIFICATION_CHANNELS } from './channel.ts'

/** A rule of an aura fired. Whoever evaluates rules publishes it, through any door of the core. */
export const RULE_TRIGGERED = 'companion.rule.triggered'
export const CATEGORY = 'companion'

const Url = Type.String({ minLength: 1, maxLength: 2_048, pattern: '^https?://' })
const closed = { additionalProperties: false }

/** What an aura has to say (AUR-100), and to whom. */
export const Payload = Type.Object(
  {
    userId: Type.String({ minLength: 1, maxLength: 255, description: 'Whose aura it is.' }),
    auraId: Type.String({ minLength: 1, maxLength: 100 }),
    auraName: Type.Optional(Type.String({ minLength: 1, maxLength: 200, description: 'The title.' })),
    ruleId: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
    ruleName: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
    message: Type.Optional(Type.String({ minLength: 1, maxLength: 10_000, description: 'Said as it is.' })),
    notification_template: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 10_000,
        description: 'Of the rule: in place of a message, a template over this whole object.',
      }),
    ),
    priority: Type.Optional(Type.Integer({ minimum: 1, maximum: 10, default: 5 })),
    channels: Type.Optional(
      Type.Array(Type.Enum([...NOTIFICATION_CHANNELS]), { minItems: 1, maxItems: 5, default: ['in_app'] }),
    ),
    context: Type.Optional(
      Type.Record(Type.String({ maxLength: 255 }), Type.Unknown(), { maxProperties: 200 }),
    ),
    trigger_data: Type.Optional(
      Type.Record(Type.String({ maxLength: 255 }), Type.Unknown(), {
        maxProperties: 200,
        description: 'The sensor values that fired the rule.',
      }),
    ),
    link: Type.Optional(Type.String({ minLength: 1, maxLength: 2_048, description: 'What a tap opens.' })),
    image: Type.Optional(Url),
    badge: Type.Optional(Type.Integer({ minimum: 0, maximum: 99_999 })),
    actions: Type.Optional(
      Type.Array(
        Type.Object(
          {
            id: Type.String({ minLength: 1, maxLength: 100 }),
            label: Type.String({ minLength: 1, maxLength: 50 }),
            url: Type.Optional(Url),
          },
          closed,
        ),
        { maxItems: 5 },
      ),
    ),
  },
  closed,
)
export type Payload = Static<typeof Payload>

/** The thread that the messages of one aura are (server/types.ts), and the scope of preferences about it. */
export const threadOf = (auraId: string): string => `aura:${auraId}`
export const auraOf = (thread: string | null | undefined): string | undefined =>
  thread?.startsWith('aura:') ? thread.slice('aura:'.length) : undefined

/**
 * @throws AppError invalid_request; invalid_rule (4001) for a template that cannot be read. Each names its field.
 */
export function readPayload(value: unknown): Payload {
  if (!Value.Check(Payload, value)) {
    const [error] = Value.Errors(Payload, value)
    throw new AppError('invalid_request', error?.message ?? 'is not what an aura says', {
      field: error?.instancePath || '/',
    })
  }
  if (value.notification_template !== undefined) {
    try {
      compileTemplate(value.notification_template, 'none')
    } catch (error) {
      throw new AppError('invalid_rule', (error as Error).message, { field: '/notification_template' })
    }
  }
  return value
}

/** The event that a payload travels as. */
export const eventOf = (tenantId: TenantId, payload: Payload, id: string | undefined, now: Date): Event => ({
  tenantId,
  id: newId(now.getTime()),
  ...(id !== undefined && { externalId: id }),
  source: 'companion',
  type: RULE_TRIGGERED,
  time: now,
  receivedAt: now,
  data: payload as JsonObject,
})

/** What the core is asked to send for it. Quiet hours hold the message in the conversation as well. */
export function directOf(payload: Payload): DirectSend {
  const { userId, auraId, auraName, ruleId, ruleName, message, notification_template: template } = payload
  const { priority = 5, channels = ['in_app'], context, trigger_data, link, image, badge, actions } = payload
  const data: { [name: string]: Json | undefined } = {
    auraId,
    ruleId,
    priority,
    context: context as JsonObject | undefined,
    trigger_data: trigger_data as JsonObject | undefined,
    link,
    badge,
    // For whatever app the push goes to.
    custom: { auraId, ...(ruleId !== undefined && { ruleId }) },
  }
  return {
    recipients: [{ type: 'user', id: userId }],
    channels: [...new Set(channels)],
    fallback: [],
    thread: threadOf(auraId),
    scopes: [threadOf(auraId)],
    score: priority,
    quietHours: 'in_app',
    metadata: { auraId },
    content: {
      subject: auraName ?? ruleName ?? 'Aura',
      ...(message === undefined && template !== undefined
        ? { template }
        : { body: message ?? defaultMessage(payload) }),
      data: Object.fromEntries(Object.entries(data).filter(([, value]) => value !== undefined)) as JsonObject,
      ...(image !== undefined && { image }),
      ...(actions && { actions }),
    },
  }
}

/** Rule priority is a number (AUR-094); urgency in the core has names. */
export const priorityOf = (score = 5): Priority =>
  score >= 9 ? 'CRITICAL' : score >= 7 ? 'HIGH' : score >= 4 ? 'NORMAL' : 'LOW'

const MAX_VALUES = 20
const MAX_VALUE = 200

/** Of the rule and what fired it (AUR-099): `Rain soon: weather.rain true, weather.temperature 11`. */
export function defaultMessage({ ruleName, ruleId, trigger_data = {} }: Payload): string {
  const said = ruleName ?? (ruleId === undefined ? 'Something happened' : `Rule ${ruleId}`)
  const values = plain('', trigger_data as JsonObject).slice(0, MAX_VALUES)
  return values.length === 0 ? said : `${said}: ${values.join(', ')}`
}

/** Values that are one, and those one level below. */
function plain(before: string, values: JsonObject): string[] {
  return Object.entries(values).flatMap(([name, value]) => {
    if (value === null) return []
    if (typeof value !== 'object') return [`${before}${name} ${String(value).slice(0, MAX_VALUE)}`]
    return before === '' && !Array.isArray(value) ? plain(`${name}.`, value) : []
  })
}
