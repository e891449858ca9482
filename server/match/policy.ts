import { AppError } from '../errors.ts'
import { CHANNELS, MAX_THREAD } from '../types.ts'
import type { Channel, Json } from '../types.ts'
import { checkDeliveryWindows, type DeliveryWindow } from '../time/delivery-window.ts'
import { checkSchedule, type ScheduleSettings } from '../time/schedule.ts'
import { compile, storable } from './cel.ts'
import type { CelEvent, Program } from './cel.ts'

/**
 * How a rule tells, beside whom and what: when again, together with what, and what follows. Every part is optional;
 * what is left out is not done. Written by people in `policy` of a rule, kept in `rules.settings`.
 *
 * A key is a list of CEL values over the event; notifications with equal values belong together.
 */
export interface RulePolicy {
  /** Which of the four classes of preferences this falls under. Default: by its category. */
  class?: PreferenceClass
  /** Further scopes of preferences it falls under, such as `aura:<id>`; a CEL value each. */
  scopes?: string[]
  /** What its messages belong to, such as `"order:" + data.id`: a CEL value; no text, or an empty one: to nothing. */
  thread?: string
  /** 1 to 10, compared with the reader's own threshold. Default: by its priority. */
  score?: number
  /** `ignore`: goes in quiet hours too. `in_app`: quiet hours hold the in-app message as well. Default `respect`. */
  quietHours?: 'respect' | 'ignore' | 'in_app'
  /** Windows without a zone are in the reader's. */
  deliveryWindows?: DeliveryWindow[]
  /** After it told somebody, the same rule and key tell them nothing for so long. */
  cooldown?: {
    /** Absent together with `period`: once for ever. */
    seconds?: number
    /** Once in each of these, in the reader's zone. */
    period?: 'hour' | 'day' | 'week' | 'month'
    key?: string[]
    /** `rule`: whoever was told, nobody is told again. Default `recipient`. */
    per?: 'recipient' | 'rule'
  }
  /** The same text to the same person on the same channel is sent once in so many seconds. */
  repeat?: { seconds: number }
  /** The same for texts that are almost equal; default 1800 seconds. */
  similar?: { seconds?: number; threshold?: number }
  digest?: DigestPolicy
  /** Grouping as Alertmanager does it. */
  group?: {
    by: string[]
    /** Before the first message of a new group. Default 30. */
    waitSeconds?: number
    /** Before the next message when the group changed. Default 300. */
    intervalSeconds?: number
    /** Before what still fires is told again when nothing changed. Default: it is not. */
    repeatSeconds?: number
  }
  /** What this event is about: the next event with the same key updates, resolves or retracts its message. */
  state?: {
    key: string[]
    /** CEL value: true when it is over. */
    resolved?: string
    /** What becomes of the earlier in-app message. Default `update`. */
    earlier?: 'update' | 'retract' | 'keep'
  }
  escalation?: EscalationStep[]
}

export const PREFERENCE_CLASSES = ['marketing', 'transactional', 'alerts', 'social'] as const
export type PreferenceClass = (typeof PREFERENCE_CLASSES)[number]

export interface DigestPolicy {
  /** Of its recipient, channel and rule; here what divides further. */
  key?: string[]
  /** Closes so long after the first item. */
  windowSeconds?: number
  /** Closes when nothing came for so long; `windowSeconds` is then the longest wait. */
  quietSeconds?: number
  /** Closes at these local times of the reader instead. */
  schedule?: Exclude<ScheduleSettings, { interval_seconds: number }>
  /** Closes when it holds so many. Default 100. */
  maxItems?: number
  /** What the message is made of. Default `all`. */
  retain?: 'all' | 'first' | 'last' | 'highest'
  /** One item alone goes as itself (default), or as a digest of one. */
  single?: 'release' | 'digest'
  /** Only these channels collect; default all of the rule's. */
  channels?: Channel[]
  /** Id or name of the digest's own template. */
  template?: string
}

export interface EscalationStep {
  afterSeconds: number
  /** The step is left out when this has happened to the notification by then. */
  unless: 'delivered' | 'seen' | 'read' | 'clicked' | 'acknowledged'
  channels: Channel[]
  /** Others who are told in this step; default the same person. */
  users?: string[]
}

const MONTH = 31 * 86_400
const YEAR = 366 * 86_400
/** Keys are few and short, so that a policy stays readable in the trace. */
const MAX_KEYS = 5
const MAX_STEPS = 10

