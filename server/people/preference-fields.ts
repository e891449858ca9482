import { type TSchema, Type } from 'typebox'
import { AppError } from '../errors.ts'
import { checkDeliveryWindows } from '../time/delivery-window.ts'
import { checkQuietHours } from '../time/quiet-hours.ts'
import { CHANNELS, PRIORITIES } from '../types.ts'
import { ChannelField, MaybeTimeField, TimezoneField } from './fields.ts'
import { classOf, isKind, MESSAGE_CLASSES, TOPIC_LEVEL } from './preference-scopes.ts'
import type { PreferenceChange } from './preference-store.ts'
import { type DigestSettings, FREQUENCIES, MODES, type Mode } from './preference-settings.ts'

/** Event types, or what they begin with, that one list may name. */
const MAX_NAMES = 100
/** Mutes are for a while; what is to be off for longer is switched off. */
const MAX_MUTE_MS = 366 * 86_400_000

const strict = { additionalProperties: false }
export const orNull = <S extends TSchema>(schema: S, options = {}) =>
  Type.Union([schema, Type.Null()], options)

export const SwitchField = orNull(Type.Boolean(), {
  description: 'null: no opinion, so that the next layer decides.',
})
export const PriorityField = Type.Enum(PRIORITIES, { description: 'Less urgent messages are not sent.' })
export const ThresholdField = Type.Integer({
  minimum: 1,
  maximum: 10,
  description: "What the rule's own number, 1 to 10, must reach.",
})
export const CapField = Type.Integer({ minimum: 0, maximum: 1_000_000 })
export const BatchField = Type.Integer({
  minimum: 0,
  maximum: 10_080,
  description:
    'Minutes that rules which gather wait for more, in place of their own window; 0: they do not gather.',
})
const TIME = '(?:[01]\\d|2[0-3]):[0-5]\\d'
export const TimeOfDayField = Type.String({ pattern: `^${TIME}$`, description: 'HH:MM, local.' })
export const EndOfDayField = Type.String({
  pattern: `^(?:${TIME}|24:00)$`,
  description:
    'HH:MM, local; before the start it is on the next day. 24:00 is midnight at the end of the day.',
})
const EventNames = Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { maxItems: MAX_NAMES })
export const ExceptionsField = Type.Array(Type.String({ minLength: 1, maxLength: 255 }), {
  maxItems: MAX_NAMES,
  description: 'Event types that pass, or what they begin with: `auth.*`.',
})
const WeekdayField = Type.Integer({ minimum: 1, maximum: 7, description: 'ISO 8601: Monday is 1, Sunday 7.' })

export const ScopeField = Type.String({
  maxLength: 300,
  pattern: '^(?:|[a-z][a-z0-9_]{0,31}:[^\\u0000-\\u001f\\u007f]{1,255})$',
  description:
    'What it is about: `rule:<id>`, `aura:<id>`, `topic:<name>`, `category:<name>`, `class:marketing` … Empty: everything.',
})

const QuietHoursField = Type.Object(
  {
    enabled: Type.Boolean(),
    start: TimeOfDayField,
    end: EndOfDayField,
    timezone: Type.Optional(TimezoneField),
    weekdays: Type.Optional(Type.Array(WeekdayField, { minItems: 1, maxItems: 7 })),
    allowCritical: Type.Optional(Type.Boolean({ description: 'Whether CRITICAL passes; absent: yes.' })),
    exceptions: Type.Optional(ExceptionsField),
  },
  strict,
)
const DeliveryWindowField = Type.Object(
  {
    start: TimeOfDayField,
    end: EndOfDayField,
    weekdays: Type.Optional(Type.Array(WeekdayField, { minItems: 1, maxItems: 7 })),
    timezone: Type.Optional(TimezoneField),
  },
  strict,
)
const DigestField = Type.Object(
  {
    enabled: Type.Boolean(),
    frequency: Type.Enum(FREQUENCIES.filter(frequency => frequency !== 'instant')),
    at: Type.Optional(TimeOfDayField),
    weekday: Type.Optional(WeekdayField),
    instant: Type.Optional(EventNames),
    batchable: Type.Optional(EventNames),
  },
  strict,
)

/** Every setting of a row as a field of an object; null takes one away. */
export const settingFields = {
  channels: Type.Optional(
    orNull(Type.Array(ChannelField, { minItems: 1, maxItems: CHANNELS.length, uniqueItems: true }), {
      description: 'Of a scope, about all channels: it is off on every other channel.',
    }),
  ),
  mutedUntil: Type.Optional(MaybeTimeField),
  minPriority: Type.Optional(orNull(PriorityField)),
  priorityThreshold: Type.Optional(orNull(ThresholdField)),
  quietHours: Type.Optional(orNull(QuietHoursField)),
  quietAppliesToInApp: Type.Optional(SwitchField),
  deliveryWindows: Type.Optional(orNull(Type.Array(DeliveryWindowField, { maxItems: 20 }))),
  digest: Type.Optional(orNull(DigestField)),
  batchMinutes: Type.Optional(orNull(BatchField)),
  maxPerHour: Type.Optional(orNull(CapField)),
  maxPerDay: Type.Optional(orNull(CapField)),
}

