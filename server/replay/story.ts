import { standingMemory } from '../alerts/standing-memory.ts'
import { newId } from '../db/ids.ts'
import { AppError } from '../errors.ts'
import { allCaps } from '../limits/limit-book.ts'
import { ruleIndex } from '../match/rule-index.ts'
import type {
  AddressFact,
  AudienceKind,
  BatchFacts,
  PeopleFacts,
  PreferenceRow,
  UserFacts,
} from '../people/facts.ts'
import { checkOpinion, naming } from '../people/preference-fields.ts'
import type { OpinionInput } from '../people/preference-fields.ts'
import type { Level } from '../people/recipients.ts'
import { readChannel, readPriority } from '../spelling.ts'
import { checkZone } from '../time/zone.ts'
import type { Channel, Event, JsonObject, UserId } from '../types.ts'
import { engine } from './engine.ts'
import type { EngineParts, NotTold, Told } from './engine.ts'
import type { Compiled } from './files.ts'
import { memory } from './memory.ts'
import type { AudienceOf } from './memory.ts'

/**
 * One story of a `*.test.yaml`: given people and events at times, these messages and no others. It runs on the same
 * stages as the server, with the events' own clock, in memory.
 */
export interface Story {
  name: string
  /** Where relative times (`+10m`) count from. */
  start: Date
  users: UserFacts[]
  defaults: PreferenceRow[]
  audiences: AudienceOf[]
  events: Event[]
  expected: Expected[]
  /** Messages nobody expected fail the story, unless it says `others: allow`. */
  strict: boolean
}

export interface Expected {
  to: string
  channel: Channel | null
  at: Date | null
  subject: RegExp | string | null
  body: RegExp | string | null
  rule: string | null
  items: number | null
  /** Not at all; with this reason, where one is named. */
  not: string | true | null
  /** As written, for the report. */
  written: JsonObject
}

export interface Report {
  name: string
  passed: boolean
  failures: string[]
  told: Told[]
}

const TENANT = 1
const KEY = Buffer.alloc(32)
/** Nothing that a story may hope for comes later than this after its last event. */
const LATEST_MS = 400 * 86_400_000

/** @throws AppError invalid_request, naming the field within the document */
export function readStory(given: Record<string, unknown>, title: string): Story {
  const fields = only(given, '', ['name', 'start', 'users', 'defaults', 'events', 'expect', 'others'])
  const start =
    fields['start'] == null
      ? new Date('2026-01-05T12:00:00Z')
      : instant(fields['start'], '/start', new Date(0))
  const members = new Map<string, Map<UserId, Level>>()
  const users = Object.entries(object(fields['users'] ?? {}, '/users')).map(([id, user]) =>
    readUser(id, user, `/users/${id}`, members),
  )
  const others = fields['others'] ?? 'fail'
  if (others !== 'allow' && others !== 'fail') throw refuse('/others', 'others is allow or fail')
  return {
    name: typeof fields['name'] === 'string' ? fields['name'] : title,
    start,
    users,
    defaults: list(fields['defaults'] ?? [], '/defaults').map((row, i) =>
      readOpinion(row, 'tenant', `/defaults/${i}`),
    ),
    audiences: [...members].map(([key, found]) => {
      const [kind, name] = JSON.parse(key) as [AudienceKind, string]
      return { kind, name, members: found }
    }),
    events: list(fields['events'] ?? [], '/events')
      .map((event, i) => readEvent(event, `/events/${i}`, start))
      .sort((a, b) => a.receivedAt.getTime() - b.receivedAt.getTime()),
    expected: list(fields['expect'] ?? [], '/expect').map((one, i) =>
      readExpected(one, `/expect/${i}`, start),
    ),
    strict: others === 'fail',
  }
}

