import type { Candidate, Check } from './candidate.ts'

/**
 * The same, or almost the same, was said to this person on this channel a short time ago. Urgent messages are never
 * held against others, but others against them.
 */
export const repeated: Check = ({ sameness, priority, usage, event: { tenantId } }, now) => {
  if (sameness === null || priority === 'CRITICAL') return null
  const { repeat, similar } = sameness
  if (repeat) {
    const until = usage.claimedUntil(tenantId, repeat.key)
    if (until > now.getTime()) {
      return { kind: 'skip', reason: 'repeated', detail: `until ${new Date(until).toISOString()}` }
    }
  }
  const like = similar?.likeness(usage.note(tenantId, similar.key), now.getTime()) ?? null
  return like === null
    ? null
    : { kind: 'skip', reason: 'similar', detail: `${Math.floor(like * 100)} % the same` }
}

/** From now on it was said. */
export function takeRepeated({ sameness, usage, telling, event: { tenantId } }: Candidate, at: Date): void {
  if (sameness === null) return
  const { repeat, similar } = sameness
  if (repeat) usage.claim(tenantId, repeat.key, at.getTime() + repeat.seconds * 1000, telling)
  if (similar) {
    const untilMs = at.getTime() + similar.seconds * 1000
    const note = similar.noted(usage.note(tenantId, similar.key), at.getTime(), untilMs)
    usage.claim(tenantId, similar.key, untilMs, telling, note)
  }
}
