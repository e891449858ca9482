import pg from 'pg'
import type { Id, TenantId } from '../types.ts'
import type { PlannedEvent, PlannedNotification } from './plan.ts'
import { RECIPIENT_CODE } from './rows.ts'

/**
 * How far somebody came who was told something in an experiment: bits of `experiment_people.reached`. A step says those
 * before it as well, since whoever clicks has opened, whatever a mail client tells of its pictures. The triggers of
 * db/migrations/…_experiments.sql write the same numbers for what comes back later.
 */
export const STEPS = {
  sent: 1,
  delivered: 3,
  seen: 7,
  opened: 15,
  clicked: 31,
  acted: 47,
  failed: 64,
} as const

/** For the script of a commit: who is in an experiment by now, and whose inbox has it already. Empty: nobody. */
export function experimentScript(
  plans: readonly PlannedEvent[],
  deliveredNow: (notification: PlannedNotification) => boolean,
): string {
  const people: { t: TenantId; x: Id; v: string; k: number; u: string; s: number }[] = []
  for (const { heldOut, notifications } of plans) {
    for (const { tenantId, experimentId, recipientType, recipientId } of heldOut ?? []) {
      people.push({
        t: tenantId,
        x: experimentId,
        v: 'holdout',
        k: RECIPIENT_CODE[recipientType],
        u: recipientId,
        s: 0,
      })
    }
    for (const notification of notifications) {
      const { experiment, tenantId, recipientType, recipientId } = notification
      if (!experiment) continue
      people.push({
        t: tenantId,
        x: experiment.id,
        v: experiment.variant,
        k: RECIPIENT_CODE[recipientType],
        u: recipientId,
        s: deliveredNow(notification) ? STEPS.delivered : 0,
      })
    }
  }
  if (people.length === 0) return ''
  return `select count_experiment_people(array_agg(t), array_agg(x), array_agg(v), array_agg(k), array_agg(u), array_agg(s))
from json_to_recordset(${pg.escapeLiteral(JSON.stringify(people))}::json) as p (t int, x uuid, v text, k int2, u text, s int2)`
}

/** For the script of a settlement: what became of deliveries that an experiment counts. Empty: of none. */
export function settledScript(
  settled: readonly { tenantId: TenantId; notificationId: Id; step: number }[],
): string {
  if (settled.length === 0) return ''
  return (
    `select count_experiment_steps(array[${settled.map(one => one.tenantId)}], ` +
    `array[${settled.map(one => `'${one.notificationId}'`)}]::uuid[], array[${settled.map(one => one.step)}]::int2[])`
  )
}
