import type { Reason } from '../reasons.ts'
import type { DeliveryWindow } from '../time/delivery-window.ts'
import type { QuietHours } from '../time/quiet-hours.ts'
import { CHANNELS, type Channel, PRIORITIES, type Priority } from '../types.ts'
import type { PreferenceRow } from './facts.ts'
import { isKind, layerName, MARKETING, TOPIC_LEVEL } from './preference-scopes.ts'
import {
  DEFAULT_THRESHOLD,
  DIGEST_AT,
  DIGEST_WEEKDAY,
  type DigestSettings,
  type Frequency,
  namesEvent,
  type PreferenceSettings,
} from './preference-settings.ts'

/** One possible delivery, as preferences see it. */
export interface PreferenceQuestion {
  channel: Channel
  /** What the message falls under, most specific first (`scopesOf`). The global scope is not among them. */
  scopes: readonly string[]
  eventType: string
  priority: Priority
}

/** At most `max` in an hour, or a day of the person's zone, of what falls under `scope` on `channel`. All hold. */
export interface PreferenceCap {
  window: 'hour' | 'day'
  max: number
  /** '' is everything. */
  scope: string
  /** null: over all channels together. */
  channel: Channel | null
  layer: string
}

/** What is chosen rather than added up. */
type Choice =
  | 'minPriority'
  | 'priorityThreshold'
  | 'mutedUntil'
  | 'quietHours'
  | 'quietAppliesToInApp'
  | 'deliveryWindows'
  | 'frequency'
  | 'batchMinutes'

/** What the person and their tenant want of one delivery. Shared between candidates: never change one. */
export interface EffectivePreference {
  /** The switches alone: muting and minimum priority are told apart from them, as they ask for the time and more. */
  enabled: boolean
  /** Whose word it was: `user:category:news:email`, `tenant:class:alerts`, `built_in`. */
  layer: string
  /** What switched it off: everything, the channel, a kind of message, a rule or source, or a missing consent. */
  off?: 'global' | 'channel' | 'category' | 'scope' | 'consent'
  /** It is owed to the person: no switch, mute or minimum stops it, and it is not gathered. */
  required: boolean
  minPriority?: Priority
  /** 1–10: the rule's own number must reach it. Absent: 5. */
  priorityThreshold?: number
  /** Milliseconds since 1970. */
  mutedUntil?: number
  quietHours?: QuietHours
  quietAppliesToInApp?: boolean
  deliveryWindows?: readonly DeliveryWindow[]
  /** In place of the window of rules that gather; 0: not gathered. */
  batchMinutes?: number
  frequency: Frequency
  /** 'HH:MM' in the person's zone, of daily and weekly digests. */
  digestAt?: string
  /** ISO 8601, of weekly digests. */
  digestWeekday?: number
  caps: readonly PreferenceCap[]
  /** Where each of the others comes from. */
  layers: Readonly<Partial<Record<Choice, string>>>
}

// ---------------------------------------------------------------- rows, made ready

/** One row. Parsed once, when its person is first decided about. */
interface Opinion {
  owner: 'user' | 'tenant'
  scope: string
  channel: Channel | null
  /** Of a kind of message (topic, category, class), rather than of a rule or a source. */
  isKind: boolean
  enabled: boolean | null
  required: boolean
  /** Bit by channel code; 0: no limit. */
  channels: number
  /** 0: not muted. */
  mutedUntil: number
  settings: PreferenceSettings
  layer: string
}

interface Book {
  empty: boolean
  /** Is there any row that is not about everything? */
  scoped: boolean
  /** By scope, and by channel code, the one about all channels last. */
  rows: Map<string, (Opinion | undefined)[]>
}

const ALL = CHANNELS.length
const CODE = Object.fromEntries(CHANNELS.map((channel, code) => [channel, code])) as Record<Channel, number>

// Rows are kept as long as their person is in the cache, and so is what was made of them: on the rows themselves.
// All 100,000 entries of a WeakMap are gone through at each collection, with everything at a stand: 50 ms.
const USER_BOOK: unique symbol = Symbol('book of a user')
const TENANT_BOOK: unique symbol = Symbol('book of a tenant')
type Rows = readonly PreferenceRow[] & { readonly [USER_BOOK]?: Book; readonly [TENANT_BOOK]?: Book }
const NOTHING_SAID: Book = { empty: true, scoped: false, rows: new Map() }

