import { hash } from 'node:crypto'
import type { AlertState } from '../alerts/alert.ts'
import type { InhibitionDefinition } from '../alerts/inhibition.ts'
import type { Matcher } from '../alerts/matcher.ts'
import { type TimedSilence, standingMemory } from '../alerts/standing-memory.ts'
import { idFloor } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import { DIGEST_EVENT } from '../digest/compose.ts'
import { allCaps } from '../limits/limit-book.ts'
import type { LimitBook } from '../limits/limit-book.ts'
import { MAX_LIMITS, listLimits } from '../limits/store.ts'
import type { LimitDefinition } from '../limits/store.ts'
import { ruleIndex } from '../match/rule-index.ts'
import { ruleFromRow } from '../match/rules.ts'
import type { Rule, RuleRow } from '../match/rules.ts'
import type { PeopleFacts, PreferenceRow } from '../people/facts.ts'
import type { PipelineParts } from '../pipeline.ts'
import type { TenantBook } from '../people/tenant-book.ts'
import { compileRevision } from '../render/content.ts'
import type { CompiledRevision, TemplateRevision } from '../render/content.ts'
import type { MessageBook } from '../render/message-book.ts'
import type { Templates } from '../render/templates.ts'
import { PRIORITIES } from '../types.ts'
import type { Channel, DirectSend, Event, Id, JsonObject, TenantId } from '../types.ts'
import { engine } from './engine.ts'
import type { Told } from './engine.ts'
import { memory } from './memory.ts'

/**
 * What if: recorded events through the whole of match, preferences, times, limits and digests, twice at once, as
 * things are and with something changed. Both runs begin with nothing used up and see the people of today, so what
 * differs between them is the change and nothing else. Nothing is written, nobody is told.
 */
export interface ReplayRequest {
  tenantId: TenantId
  since: Date
  until: Date
  change: ReplayChange
  /** Differences shown one by one. */
  examples: number
  maxEvents: number
  signal?: AbortSignal
  onProgress?(events: number): void
}

export interface ReplayChange {
  /** Takes the place of the rule with its id, or joins the others. */
  rule?: Rule
  /** Is left out. */
  withoutRule?: Id
  /** Each takes the place of the tenant's default about the same scope and channel. */
  defaults?: PreferenceRow[]
  template?: TemplateRevision
  /** Each takes the place of the limit with its name, or joins the others. */
  limits?: (LimitDefinition & { id: Id })[]
  /** Is lifted. By id or name. */
  withoutLimit?: string
  /** Join the others. */
  silences?: TimedSilence[]
  /** Is as if it had never been. */
  withoutSilence?: Id
  /** Each takes the place of the inhibition with its name, or joins the others. */
  inhibitions?: (InhibitionDefinition & { enabled: boolean })[]
  /** By id or name. */
  withoutInhibition?: string
}

export interface ReplayResult {
  events: number
  /** There were more events than `maxEvents`. */
  more: boolean
  /** Messages that would go out, as things are and with the change. */
  told: { before: number; after: number }
  totals: Record<DifferenceKind, number>
  byChannel: Partial<Record<Channel, Record<DifferenceKind, number>>>
  /** The people with the most differences, and on which channels. */
  users: { userId: string; differences: number; byChannel: ReplayResult['byChannel'] }[]
  examples: Difference[]
  /** What no replay can know. */
  notReconstructed: readonly string[]
}

/** `moved`: the same message at another time. */
export const DIFFERENCES = ['new', 'lost', 'changed', 'moved'] as const
export type DifferenceKind = (typeof DIFFERENCES)[number]

export interface Difference {
  kind: DifferenceKind
  userId: string
  channel: Channel
  eventId: Id
  eventType: string
  before?: { at: Date; subject?: string; body: string }
  after?: { at: Date; subject?: string; body: string }
}