/** @param beside what solutions make of events (server/solution.ts) */
export async function runStory(
  story: Story,
  compiled: Compiled,
  beside?: EngineParts['beside'],
): Promise<Report> {
  const { rules, templates, messages, limits, silences, inhibitions } = compiled
  const told: Told[] = []
  const nos: NotTold[] = []
  const index = ruleIndex(rules)
  const tenant = { id: TENANT, name: 'story', enabled: true, dataKey: KEY }
  const run = engine({
    memory: memory({ audiences: story.audiences }),
    tenants: { refresh: async () => {}, get: () => tenant },
    rules: { refresh: async () => {}, index: () => index },
    people: peopleOf(story),
    templates: {
      load: async (_, wanted) => wanted.map(({ templateId }) => templates.get(templateId)),
      forget: () => {},
      reset: () => {},
    },
    messages: { load: async () => () => messages },
    limits: { refresh: async () => {}, caps: question => allCaps(limits, question) },
    ...(beside && { beside }),
    alerts: standingMemory(silences, inhibitions),
    channelOpen: () => true,
    nos: true,
    say: said => void (said.kind === 'told' ? told.push(said) : nos.push(said)),
  })
  for (const event of story.events) await run.accept(event)
  const last = story.events.at(-1)?.receivedAt ?? story.start
  await run.finish(new Date(last.getTime() + LATEST_MS))
  told.sort((a, b) => a.at.getTime() - b.at.getTime())

  const names = new Map(rules.map(rule => [rule.id, rule.name]))
  const failures: string[] = []
  const left = new Set(told)
  for (const one of story.expected) {
    if (one.not !== null) {
      failures.push(...unmetNot(one, told, nos))
      continue
    }
    const found = [...left].find(said => mismatch(one, said, names) === null)
    if (found) left.delete(found)
    else failures.push(missing(one, [...left], nos, names))
  }
  if (story.strict) for (const said of left) failures.push(`unexpected: ${describe(said, names)}`)
  return { name: story.name, passed: failures.length === 0, failures, told }
}

// ---------------------------------------------------------------- expected against actual

function mismatch(expected: Expected, said: Told, names: ReadonlyMap<string, string>): string | null {
  if (said.recipient.id !== expected.to) return 'to'
  if (expected.channel !== null && said.channel !== expected.channel) return 'channel'
  if (expected.at !== null && Math.abs(said.at.getTime() - expected.at.getTime()) >= 1000) return 'at'
  if (expected.rule !== null && names.get(said.ruleId ?? '') !== expected.rule) return 'rule'
  if (expected.items !== null && said.items !== expected.items) return 'items'
  if (expected.subject !== null && !fits(expected.subject, said.content.subject ?? '')) return 'subject'
  if (expected.body !== null && !fits(expected.body, said.content.body)) return 'body'
  return null
}

const fits = (wanted: RegExp | string, text: string): boolean =>
  typeof wanted === 'string' ? text.includes(wanted) : wanted.test(text)

function missing(
  expected: Expected,
  left: readonly Told[],
  nos: readonly NotTold[],
  names: ReadonlyMap<string, string>,
): string {
  const lines = [`missing: ${JSON.stringify(expected.written)}`]
  for (const said of left.filter(one => one.recipient.id === expected.to).slice(0, 5)) {
    lines.push(`  there was ${describe(said, names)}; other ${mismatch(expected, said, names)}`)
  }
  for (const no of reasonsFor(expected, nos).slice(0, 5)) {
    lines.push(
      `  not told: ${no.channel ?? 'event'} ${no.eventType}: ${no.reason}${no.detail ? ` (${no.detail})` : ''}`,
    )
  }
  return lines.join('\n')
}

function unmetNot(expected: Expected, told: readonly Told[], nos: readonly NotTold[]): string[] {
  const { to, channel, not } = expected
  if (not === true) {
    const said = told.find(one => one.recipient.id === to && (channel === null || one.channel === channel))
    return said ? [`should not be: ${describe(said, new Map())}`] : []
  }
  const reasons = reasonsFor(expected, nos).map(no => no.reason as string)
  return reasons.includes(not!)
    ? []
    : [
        `missing "no": ${JSON.stringify(expected.written)}; reasons were: ${[...new Set(reasons)].join(', ') || 'none'}`,
      ]
}

const reasonsFor = ({ to, channel }: Expected, nos: readonly NotTold[]): NotTold[] =>
  nos.filter(
    no =>
      (no.recipient === null || no.recipient.id === to) &&
      (channel === null || no.channel === null || no.channel === channel),
  )

function describe(said: Told, names: ReadonlyMap<string, string>): string {
  const rule = said.ruleId === null ? '' : ` by "${names.get(said.ruleId) ?? said.ruleId}"`
  const waited = said.waited ? ` (${said.waited})` : ''
  return `${said.channel} to ${said.recipient.id} at ${said.at.toISOString()}${waited}${rule}: ${said.content.subject ?? said.content.body.slice(0, 80)}`
}

// ---------------------------------------------------------------- reading

const refuse = (field: string, message: string) => new AppError('invalid_request', message, { field })