function bookOf(owner: 'user' | 'tenant', rows: Rows): Book {
  if (rows.length === 0) return NOTHING_SAID
  const place = owner === 'user' ? USER_BOOK : TENANT_BOOK
  const known = rows[place]
  if (known !== undefined) return known
  const book: Book = { empty: false, scoped: false, rows: new Map() }
  for (const row of rows) {
    let slots = book.rows.get(row.scope)
    if (slots === undefined) book.rows.set(row.scope, (slots = Array.from({ length: ALL + 1 })))
    slots[row.channel === null ? ALL : CODE[row.channel]] = opinionOf(owner, row)
    if (row.scope !== '') book.scoped = true
  }
  if (Object.isExtensible(rows)) Object.defineProperty(rows, place, { value: book })
  return book
}

function opinionOf(owner: 'user' | 'tenant', { scope, channel, enabled, settings }: PreferenceRow): Opinion {
  const said = settings as PreferenceSettings
  const muted = said.mutedUntil === undefined ? 0 : Date.parse(said.mutedUntil)
  let channels = 0
  for (const name of said.channels ?? []) channels |= 1 << CODE[name]
  // An empty list is a limit, too.
  if (said.channels !== undefined) channels |= 1 << ALL
  return {
    owner,
    scope,
    channel,
    isKind: isKind(scope),
    enabled,
    required: owner === 'tenant' && said.mode === 'REQUIRED',
    channels,
    mutedUntil: Number.isNaN(muted) ? 0 : muted,
    settings: said,
    layer: layerName(owner, scope, channel),
  }
}

/**
 * Everybody's word about this question, the most specific first: by scope; within a scope what is said of the
 * channel before what is said of all; within that the person before the tenant.
 */
function hear(user: Book, tenant: Book, scopes: readonly string[], code: number): Opinion[] {
  const heard: Opinion[] = []
  const add = (scope: string): void => {
    const own = user.rows.get(scope)
    const theirs = tenant.rows.get(scope)
    for (const slot of [code, ALL]) {
      const mine = own?.[slot]
      if (mine !== undefined) heard.push(mine)
      const its = theirs?.[slot]
      if (its !== undefined) heard.push(its)
    }
  }
  if (user.scoped || tenant.scoped) for (const scope of scopes) add(scope)
  add('')
  return heard
}

// ---------------------------------------------------------------- the function

const NO_CAPS: readonly PreferenceCap[] = Object.freeze([])
const NOWHERE = Object.freeze({})
/** Nobody has said anything, as for a bare address: everything goes, at once. */
export const BUILT_IN: EffectivePreference = Object.freeze({
  enabled: true,
  layer: 'built_in',
  required: false,
  frequency: 'instant',
  caps: NO_CAPS,
  layers: NOWHERE,
})

/**
 * What the person and their tenant want of one delivery: the one place where preferences are weighed. Pure, and
 * the order of rows makes no difference. docs/guides/preferences.md has the precedence as a table.
 */
export function effectivePreference(
  userRows: readonly PreferenceRow[],
  tenantRows: readonly PreferenceRow[],
  { channel, scopes, eventType, priority }: PreferenceQuestion,
): EffectivePreference {
  const user = bookOf('user', userRows)
  const tenant = bookOf('tenant', tenantRows)
  const marketing = scopes.includes(MARKETING)
  if (user.empty && tenant.empty && !marketing) return BUILT_IN

  const heard = hear(user, tenant, scopes, CODE[channel])
  const found = switched(heard, channel, marketing) as EffectivePreference
  found.caps = capsOf(heard)
  choose(found, heard, channel, eventType, priority)
  return found
}

type Switched = Pick<EffectivePreference, 'enabled' | 'layer' | 'off' | 'required'>