export const NOT_RECONSTRUCTED = [
  'People, their addresses, groups and preferences are those of today.',
  'Rules, templates, limits and inhibitions are those of today, but for the change; what applied at the time is in the explanation of each event.',
  'Silences hold at the times that they say today.',
  'Events that retention has removed, or whose person was erased, are missing.',
  'Limits, cooldowns, digests and what was said before begin empty at the start of the range.',
  'Of alerts that began before the range, those that still fire are known, others are not.',
  'Groups of alerts are told again only within the range.',
  'What providers and people did afterwards (failures, fallbacks, reading) is not played; escalations go as if nobody reacted.',
  'What the product itself told of (digests, thresholds) is made anew where it comes from these events, and otherwise played as it was recorded.',
] as const

export interface ReplayParts {
  db: Db
  sealer: Sealer
  tenants: TenantBook
  people: PeopleFacts
  templates: Templates
  messages?: MessageBook
  beside?: PipelineParts['beside']
  limits: LimitBook
  /** Makes the shared facts current. */
  look(): Promise<void>
  tenantKey(tenantId: TenantId): Buffer | undefined
  channelOpen(channel: Channel): boolean
  closedTo?(event: Event, channel: Channel): string | undefined
}

const loadRules = sql(
  'replay_rules',
  `select id, no, revision, tenant_id, name, description, event_pattern, domains, event_types, priority, channels,
     fallback_channels, recipient_selector, template_id, template_vars, schedule, timezone, batch_window_seconds,
     batch_size, category, settings, enabled, valid_from, valid_until
   from rules where tenant_id = $1 and deleted_at is null and enabled order by no`,
)
const loadEvents = sql(
  'replay_events',
  `select id, source, type, subject, time, received_at, scheduled_at, expires_at, priority, category, sealed_for, data
   from events where tenant_id = $1 and id > $2 and id < $3 and type <> '${DIGEST_EVENT}' order by id limit $4`,
)

const loadSilences = sql(
  'replay_silences',
  `select id, author, matchers, starts_at, ends_at from silences
   where tenant_id = $1 and ends_at > $2 and starts_at < $3 order by id limit 10000`,
)
const loadInhibitions = sql(
  'replay_inhibitions',
  `select id, name, source_matchers, target_matchers, equal from inhibitions
   where tenant_id = $1 and enabled order by id`,
)
const loadAlerts = sql(
  'replay_alerts',
  `select key, status, labels, at, started_at, ends_at from alert_states
   where tenant_id = $1 and status = 'firing' and at < $2 order by key limit 100000`,
)

interface SilenceRow {
  id: Id
  author: string
  matchers: Matcher[]
  starts_at: Date
  ends_at: Date
}
interface InhibitionRow {
  id: Id
  name: string
  source_matchers: Matcher[]
  target_matchers: Matcher[]
  equal: string[]
}
interface AlertRow {
  key: string
  status: AlertState['status']
  labels: Record<string, string>
  at: Date
  started_at: Date
  ends_at: Date | null
}

interface EventRow {
  id: Id
  source: string
  type: string
  subject: string | null
  time: Date
  received_at: Date
  scheduled_at: Date | null
  expires_at: Date | null
  priority: number | null
  category: string | null
  sealed_for: string | null
  data: Buffer
}

const PAGE = 2_000
/** A turn of the event loop is given to others after so many milliseconds. */
const TURN_MS = 10
const MAX_USERS = 10_000
const SHOWN_USERS = 20
const EXCERPT = 200

