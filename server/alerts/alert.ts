import { hash } from 'node:crypto'
import type { Channel, Content, Event, Id, Json, JsonObject } from '../types.ts'
import { rememberedOf } from './matcher.ts'

/** How an alert stands after an event. */
export interface AlertState {
  /** Of the alert within its tenant: later events with the same key are about the same alert. */
  key: string
  status: 'firing' | 'resolved'
  /** What is remembered for matchers (server/alerts/matcher.ts). */
  labels: Record<string, string>
  /** When it became so, at the producer. */
  at: Date
  startedAt: Date
  /** It fires no longer than this, whether or not anybody says so. */
  endsAt: Date | null
}

/**
 * The alert that an event speaks of, by the fields Alertmanager uses: `fingerprint`, and `status` firing or
 * resolved, in its data. Other senders may use the same. Null for every other event.
 *
 * The source is no part of it: two Alertmanagers that watch the same thing say the same of it.
 */
export function alertOf(event: Event): AlertState | null {
  const { status, fingerprint, startsAt } = event.data
  if (status !== 'firing' && status !== 'resolved') return null
  if (typeof fingerprint !== 'string' || fingerprint === '' || fingerprint.length > 200) return null
  if (!fingerprint.isWellFormed() || fingerprint.includes('\0')) return null
  return {
    key: `alert:${fingerprint}`,
    status,
    labels: rememberedOf(event),
    at: event.time,
    startedAt: dateOf(startsAt) ?? event.time,
    endsAt: endOf(event, status),
  }
}

/**
 * An alert that nobody resolves, and that says of itself no end, is over so long after it was last heard of; as the
 * `resolve_timeout` of an Alertmanager, which hears of what fires every minute. Here a sender repeats itself within a
 * week (CARILLON_KEEP_EVENT_KEYS) at the earliest.
 */
export const FIRES_AT_MOST_MS = 30 * 86_400_000

const endOf = (event: Event, status: AlertState['status']): Date | null =>
  dateOf(event.data['endsAt']) ??
  (status === 'firing' ? new Date(event.receivedAt.getTime() + FIRES_AT_MOST_MS) : null)

/** Undefined fields, and what is no time, mean that nothing is known. Go writes "no time" as the year 1. */
function dateOf(value: Json | undefined): Date | null {
  if (typeof value !== 'string' || value.length > 40) return null
  const at = new Date(value)
  const year = at.getUTCFullYear()
  return Number.isNaN(at.getTime()) || year < 1970 || year > 9999 ? null : at
}

/** Whether it fires at this instant. */
export const firing = ({ status, endsAt }: Pick<AlertState, 'status' | 'endsAt'>, now: Date): boolean =>
  status === 'firing' && (endsAt === null || endsAt > now)

/** The parts of a route that say what its event is about. */
interface AboutAlert {
  rule: { id: Id } | null
  state: { key: string; resolved: boolean } | null
}

/** How alerts stand after an event: by the sender's fingerprint, and by the state keys of the rules that match. */
export function alertsOf(
  event: Event,
  routes: readonly AboutAlert[],
): { alerts?: (AlertState & { ruleId?: Id })[] } {
  const own = alertOf(event)
  const alerts: (AlertState & { ruleId?: Id })[] = own ? [own] : []
  for (const { rule, state } of routes) {
    if (rule === null || state === null) continue
    const status = state.resolved ? 'resolved' : 'firing'
    alerts.push({
      key: stateKey(rule.id, state.key),
      ruleId: rule.id,
      status,
      labels: rememberedOf(event),
      at: event.time,
      startedAt: event.time,
      endsAt: endOf(event, status),
    })
  }
  return alerts.length === 0 ? NONE : { alerts }
}

const NONE = Object.freeze({})

/** One line, however long the values of the key are; PagerDuty takes 255 characters of a dedup_key. */
export function stateKey(ruleId: Id, values: string): string {
  const key = `rule:${ruleId}:${values}`
  return key.length <= 255 ? key : `rule:${ruleId}:sha256:${hash('sha256', values)}`
}

/** PagerDuty opens and closes one incident for what a rule says is one thing; a template's own word wins. */
export function withIncident(channel: Channel, { rule, state }: AboutAlert, content: Content): Content {
  if (channel !== 'pagerduty' || rule === null || state === null) return content
  const incident: JsonObject = {
    dedup_key: stateKey(rule.id, state.key),
    event_action: state.resolved ? 'resolve' : 'trigger',
  }
  return { ...content, data: { ...incident, ...content.data } }
}