function switched(heard: readonly Opinion[], channel: Channel, marketing: boolean): Switched {
  const theirs = heard.find(one => one.owner === 'tenant' && says(one, channel) !== null)
  // Advertising is never owed to anybody.
  if (theirs?.required && says(theirs, channel) === true && !marketing) {
    return { enabled: true, layer: theirs.layer, required: true }
  }
  const off = globallyOff(heard) ?? firstOff(heard, channel)
  if (off !== undefined) return { enabled: false, layer: off.layer, off: kindOf(off), required: false }
  if (marketing && !agreed(heard, channel)) {
    return { enabled: false, layer: 'built_in:class:marketing', off: 'consent', required: false }
  }
  return {
    enabled: true,
    layer: heard.find(one => says(one, channel) === true)?.layer ?? 'built_in',
    required: false,
  }
}

function kindOf({ scope, channel, isKind }: Opinion): NonNullable<EffectivePreference['off']> {
  if (scope === '') return channel === null ? 'global' : 'channel'
  return isKind ? 'category' : 'scope'
}

/** What a row says about the switch; null: nothing. */
function says({ enabled, required, channels }: Opinion, channel: Channel): boolean | null {
  if (enabled === false) return false
  if (channels !== 0 && (channels & (1 << CODE[channel])) === 0) return false
  return required ? true : enabled
}

/** Everything off outweighs every more specific word; the tenant's only while the person says nothing of it. */
function globallyOff(heard: readonly Opinion[]): Opinion | undefined {
  let last: Opinion | undefined
  for (const one of heard) {
    if (one.scope !== '' || one.channel !== null || one.enabled === null) continue
    if (one.owner === 'user') return one.enabled ? undefined : one
    last = one.enabled ? undefined : one
  }
  return last
}

/**
 * The word that switches it off, if any. The most specific one counts, but
 * - "on" for all channels lifts no "off" of this very channel: who likes the news did not ask for them by SMS;
 * - "on" for a kind of message lifts no "off" of the channel itself, which only a rule or a source may pass;
 * - the tenant's "on" lifts no "off" of the person: a default is for those who have not chosen.
 */
function firstOff(heard: readonly Opinion[], channel: Channel): Opinion | undefined {
  // Who said "on" so far, of what: the subject on all channels, a kind of message on this one, or a rule or source.
  let subject: Opinion['owner'] | undefined
  let kind: Opinion['owner'] | undefined
  let source: 'tenant' | undefined
  for (const one of heard) {
    const on = says(one, channel)
    if (on === null || (one.scope === '' && one.channel === null)) continue
    const { owner } = one
    if (owner === 'tenant' && source !== undefined) continue
    if (one.channel === null) {
      if (subject === 'user' || kind === 'user' || (owner === 'tenant' && (subject ?? kind) !== undefined))
        continue
      if (!on) return one
      subject = owner
    } else if (one.scope === '') {
      return on ? undefined : one
    } else if (one.isKind) {
      if (kind === 'user' || (owner === 'tenant' && kind !== undefined)) continue
      if (!on) return one
      kind = owner
    } else {
      if (!on) return one
      if (owner === 'user') return undefined
      source = owner
    }
  }
  return undefined
}

/** Marketing wants the person's own yes to marketing, or a tenant that says it may do without. */
function agreed(heard: readonly Opinion[], channel: Channel): boolean {
  const about = (owner: Opinion['owner']) => {
    for (const one of heard) {
      if (one.owner !== owner || one.scope !== MARKETING) continue
      const on = says(one, channel)
      if (on !== null) return on
    }
    return null
  }
  return about('user') ?? about('tenant') ?? false
}

function capsOf(heard: readonly Opinion[]): readonly PreferenceCap[] {
  let caps: PreferenceCap[] | undefined
  for (const { settings, scope, channel, layer } of heard) {
    for (const window of ['hour', 'day'] as const) {
      const max = window === 'hour' ? settings.maxPerHour : settings.maxPerDay
      if (max === undefined) continue
      // The person is heard first: of the same scope and channel the tenant's cap is only a default.
      if (caps?.some(cap => cap.window === window && cap.scope === scope && cap.channel === channel)) continue
      ;(caps ??= []).push({ window, max, scope, channel, layer })
    }
  }
  return caps ?? NO_CAPS
}