export function replayer(parts: ReplayParts) {
  const { db, sealer, tenants, people } = parts

  async function run(request: ReplayRequest): Promise<ReplayResult> {
    const { tenantId, change, examples, maxEvents } = request
    await parts.look()
    await tenants.refresh(db)
    await parts.limits.refresh(db)
    const stored: Stored = {
      rules: (await db.rows<RuleRow>(loadRules, [tenantId])).map(ruleFromRow),
      ...(await standingAt(request)),
    }
    const compared = comparison(examples)
    const before = side(stored, {}, compared.before)
    const limits = await limitsWith(tenantId, change)
    const after = side(
      changed(stored, change),
      { ...change, ...(limits && { book: limits }) },
      compared.after,
    )

    let after_ = idFloor(request.since.getTime())
    const end = idFloor(request.until.getTime())
    let events = 0
    let more = false
    let turn = performance.now()
    while (!more) {
      const rows = await db.rows<EventRow>(loadEvents, [tenantId, after_, end, PAGE])
      const read = await eventsOf(tenantId, rows)
      for (const event of read) {
        if (events >= maxEvents) {
          more = true
          break
        }
        events++
        await before.accept(event)
        await after.accept(event)
        if (performance.now() - turn > TURN_MS) {
          request.onProgress?.(events)
          await new Promise(resolve => setImmediate(resolve))
          request.signal?.throwIfAborted()
          turn = performance.now()
        }
      }
      if (rows.length < PAGE) break
      after_ = rows.at(-1)!.id
    }
    // What still waits goes in its own time, however long after the range that is.
    const last = new Date(request.until.getTime() + 400 * 86_400_000)
    await before.finish(last)
    await after.finish(last)
    return { events, more, ...compared.result(), notReconstructed: NOT_RECONSTRUCTED }
  }

  /** What was quiet in the range, and what fired when it began. */
  async function standingAt({ tenantId, since, until }: ReplayRequest): Promise<Omit<Stored, 'rules'>> {
    const inhibitions = await db.rows<InhibitionRow>(loadInhibitions, [tenantId])
    const silences = await db.rows<SilenceRow>(loadSilences, [tenantId, since, until])
    const alerts = await db.rows<AlertRow>(loadAlerts, [tenantId, since])
    return {
      silences: silences
        .map(row => ({
          id: row.id,
          author: row.author,
          matchers: row.matchers,
          startsAt: row.starts_at,
          endsAt: row.ends_at,
        }))
        .filter(silence => compiles(() => standingMemory([silence], []))),
      inhibitions: inhibitions
        .map(row => ({
          id: row.id,
          name: row.name,
          sourceMatchers: row.source_matchers,
          targetMatchers: row.target_matchers,
          equal: row.equal,
        }))
        .filter(inhibition => compiles(() => standingMemory([], [inhibition]))),
      alerts: alerts.map(row => ({
        key: row.key,
        status: row.status,
        labels: row.labels,
        at: row.at,
        startedAt: row.started_at,
        endsAt: row.ends_at,
      })),
    }
  }

  /** The limits of today with the change; undefined where none of them changes. */
  async function limitsWith(tenantId: TenantId, change: ReplayChange): Promise<LimitBook | undefined> {
    const { limits = [], withoutLimit } = change
    if (limits.length === 0 && withoutLimit === undefined) return undefined
    const stored = (await listLimits(db, tenantId, null, MAX_LIMITS)).filter(({ enabled }) => enabled)
    const left = stored.filter(
      ({ id, name }) =>
        id !== withoutLimit && name !== withoutLimit && !limits.some(limit => limit.name === name),
    )
    const all = [...left.toReversed(), ...limits.filter(({ enabled }) => enabled)]
    return { refresh: async () => {}, caps: question => allCaps(all, question) }
  }

  function side(
    { rules, silences, inhibitions, alerts }: Stored,
    { defaults, template, book }: ReplayChange & { book?: LimitBook },
    say: (said: Told) => void,
  ) {
    const index = ruleIndex(rules)
    const standing = standingMemory(silences, inhibitions)
    standing.remember(alerts)
    return engine({
      memory: memory({ through: db }),
      // Without either, nothing has to be looked up for each event.
      ...(silences.length + inhibitions.length > 0 && { alerts: standing }),
      tenants,
      rules: { refresh: async () => {}, index: () => index },
      people: defaults ? withDefaults(people, defaults) : people,
      templates: template ? withTemplate(parts.templates, template) : parts.templates,
      messages: parts.messages,
      beside: parts.beside,
      limits: book ?? parts.limits,
      channelOpen: parts.channelOpen,
      ...(parts.closedTo && { closedTo: parts.closedTo }),
      sealer,
      say: said => {
        if (said.kind === 'told') say(said)
      },
    })
  }

  async function eventsOf(tenantId: TenantId, rows: readonly EventRow[]): Promise<Event[]> {
    const owners = new Set(rows.flatMap(row => (row.sealed_for === null ? [] : [row.sealed_for])))
    const facts = await people.load(db, [{ tenantId, userIds: owners }])
    const events: Event[] = []
    for (const row of rows) {
      const key =
        row.sealed_for === null ? parts.tenantKey(tenantId) : facts.get(tenantId, row.sealed_for)?.dataKey
      if (!key) continue
      const { data, direct } = JSON.parse(sealer.open(key, row.data).toString('utf8')) as {
        data: JsonObject
        direct?: DirectSend
      }
      events.push({
        tenantId,
        id: row.id,
        source: row.source,
        type: row.type,
        subject: row.subject ?? undefined,
        time: row.time,
        receivedAt: row.received_at,
        data,
        priority: row.priority === null ? undefined : PRIORITIES[row.priority],
        category: row.category ?? undefined,
        scheduledAt: row.scheduled_at ?? undefined,
        expiresAt: row.expires_at ?? undefined,
        direct,
      })
    }
    return events
  }

  return { run }
}

