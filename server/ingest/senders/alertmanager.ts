import { type Static, Type } from 'typebox'
import { newId } from '../../db/ids.ts'
import type { Event, Priority, TenantId } from '../../types.ts'

/**
 * Prometheus Alertmanager's webhook, version 4:
 * https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
 *
 * Fields that newer versions add are let through and not read.
 */

const open = { additionalProperties: true }
/** Alertmanager sets no bounds of its own on labels; these are far above what Prometheus recommends. */
const Pairs = Type.Record(Type.String({ maxLength: 500 }), Type.String({ maxLength: 50_000 }), {
  maxProperties: 200,
})
const Time = Type.String({ format: 'date-time' })
const Status = Type.Enum(['firing', 'resolved'])

/** Groups are small; `max_alerts` in Alertmanager's own configuration cuts larger ones. */
export const MAX_ALERTS = 1000

export const AlertmanagerMessage = Type.Object(
  {
    version: Type.Literal('4'),
    groupKey: Type.String({ maxLength: 50_000 }),
    status: Status,
    receiver: Type.String({ maxLength: 500 }),
    groupLabels: Pairs,
    externalURL: Type.String({ maxLength: 2000 }),
    truncatedAlerts: Type.Optional(Type.Integer({ minimum: 0 })),
    alerts: Type.Array(
      Type.Object(
        {
          status: Status,
          labels: Pairs,
          annotations: Pairs,
          startsAt: Time,
          endsAt: Time,
          generatorURL: Type.Optional(Type.String({ maxLength: 10_000 })),
          fingerprint: Type.String({ minLength: 1, maxLength: 100 }),
        },
        open,
      ),
      { minItems: 1, maxItems: MAX_ALERTS },
    ),
  },
  open,
)
export type AlertmanagerMessage = Static<typeof AlertmanagerMessage>
type Alert = AlertmanagerMessage['alerts'][number]

/** What operators commonly write into the label `severity`. */
const PRIORITY_OF: Record<string, Priority> = {
  critical: 'CRITICAL',
  page: 'CRITICAL',
  error: 'HIGH',
  high: 'HIGH',
  warning: 'NORMAL',
  info: 'LOW',
  none: 'LOW',
}

/**
 * One event for each alert: `prometheus.alert.firing` or `prometheus.alert.resolved`. Alertmanager repeats a group
 * whenever it changes and at every `repeat_interval`; fingerprint, start and status tell a repetition from news, so
 * each alert is heard of once when it begins and once when it ends.
 */
export function alertEvents(
  { alerts, receiver, groupKey, groupLabels, externalURL }: AlertmanagerMessage,
  { tenantId, now, traceId }: { tenantId: TenantId; now: Date; traceId: string | undefined },
): Event[] {
  const source = `alertmanager:${externalURL}`.slice(0, 500)
  return alerts.map(alert => {
    const { status, labels, annotations, startsAt, endsAt, generatorURL, fingerprint } = alert
    const resolved = status === 'resolved'
    return {
      tenantId,
      id: newId(now.getTime()),
      externalId: `${fingerprint} ${startsAt} ${status}`,
      source,
      type: `prometheus.alert.${status}`,
      subject: labels.alertname?.slice(0, 500) || undefined,
      time: new Date(resolved ? endsAt : startsAt),
      receivedAt: now,
      // That it is over is never as urgent as that it began.
      priority: resolved ? 'NORMAL' : PRIORITY_OF[labels.severity?.toLowerCase() ?? ''],
      category: 'alerts',
      data: {
        title: `${resolved ? 'Resolved' : 'Firing'}: ${nameOf(alert)}`,
        message: messageOf(alert),
        status,
        labels,
        annotations,
        startsAt,
        // While an alert fires it has no end, which Go writes as the year 1.
        endsAt: resolved ? endsAt : null,
        generatorURL: generatorURL ?? '',
        fingerprint,
        receiver,
        groupKey,
        groupLabels,
        externalURL,
      },
      traceId,
    }
  })
}

const nameOf = ({ labels, annotations }: Alert): string =>
  annotations.summary || annotations.title || labels.alertname || 'alert'

/** The description; without one the labels, which is what Alertmanager's own mails fall back to. */
function messageOf({ labels, annotations, generatorURL }: Alert): string {
  const text =
    annotations.description ||
    annotations.message ||
    Object.entries(labels)
      .map(([name, value]) => `${name}: ${value}`)
      .join('\n')
  return generatorURL ? `${text}\n\n${generatorURL}` : text
}