/** Throws AppError `invalid_rule`, `invalid_expression` for a key, `invalid_schedule` for times; each names its field. */
export function rulePolicy(input: unknown, field: string): RulePolicy {
  const given = fields(input, field, [
    'class',
    'scopes',
    'thread',
    'score',
    'quietHours',
    'deliveryWindows',
    'cooldown',
    'repeat',
    'similar',
    'digest',
    'group',
    'state',
    'escalation',
  ])
  if (Object.keys(given).length === 0) return NOTHING
  const policy: RulePolicy = {}
  if (given['class'] != null) policy.class = word(given['class'], `${field}.class`, PREFERENCE_CLASSES)
  if (given['scopes'] != null) policy.scopes = key(given['scopes'], `${field}.scopes`)
  if (given['thread'] != null) policy.thread = expression(given['thread'], `${field}.thread`)
  if (given['score'] != null) policy.score = whole(given['score'], `${field}.score`, 1, 10)
  if (given['quietHours'] != null) {
    policy.quietHours = word(given['quietHours'], `${field}.quietHours`, ['respect', 'ignore', 'in_app'])
  }
  if (given['deliveryWindows'] != null) {
    policy.deliveryWindows = checkDeliveryWindows(
      given['deliveryWindows'],
      pointer(`${field}.deliveryWindows`),
    )
  }
  if (given['cooldown'] != null) policy.cooldown = cooldown(given['cooldown'], `${field}.cooldown`)
  if (given['repeat'] != null) {
    const repeat = fields(given['repeat'], `${field}.repeat`, ['seconds'])
    policy.repeat = { seconds: whole(repeat['seconds'], `${field}.repeat.seconds`, 1, MONTH) }
  }
  if (given['similar'] != null) {
    const similar = fields(given['similar'], `${field}.similar`, ['seconds', 'threshold'])
    policy.similar = {}
    if (similar['seconds'] != null) {
      policy.similar.seconds = whole(similar['seconds'], `${field}.similar.seconds`, 1, 86_400)
    }
    if (similar['threshold'] != null) {
      const { threshold } = similar
      if (typeof threshold !== 'number' || !(threshold > 0 && threshold <= 1)) {
        throw invalid(`${field}.similar.threshold`, 'A threshold lies above 0 and is at most 1')
      }
      policy.similar.threshold = threshold
    }
  }
  if (given['digest'] != null) policy.digest = digest(given['digest'], `${field}.digest`)
  if (given['group'] != null) policy.group = group(given['group'], `${field}.group`)
  if (given['state'] != null) {
    const at = `${field}.state`
    const state = fields(given['state'], at, ['key', 'resolved', 'earlier'])
    policy.state = { key: key(state['key'], `${at}.key`) }
    if (policy.state.key.length === 0) throw invalid(`${at}.key`, 'A state needs a key')
    if (state['resolved'] != null) policy.state.resolved = expression(state['resolved'], `${at}.resolved`)
    if (state['earlier'] != null) {
      policy.state.earlier = word(state['earlier'], `${at}.earlier`, ['update', 'retract', 'keep'])
    }
  }
  if (given['escalation'] != null) {
    policy.escalation = list(given['escalation'], `${field}.escalation`, MAX_STEPS).map((step, at) =>
      escalationStep(step, `${field}.escalation.${at}`),
    )
  }
  if (policy.digest && policy.group) throw invalid(`${field}.group`, 'A rule either digests or groups')
  return policy
}

function cooldown(input: unknown, at: string): NonNullable<RulePolicy['cooldown']> {
  const given = fields(input, at, ['seconds', 'period', 'key', 'per'])
  const made: NonNullable<RulePolicy['cooldown']> = {}
  if (given['seconds'] != null) made.seconds = whole(given['seconds'], `${at}.seconds`, 1, YEAR)
  if (given['period'] != null) {
    if (made.seconds !== undefined) throw invalid(`${at}.period`, 'A cooldown has either seconds or a period')
    made.period = word(given['period'], `${at}.period`, ['hour', 'day', 'week', 'month'])
  }
  if (given['key'] != null) made.key = key(given['key'], `${at}.key`)
  if (given['per'] != null) made.per = word(given['per'], `${at}.per`, ['recipient', 'rule'])
  return made
}