/** What an older version let in and no longer compiles keeps nothing quiet, here as in the product. */
function compiles(make: () => unknown): boolean {
  try {
    make()
    return true
  } catch {
    return false
  }
}

/** Everything that a run is held against, and how alerts stood when it began. */
interface Stored {
  rules: readonly Rule[]
  silences: readonly TimedSilence[]
  inhibitions: readonly (InhibitionDefinition & { id?: Id })[]
  alerts: readonly AlertState[]
}

function changed(stored: Stored, change: ReplayChange): Stored {
  const { rule, withoutRule, withoutSilence, withoutInhibition, silences = [], inhibitions = [] } = change
  const rules = stored.rules.filter(({ id }) => id !== withoutRule && id !== rule?.id)
  return {
    ...stored,
    rules: rule?.enabled ? [...rules, rule] : rules,
    silences: [...stored.silences.filter(({ id }) => id !== withoutSilence), ...silences],
    inhibitions: [
      ...stored.inhibitions.filter(
        ({ id, name }) =>
          id !== withoutInhibition &&
          name !== withoutInhibition &&
          !inhibitions.some(one => one.name === name),
      ),
      ...inhibitions.filter(({ enabled }) => enabled),
    ],
  }
}

function withDefaults(people: PeopleFacts, rows: readonly PreferenceRow[]): PeopleFacts {
  const merged = new WeakMap<readonly PreferenceRow[], readonly PreferenceRow[]>()
  const merge = (defaults: readonly PreferenceRow[]): readonly PreferenceRow[] => {
    let made = merged.get(defaults)
    if (!made) {
      const kept = defaults.filter(
        old => !rows.some(row => row.scope === old.scope && row.channel === old.channel),
      )
      merged.set(defaults, (made = [...kept, ...rows]))
    }
    return made
  }
  return {
    ...people,
    async load(q, wanted) {
      const facts = await people.load(q, wanted)
      return { get: facts.get, tenantDefaults: tenantId => merge(facts.tenantDefaults(tenantId)) }
    },
  }
}

function withTemplate(templates: Templates, revision: TemplateRevision): Templates {
  const compiled: CompiledRevision = compileRevision(revision)
  return {
    ...templates,
    async load(q, wanted) {
      const found = await templates.load(q, wanted)
      return found.map((one, i) => (wanted[i]!.templateId === revision.templateId ? compiled : one))
    },
  }
}

// ---------------------------------------------------------------- what differs

interface Open {
  said: Told
  print: string
}

/**
 * Pairs what both runs say. A message is the same when it is to the same person on the same channel about the same
 * event; a digest, when it goes at the same time. What has found its pair is forgotten, so memory holds differences.
 */