/** Each setting by the most specific row that has it. Mutes all count: the last one to end. */
function choose(
  found: EffectivePreference,
  heard: readonly Opinion[],
  channel: Channel,
  eventType: string,
  priority: Priority,
): void {
  const layers: Partial<Record<Choice, string>> = {}
  let digest: DigestSettings | undefined
  for (const { settings, mutedUntil, channel: of, layer } of heard) {
    // What is about all channels is about being disturbed: the inbox still fills.
    const reaches = channel !== 'in_app' || of !== null
    if (mutedUntil > (found.mutedUntil ?? 0) && reaches) {
      found.mutedUntil = mutedUntil
      layers.mutedUntil = layer
    }
    if (found.minPriority === undefined && settings.minPriority !== undefined) {
      found.minPriority = settings.minPriority
      layers.minPriority = layer
    }
    if (found.priorityThreshold === undefined && settings.priorityThreshold !== undefined) {
      found.priorityThreshold = settings.priorityThreshold
      layers.priorityThreshold = layer
    }
    if (found.quietHours === undefined && settings.quietHours !== undefined) {
      found.quietHours = settings.quietHours
      layers.quietHours = layer
    }
    if (found.quietAppliesToInApp === undefined && settings.quietAppliesToInApp !== undefined) {
      found.quietAppliesToInApp = settings.quietAppliesToInApp
      layers.quietAppliesToInApp = layer
    }
    if (found.deliveryWindows === undefined && settings.deliveryWindows !== undefined) {
      found.deliveryWindows = settings.deliveryWindows
      layers.deliveryWindows = layer
    }
    if (found.batchMinutes === undefined && settings.batchMinutes !== undefined) {
      found.batchMinutes = settings.batchMinutes
      layers.batchMinutes = layer
    }
    if (digest === undefined && settings.digest !== undefined && reaches) {
      digest = settings.digest
      layers.frequency = layer
    }
  }
  found.layers = layers
  found.frequency =
    digest === undefined || found.required ? 'instant' : frequencyOf(digest, eventType, priority)
  if (found.frequency === 'daily' || found.frequency === 'weekly') found.digestAt = digest?.at ?? DIGEST_AT
  if (found.frequency === 'weekly') found.digestWeekday = digest?.weekday ?? DIGEST_WEEKDAY
}

function frequencyOf(digest: DigestSettings, eventType: string, priority: Priority): Frequency {
  const { enabled, frequency, instant, batchable } = digest
  if (!enabled || priority === 'CRITICAL') return 'instant'
  if (instant !== undefined && namesEvent(instant, eventType)) return 'instant'
  if (batchable !== undefined && batchable.length > 0 && !namesEvent(batchable, eventType)) return 'instant'
  return frequency
}

// ---------------------------------------------------------------- what follows from it

export interface Refusal {
  reason: Reason
  /** The layer that had the word. */
  detail: string
}

const OFF = {
  global: 'preference_global_off',
  channel: 'preference_channel_off',
  category: 'preference_category_off',
  scope: 'preference_scope_off',
  consent: 'no_consent',
} as const satisfies Record<NonNullable<EffectivePreference['off']>, Reason>

/** Whether the person does not want it, or not now. */
export function unwanted(preference: EffectivePreference, now: Date): Refusal | null {
  if (preference.required) return null
  if (!preference.enabled) return { reason: OFF[preference.off!], detail: preference.layer }
  const { mutedUntil, layers } = preference
  if (mutedUntil === undefined || mutedUntil <= now.getTime()) return null
  return { reason: 'muted', detail: `${layers.mutedUntil} until ${new Date(mutedUntil).toISOString()}` }
}

/** Whether it is less urgent than the person asks for. `score` is the rule's own number, 1–10, if any. */
export function tooUnimportant(
  preference: EffectivePreference,
  priority: Priority,
  score: number | null,
): Refusal | null {
  const { required, minPriority, priorityThreshold = DEFAULT_THRESHOLD, layers } = preference
  if (required) return null
  if (minPriority !== undefined && PRIORITIES.indexOf(priority) > PRIORITIES.indexOf(minPriority)) {
    const topic = layers.minPriority!.startsWith(`user:${TOPIC_LEVEL}`)
    return {
      reason: topic ? 'topic_important_only' : 'below_minimum_priority',
      detail: `${layers.minPriority} from ${minPriority}`,
    }
  }
  if (score !== null && score < priorityThreshold) {
    return {
      reason: 'below_minimum_priority',
      detail: `${layers.priorityThreshold ?? 'built_in'} from ${priorityThreshold}, the rule has ${score}`,
    }
  }
  return null
}