function digest(input: unknown, at: string): DigestPolicy {
  const given = fields(input, at, [
    'key',
    'windowSeconds',
    'quietSeconds',
    'schedule',
    'maxItems',
    'retain',
    'single',
    'channels',
    'template',
  ])
  const made: DigestPolicy = {}
  if (given['key'] != null) made.key = key(given['key'], `${at}.key`)
  if (given['windowSeconds'] != null) {
    made.windowSeconds = whole(given['windowSeconds'], `${at}.windowSeconds`, 1, MONTH)
  }
  if (given['schedule'] != null) made.schedule = digestSchedule(given['schedule'], `${at}.schedule`)
  if ((made.windowSeconds === undefined) === (made.schedule === undefined)) {
    throw invalid(at, 'A digest has either windowSeconds or a schedule')
  }
  if (given['quietSeconds'] != null) {
    made.quietSeconds = whole(given['quietSeconds'], `${at}.quietSeconds`, 1, made.windowSeconds ?? MONTH)
  }
  if (given['maxItems'] != null) made.maxItems = whole(given['maxItems'], `${at}.maxItems`, 1, 1_000)
  if (given['retain'] != null) {
    made.retain = word(given['retain'], `${at}.retain`, ['all', 'first', 'last', 'highest'])
  }
  if (given['single'] != null) made.single = word(given['single'], `${at}.single`, ['release', 'digest'])
  if (given['channels'] != null) made.channels = channels(given['channels'], `${at}.channels`)
  if (given['template'] != null) made.template = text(given['template'], `${at}.template`, 255)
  return made
}

/** It comes in the zone of each reader, so it is checked in any. */
function digestSchedule(input: unknown, at: string): NonNullable<DigestPolicy['schedule']> {
  const schedule = checkSchedule(input, 'UTC', pointer(at))
  if ('interval_seconds' in schedule) throw invalid(at, 'windowSeconds is the interval of a digest')
  return schedule
}

function group(input: unknown, at: string): NonNullable<RulePolicy['group']> {
  const given = fields(input, at, ['by', 'waitSeconds', 'intervalSeconds', 'repeatSeconds'])
  const made: NonNullable<RulePolicy['group']> = { by: key(given['by'], `${at}.by`) }
  if (given['waitSeconds'] != null)
    made.waitSeconds = whole(given['waitSeconds'], `${at}.waitSeconds`, 0, 86_400)
  if (given['intervalSeconds'] != null) {
    made.intervalSeconds = whole(given['intervalSeconds'], `${at}.intervalSeconds`, 1, MONTH)
  }
  if (given['repeatSeconds'] != null) {
    made.repeatSeconds = whole(given['repeatSeconds'], `${at}.repeatSeconds`, 1, MONTH)
  }
  return made
}

function escalationStep(input: unknown, at: string): EscalationStep {
  const given = fields(input, at, ['afterSeconds', 'unless', 'channels', 'users'])
  const step: EscalationStep = {
    afterSeconds: whole(given['afterSeconds'], `${at}.afterSeconds`, 1, MONTH),
    unless: word(given['unless'], `${at}.unless`, ['delivered', 'seen', 'read', 'clicked', 'acknowledged']),
    channels: channels(given['channels'], `${at}.channels`),
  }
  if (step.channels.length === 0) throw invalid(`${at}.channels`, 'A step needs at least one channel')
  if (given['users'] != null) {
    step.users = list(given['users'], `${at}.users`, 100).map((id, n) => text(id, `${at}.users.${n}`, 255))
  }
  return step
}

/**
 * Refuses to wait for longer than messages are kept: what waits would be gone before it goes.
 *
 * @throws AppError invalid_rule
 */
export function checkKept(
  { policy, batchWindowSeconds }: { policy: RulePolicy; batchWindowSeconds?: number | undefined },
  keptSeconds: number,
): void {
  const { digest, group, escalation = [] } = policy
  const waits: [field: string, seconds: number | undefined][] = [
    ['batchWindowSeconds', batchWindowSeconds],
    ['policy.digest.windowSeconds', digest?.windowSeconds],
    ['policy.digest.schedule', digest?.schedule && 'monthly' in digest.schedule ? MONTH : undefined],
    ['policy.group.intervalSeconds', group?.intervalSeconds],
    ['policy.group.repeatSeconds', group?.repeatSeconds],
    ...escalation.map((step, at): [string, number] => [
      `policy.escalation.${at}.afterSeconds`,
      step.afterSeconds,
    ]),
  ]
  for (const [field, seconds] of waits) {
    if (seconds !== undefined && seconds > keptSeconds) {
      throw new AppError('invalid_rule', `Messages are kept for ${keptSeconds} seconds, not so long`, {
        field: pointer(field),
      })
    }
  }
}

// ------------------------------------------------------------------ keys, evaluated