function object(value: unknown, field: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw refuse(field, 'It is a mapping')
  return value as Record<string, unknown>
}

function only(value: unknown, field: string, known: readonly string[]): Record<string, unknown> {
  const given = object(value, field)
  for (const name of Object.keys(given)) {
    if (!known.includes(name)) throw refuse(`${field}/${name}`, `Known here: ${known.join(', ')}`)
  }
  return given
}

function list(value: unknown, field: string): unknown[] {
  if (!Array.isArray(value)) throw refuse(field, 'It is a list')
  return value
}

/** What YAML read as a number or a truth value was meant as text here. */
function text(value: unknown, field: string): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  throw refuse(field, 'It is text')
}

const UNITS: Record<string, number> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** ISO 8601 with a zone, or `+90s`, `+10m`, `+2h`, `+1d` after the start. */
function instant(value: unknown, field: string, start: Date): Date {
  if (value instanceof Date) return value
  const said = text(value, field)
  const after = /^\+(\d{1,9})([smhd])$/.exec(said)
  if (after) return new Date(start.getTime() + Number(after[1]) * UNITS[after[2]!]!)
  const at = /(?:Z|[+-]\d\d:\d\d)$/.test(said) ? new Date(said) : new Date(NaN)
  if (Number.isNaN(at.getTime()))
    throw refuse(field, 'It is a time with a zone (2026-11-21T07:00:00Z), or +10m after the start')
  return at
}

function channel(value: unknown, field: string): Channel {
  const name = text(value, field)
  const found = readChannel(name)
  if (found === undefined) throw refuse(field, `There is no channel "${name.slice(0, 40)}"`)
  return found
}

function readUser(
  userId: UserId,
  value: unknown,
  field: string,
  members: Map<string, Map<UserId, Level>>,
): UserFacts {
  const given = only(value ?? {}, field, [
    'timezone',
    'locale',
    'attributes',
    'enabled',
    'addresses',
    'groups',
    'roles',
    'topics',
    'preferences',
  ])
  const join = (kind: AudienceKind, name: string, level: Level) => {
    const key = JSON.stringify([kind, name])
    members.set(key, (members.get(key) ?? new Map<UserId, Level>()).set(userId, level))
  }
  for (const name of list(given['groups'] ?? [], `${field}/groups`))
    join('group', text(name, `${field}/groups`), 'ALL')
  for (const name of list(given['roles'] ?? [], `${field}/roles`))
    join('role', text(name, `${field}/roles`), 'ALL')
  for (const [name, level] of Object.entries(object(given['topics'] ?? {}, `${field}/topics`))) {
    if (level !== 'ALL' && level !== 'IMPORTANT' && level !== 'NONE') {
      throw refuse(`${field}/topics/${name}`, 'A level is ALL, IMPORTANT or NONE')
    }
    if (level !== 'NONE') join('topic', name, level)
  }
  const addresses: Partial<Record<Channel, AddressFact[]>> = {}
  for (const [name, address] of Object.entries(object(given['addresses'] ?? {}, `${field}/addresses`))) {
    addresses[channel(name, `${field}/addresses/${name}`)] = [
      {
        id: `${userId} ${name}`,
        address: text(address, `${field}/addresses/${name}`),
        verification: 'verified',
        settings: {},
      },
    ]
  }
  return {
    tenantId: TENANT,
    userId,
    known: true,
    enabled: given['enabled'] !== false,
    erased: false,
    locale: text(given['locale'] ?? 'en', `${field}/locale`),
    timezone: checkZone(given['timezone'] ?? 'UTC', `${field}/timezone`),
    attributes: object(given['attributes'] ?? {}, `${field}/attributes`) as JsonObject,
    dataKey: KEY,
    addresses,
    devices: [],
    preferences: list(given['preferences'] ?? [], `${field}/preferences`).map((row, i) =>
      readOpinion(row, 'user', `${field}/preferences/${i}`),
    ),
  }
}

const OPINION = [
  'scope',
  'channel',
  'enabled',
  'mode',
  'channels',
  'mutedUntil',
  'minPriority',
  'priorityThreshold',
  'quietHours',
  'quietAppliesToInApp',
  'deliveryWindows',
  'digest',
  'batchMinutes',
  'maxPerHour',
  'maxPerDay',
]

