import { queryable } from './db/pool.ts'
import type { Db } from './db/pool.ts'
import { readTrace } from './decide/trace.ts'
import type { StoredTrace, TraceDecision } from './decide/trace.ts'
import { celEvent } from './match/cel.ts'
import { ruleIndex } from './match/rule-index.ts'
import type { Rule } from './match/rules.ts'
import type { Pipeline } from './pipeline.ts'
import type { Event, RecipientType } from './types.ts'

/** What a draft of a rule would do with an event. */
export interface DryRun {
  matched: boolean
  why?: string
  error?: string
  recipients: {
    type: RecipientType
    id: string
    decisions: (TraceDecision & { content?: { subject?: string; body: string; html?: string } })[]
  }[]
}

/** More people than this are not worked out for a draft. */
const MOST = 1000

/** Runs the real stages on a draft. They only read; what they plan is shown instead of being committed. */
export function dryRunner({ db, pipeline }: { db: Db; pipeline: Pipeline }) {
  return async ({
    rule,
    event,
    now,
  }: {
    tenantId: number
    rule: Rule
    event: Event
    now: Date
  }): Promise<DryRun> => {
    const match = ruleIndex([rule]).match(celEvent(event), now)
    if (match.matched.length === 0) {
      const nearest = match.considered[0]
      return { matched: false, why: nearest?.why ?? 'pattern_false', error: nearest?.error, recipients: [] }
    }
    const client = await db.pool.connect()
    try {
      const q = queryable(client)
      await pipeline.refresh(q)
      const { events } = await pipeline.plan(q, [event], now, { rules: match, audienceLimit: MOST })
      const plan = events[0]
      if (!plan!.planned) return { matched: true, error: `more than ${MOST} recipients`, recipients: [] }
      const trace = readTrace(JSON.parse(plan!.trace!) as StoredTrace)
      const bodies = new Map(plan!.notifications.map(({ recipientId, bodies }) => [recipientId, bodies]))
      const draft = trace.find(({ no }) => no === rule.no)
      return {
        matched: true,
        why: draft?.why,
        error: draft?.error,
        recipients: (draft?.recipients ?? []).map(recipient => ({
          ...recipient,
          decisions: recipient.decisions.map(decision => {
            const content = bodies.get(recipient.id)?.[decision.channel]
            if (!content) return decision
            const { subject, body, html } = content
            return { ...decision, content: { subject, body, html } }
          }),
        })),
      }
    } finally {
      client.release()
    }
  }
}