function comparison(examples: number) {
  const open = { before: new Map<string, Open>(), after: new Map<string, Open>() }
  const told = { before: 0, after: 0 }
  const totals = zeros()
  const byChannel: ReplayResult['byChannel'] = {}
  const users = new Map<string, { differences: number; byChannel: ReplayResult['byChannel'] }>()
  const shown: Difference[] = []

  function differ(kind: DifferenceKind, before: Told | undefined, after: Told | undefined): void {
    const said = (after ?? before)!
    totals[kind]++
    ;(byChannel[said.channel] ??= zeros())[kind]++
    const userId = said.recipient.id
    let user = users.get(userId)
    if (!user && users.size < MAX_USERS) users.set(userId, (user = { differences: 0, byChannel: {} }))
    if (user) {
      user.differences++
      ;(user.byChannel[said.channel] ??= zeros())[kind]++
    }
    if (shown.length >= examples) return
    shown.push({
      kind,
      userId,
      channel: said.channel,
      eventId: said.eventId,
      eventType: said.eventType,
      ...(before && { before: excerpt(before) }),
      ...(after && { after: excerpt(after) }),
    })
  }

  const hear = (mine: 'before' | 'after') => (said: Told) => {
    told[mine]++
    const key =
      said.eventType === DIGEST_EVENT
        ? `${said.recipient.id}\0${said.channel}\0${said.at.getTime()}`
        : `${said.recipient.id}\0${said.channel}\0${said.eventId}\0${said.ruleId ?? ''}`
    const heard: Open = { said, print: printOf(said) }
    const theirs = open[mine === 'before' ? 'after' : 'before']
    const pair = theirs.get(key)
    if (!pair) {
      open[mine].set(key, heard)
      return
    }
    theirs.delete(key)
    const [before, after] = mine === 'before' ? [heard, pair] : [pair, heard]
    if (before.print !== after.print) differ('changed', before.said, after.said)
    else if (Math.abs(before.said.at.getTime() - after.said.at.getTime()) >= 1000)
      differ('moved', before.said, after.said)
  }

  return {
    before: hear('before'),
    after: hear('after'),
    result(): Omit<ReplayResult, 'events' | 'more' | 'notReconstructed'> {
      for (const [before, after] of digestPairs(open.before, open.after)) {
        differ(before.print === after.print ? 'moved' : 'changed', before.said, after.said)
      }
      for (const { said } of open.before.values()) differ('lost', said, undefined)
      for (const { said } of open.after.values()) differ('new', undefined, said)
      return {
        told,
        totals,
        byChannel,
        users: [...users]
          .sort((a, b) => b[1].differences - a[1].differences)
          .slice(0, SHOWN_USERS)
          .map(([userId, user]) => ({ userId, ...user })),
        examples: shown,
      }
    },
  }
}

/**
 * Digests of one person under one key that found no pair at their own time: the first of the one run is the first of
 * the other, at another time or with other contents. What is paired is taken out.
 */
function digestPairs(before: Map<string, Open>, after: Map<string, Open>): [Open, Open][] {
  const byKey = (open: Map<string, Open>) =>
    Map.groupBy(
      [...open].filter(([, { said }]) => said.digestKey !== undefined),
      ([, { said }]) => `${said.recipient.id}\0${said.channel}\0${said.digestKey}`,
    )
  const others = byKey(after)
  const pairs: [Open, Open][] = []
  for (const [key, mine] of byKey(before)) {
    for (const [i, [name, one]] of mine.entries()) {
      const other = others.get(key)?.[i]
      if (!other) break
      before.delete(name)
      after.delete(other[0])
      pairs.push([one, other[1]])
    }
  }
  return pairs
}

const zeros = (): Record<DifferenceKind, number> => ({ new: 0, lost: 0, changed: 0, moved: 0 })

const excerpt = ({ at, content }: Told) => ({
  at,
  ...(content.subject === undefined ? {} : { subject: content.subject.slice(0, EXCERPT) }),
  body: content.body.slice(0, EXCERPT),
})

/** What a message says. Its own id may stand in it, and is another one in each run. */
function printOf({ content: { to, subject, body, html, data }, notificationId }: Told): string {
  const text = JSON.stringify([to, subject, body, html, data])
  return hash('sha1', text.includes(notificationId) ? text.replaceAll(notificationId, '') : text, 'base64')
}