/** One row of preferences, as `PUT /api/preferences/{userId}/opinions` takes it; without a scope it is about everything. */
function readOpinion(value: unknown, owner: 'user' | 'tenant', field: string): PreferenceRow {
  const given = only(value, field, OPINION)
  const input = { ...given, scope: given['scope'] ?? '' } as OpinionInput
  if (given['channel'] != null) input.channel = channel(given['channel'], `${field}/channel`)
  const {
    scope,
    channel: of,
    enabled = null,
    settings,
  } = naming(
    name => `${field}${name}`,
    () => checkOpinion(input, owner, new Date(0)),
  )
  const kept = Object.entries(settings ?? {}).filter(([, setting]) => setting != null)
  return { scope, channel: of, enabled, settings: Object.fromEntries(kept) as JsonObject }
}

function readEvent(value: unknown, field: string, start: Date): Event {
  const given = only(value, field, [
    'at',
    'type',
    'source',
    'subject',
    'data',
    'priority',
    'category',
    'scheduledAt',
    'expiresAt',
  ])
  const at = instant(given['at'] ?? start, `${field}/at`, start)
  const maybe = (name: string): string | undefined =>
    given[name] == null ? undefined : text(given[name], `${field}/${name}`)
  const time = (name: string): Date | undefined =>
    given[name] == null ? undefined : instant(given[name], `${field}/${name}`, start)
  const type = maybe('type')
  if (type === undefined) throw refuse(`${field}/type`, 'An event has a type')
  const priority = maybe('priority')
  const read = priority === undefined ? undefined : readPriority(priority)
  if (priority !== undefined && read === undefined)
    throw refuse(`${field}/priority`, 'CRITICAL, HIGH, NORMAL or LOW')
  const event: Event = {
    tenantId: TENANT,
    id: newId(at.getTime()),
    source: maybe('source') ?? 'story',
    type,
    time: at,
    receivedAt: at,
    data: JSON.parse(JSON.stringify(object(given['data'] ?? {}, `${field}/data`))) as JsonObject,
  }
  const more: Partial<Event> = {
    subject: maybe('subject'),
    priority: read,
    category: maybe('category'),
    scheduledAt: time('scheduledAt'),
    expiresAt: time('expiresAt'),
  }
  for (const [name, known] of Object.entries(more))
    if (known !== undefined) Object.assign(event, { [name]: known })
  return event
}

function readExpected(value: unknown, field: string, start: Date): Expected {
  const given = only(value, field, ['to', 'channel', 'at', 'subject', 'body', 'rule', 'items', 'not'])
  if (typeof given['to'] !== 'string') throw refuse(`${field}/to`, 'Say whom')
  const pattern = (name: 'subject' | 'body'): RegExp | string | null => {
    const wanted = given[name]
    if (wanted == null) return null
    const said = text(wanted, `${field}/${name}`)
    const regex = /^\/(.*)\/([imsu]*)$/s.exec(said)
    if (!regex) return said
    try {
      return new RegExp(regex[1]!, regex[2])
    } catch {
      throw refuse(`${field}/${name}`, 'This is no regular expression')
    }
  }
  const { not = null } = given as { not?: string | true | null }
  if (not !== null && not !== true && typeof not !== 'string')
    throw refuse(`${field}/not`, 'It is true or a reason')
  return {
    to: given['to'],
    channel: given['channel'] == null ? null : channel(given['channel'], `${field}/channel`),
    at: given['at'] == null ? null : instant(given['at'], `${field}/at`, start),
    subject: pattern('subject'),
    body: pattern('body'),
    rule: given['rule'] == null ? null : text(given['rule'], `${field}/rule`),
    items: typeof given['items'] === 'number' ? given['items'] : null,
    not,
    written: JSON.parse(JSON.stringify(given)) as JsonObject,
  }
}

/** The people of a story; nobody else exists. */
function peopleOf({ users, defaults }: Story): PeopleFacts {
  const known = new Map(users.map(user => [user.userId, user]))
  const find = (userId: UserId): UserFacts => known.get(userId) ?? nobody(userId)
  const facts: BatchFacts = { get: (_, userId) => find(userId), tenantDefaults: () => defaults }
  return {
    load: async () => facts,
    get: (_, userId) => known.get(userId),
    tenantDefaults: () => defaults,
    forget: () => {},
    reset: () => {},
    size: known.size,
  }
}

const nobody = (userId: UserId): UserFacts => ({
  tenantId: TENANT,
  userId,
  known: false,
  enabled: false,
  erased: false,
  locale: 'en',
  timezone: 'UTC',
  attributes: {},
  dataKey: undefined,
  addresses: {},
  devices: [],
  preferences: [],
})