/** The keys of a policy, compiled with its rule. */
export interface PolicyKeys {
  cooldown: KeyProgram
  digest: KeyProgram
  group: KeyProgram
  state: KeyProgram
  /** Preference scopes: each value that is text, at most 300 characters. */
  scopes(event: CelEvent, now: Date): string[]
  thread(event: CelEvent, now: Date): string | undefined
  resolved(event: CelEvent, now: Date): boolean
}

export function policyKeys(policy: RulePolicy): PolicyKeys {
  if (Object.keys(policy).length === 0) return NO_KEYS
  const scopes = (policy.scopes ?? []).map(program)
  const thread = policy.thread === undefined ? null : program(policy.thread)
  const resolved = policy.state?.resolved === undefined ? null : program(policy.state.resolved)
  return {
    cooldown: compileKey(policy.cooldown?.key),
    digest: compileKey(policy.digest?.key),
    group: compileKey(policy.group?.by),
    state: compileKey(policy.state?.key),
    scopes: (event, now) =>
      scopes.flatMap(scope => {
        const found = scope?.evaluate(event, now)
        return found?.ok && typeof found.value === 'string' && found.value.length <= 300 ? [found.value] : []
      }),
    thread(event, now) {
      const found = thread?.evaluate(event, now)
      return found?.ok && isThread(found.value) ? found.value : undefined
    },
    resolved(event, now) {
      const found = resolved?.evaluate(event, now)
      return found?.ok === true && found.value === true
    },
  }
}

const isThread = (value: unknown): value is string =>
  typeof value === 'string' && value !== '' && value.length <= MAX_THREAD && storable(value)

// It compiled when it was saved: an older version's expression groups with nothing rather than failing.
function program(source: string): Program<'value'> | null {
  try {
    return compile(source, 'value')
  } catch {
    return null
  }
}

/** A compiled key: its values as one line of JSON; a value that cannot be had counts as null. */
export type KeyProgram = (event: CelEvent, now: Date) => string

const NO_KEY: KeyProgram = () => ''

export function compileKey(sources: readonly string[] | undefined): KeyProgram {
  if (!sources || sources.length === 0) return NO_KEY
  const programs = sources.map(program)
  return (event, now) =>
    JSON.stringify(
      programs.map((one): Json => {
        const found = one?.evaluate(event, now)
        return found?.ok ? found.value : null
      }),
    )
}

/** What most rules have: no policy at all. Shared, as 100,000 rules are kept in memory. */
const NOTHING: RulePolicy = Object.freeze({})
const NO_KEYS: PolicyKeys = Object.freeze({
  cooldown: NO_KEY,
  digest: NO_KEY,
  group: NO_KEY,
  state: NO_KEY,
  scopes: () => [],
  thread: () => undefined,
  resolved: () => false,
})

// ------------------------------------------------------------------ reading

/** As server/time names fields. */
const pointer = (field: string) => `/${field.replaceAll('.', '/')}`

const invalid = (field: string, message: string) => new AppError('invalid_rule', message, { field })

function fields(value: unknown, field: string, known: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(field, `${field} must be an object`)
  }
  for (const name of Object.keys(value)) {
    if (!known.includes(name)) throw invalid(`${field}.${name}`, `${field} takes ${known.join(', ')}`)
  }
  return value as Record<string, unknown>
}

function list(value: unknown, field: string, max: number): unknown[] {
  if (!Array.isArray(value)) throw invalid(field, `${field} must be a list`)
  if (value.length > max) throw invalid(field, `${field} has more than ${max} entries`)
  return value
}

function text(value: unknown, field: string, max: number): string {
  if (typeof value !== 'string' || value === '') throw invalid(field, `${field} must be text`)
  if (value.length > max) throw invalid(field, `${field} is longer than ${max} characters`)
  return value
}

function whole(value: unknown, field: string, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw invalid(field, `${field} is a whole number from ${min} to ${max}`)
  }
  return value
}

function word<const T extends string>(value: unknown, field: string, known: readonly T[]): T {
  if (!known.includes(value as T)) throw invalid(field, `${field} takes ${known.join(', ')}`)
  return value as T
}

function expression(value: unknown, field: string): string {
  const source = text(value, field, 1_024)
  compile(source, 'value', field)
  return source
}

const key = (value: unknown, field: string): string[] =>
  list(value, field, MAX_KEYS).map((source, at) => expression(source, `${field}.${at}`))

const channels = (value: unknown, field: string): Channel[] => [
  ...new Set(list(value, field, CHANNELS.length).map(name => word(name, field, CHANNELS))),
]