export const ModeField = Type.Enum(MODES, {
  description: 'A default: on or off until the person says otherwise, or on whatever they say.',
})

export interface OpinionInput {
  scope: string
  channel?: PreferenceChange['channel']
  enabled?: boolean | null
  /** Of a tenant's default, in place of `enabled`. */
  mode?: Mode | null
  channels?: NonNullable<PreferenceChange['settings']>['channels']
  mutedUntil?: string | null
  minPriority?: NonNullable<PreferenceChange['settings']>['minPriority']
  priorityThreshold?: number | null
  quietHours?: unknown
  quietAppliesToInApp?: boolean | null
  deliveryWindows?: unknown
  digest?: DigestSettings | null
  batchMinutes?: number | null
  maxPerHour?: number | null
  maxPerDay?: number | null
}

/**
 * An opinion of the shape above, with what a schema cannot see.
 *
 * @throws AppError invalid_request, invalid_schedule, naming the field
 */
export function checkOpinion(input: OpinionInput, owner: 'user' | 'tenant', now: Date): PreferenceChange {
  const {
    scope,
    channel = null,
    enabled,
    mode,
    mutedUntil,
    quietHours,
    deliveryWindows,
    digest,
    ...rest
  } = input
  checkScope(scope)
  if (owner === 'user' && mode !== undefined)
    throw refused('/mode', 'Only the defaults of the tenant have one.')
  if (rest.channels != null && (scope === '' || channel !== null)) {
    throw refused('/channels', 'Only a scope about all channels can be limited to some of them.')
  }
  if (mode === 'REQUIRED' && isMarketing(scope)) {
    throw refused('/mode', 'Nobody is owed marketing.')
  }
  return {
    scope,
    channel,
    // A mode is a switch that says how firmly it is meant.
    enabled: mode === undefined ? enabled : mode === null ? null : mode !== 'OPTED_OUT',
    settings: {
      ...rest,
      mutedUntil: mutedUntil == null ? mutedUntil : checkMute(mutedUntil, '/mutedUntil', now),
      quietHours: quietHours == null ? quietHours : checkQuietHours(quietHours, '/quietHours'),
      deliveryWindows:
        deliveryWindows == null ? deliveryWindows : checkDeliveryWindows(deliveryWindows, '/deliveryWindows'),
      digest: digest === undefined ? undefined : digest && checkDigest(digest, '/digest'),
      // Switched without a mode, it is a plain default again.
      mode: mode === 'REQUIRED' ? mode : mode === undefined && enabled === undefined ? undefined : null,
    },
  }
}

const isMarketing = (scope: string) =>
  isKind(scope) && classOf(scope.slice(scope.indexOf(':') + 1), '') === 'marketing'

/** @throws AppError invalid_request for a class there is not, and what is no scope to be written */
export function checkScope(scope: string, field = '/scope'): void {
  if (scope.startsWith(TOPIC_LEVEL)) throw refused(field, 'The level of a topic is changed with the topic.')
  const name = scope.startsWith('class:') ? scope.slice(6) : undefined
  if (name !== undefined && !MESSAGE_CLASSES.some(one => one === name)) {
    throw refused(field, `There is no class "${name.slice(0, 40)}"; there are ${MESSAGE_CLASSES.join(', ')}.`)
  }
}

/** @throws AppError invalid_request unless it is in the future, and within a year */
export function checkMute(until: string, field: string, now: Date): string {
  const at = new Date(until)
  if (at <= now || at.getTime() > now.getTime() + MAX_MUTE_MS) {
    throw refused(field, 'Name a time in the future, at most a year away.')
  }
  return at.toISOString()
}

/** @throws AppError invalid_schedule */
export function checkDigest(digest: DigestSettings, field: string): DigestSettings {
  const { frequency, at, weekday } = digest
  if (weekday !== undefined && frequency !== 'weekly') {
    throw new AppError('invalid_schedule', 'Only a weekly digest has a day of the week.', {
      field: `${field}/weekday`,
    })
  }
  if (at !== undefined && frequency === 'hourly') {
    throw new AppError('invalid_schedule', 'An hourly digest has no time of the day.', {
      field: `${field}/at`,
    })
  }
  return digest
}

/** Runs `work`; where it refuses a field, the error gets the field's name in the body that came in. */
export function naming<T>(rename: (field: string) => string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw renamed(rename, error)
  }
}

export function renamed(rename: (field: string) => string, error: unknown): unknown {
  if (!(error instanceof AppError) || error.errors === undefined) return error
  const errors = error.errors.map(one => ({ ...one, field: rename(one.field) }))
  return new AppError(error.code, error.message, { errors, cause: error })
}

const refused = (field: string, detail: string) => new AppError('invalid_request', detail, { field })
