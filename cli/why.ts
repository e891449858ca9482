import { isId } from '../server/db/ids.ts'
import { REASONS } from '../server/reasons.ts'
import { createClient } from './client.ts'
import { type Command, REMOTE, UsageError } from './command.ts'
import { plain, print, printJson, style, table, time } from './print.ts'

/** The answer of /api/explain and its sisters. */
interface Explanation {
  event: { id: string; type: string; source?: string; time?: string; receivedAt?: string; status?: string }
  rules: {
    id: string | null
    name?: string | null
    matched: boolean
    why?: string
    error?: string
    recipients?: {
      type: string
      id: string
      notificationId?: string
      decisions?: Decided[]
      deliveries?: Delivery[]
    }[]
  }[]
  moreRules?: number
  moreRecipients?: boolean
  /** Why nobody, or not this user, was told. */
  why?: string
  text?: string
  /** The one asked about. */
  rule?: {
    name: string
    revision: number
    plannedRevision: number | null
    matches: boolean
    checks: { check: string; holds: boolean | null; text: string }[]
    terms: { source: string; holds: boolean; error?: string }[]
  }
}

interface Decided {
  channel: string
  decision: 'send' | 'hold' | 'digest' | 'skip'
  reason?: string
  detail?: string
  until?: string
  because?: { silence?: { comment?: string; endsAt?: string } }
}

interface Delivery {
  channel: string
  status: string
  attempts?: Attempt[]
  waitsFor?: Waiting
  digest?: {
    id: string
    key: string
    state: string
    item: string
    items: number
    closesAt: string
    closedAt: string | null
    eventId: string | null
    message?: { notificationId: string; status: string; at: string | null; waitsFor?: Waiting }
  }
  ended?: { reason: string; text: string; at: string }
}

interface Waiting {
  kind: string
  until: string | null
  reason: string
}

interface Attempt {
  attempt: number
  at?: string
  outcome: string
  provider?: string | null
  code?: string | null
  durationMs?: number | null
  error?: string | null
}

export const command: Command = {
  name: 'why',
  summary: 'Explain what became of an event or a notification, and why',
  args: '<event id>',
  arity: { min: 0, max: 1 },
  options: {
    user: { value: 'ID', about: 'Only what concerns this user, also when they got nothing', short: 'u' },
    notification: { value: 'ID', about: 'Explain a notification instead of an event', short: 'n' },
    rule: {
      value: 'ID',
      about: 'Also why this rule, by id or name, takes the event or does not',
      short: 'r',
    },
    ...REMOTE,
  },
  examples: [
    'carillon why 0198c5f2-…',
    'carillon why 0198c5f2-… --user alice',
    "carillon why 0198c5f2-… --rule 'Large orders'",
    'carillon why --notification 0198c5f3-…',
  ],
  async run(input) {
    const [event] = input.args
    const notification = input.text('notification')
    const user = input.text('user')
    if ((event === undefined) === (notification === undefined)) {
      throw new UsageError('Name either an event or, with --notification, a notification')
    }
    for (const id of [event, notification]) {
      if (id !== undefined && !isId(id)) throw new UsageError(`"${id}" is not an id`)
    }
    if (notification !== undefined && user !== undefined) throw new UsageError('--user goes with an event')
    const rule = input.text('rule')
    if (rule !== undefined && (event === undefined || user !== undefined)) {
      throw new UsageError('--rule goes with an event, and without --user')
    }
    const client = createClient(input)
    const explanation =
      notification !== undefined
        ? await client.get<Explanation>(`/api/notifications/${notification}/explain`)
        : user !== undefined
          ? await client.get<Explanation>('/api/explain', { user, event })
          : await client.get<Explanation>(`/api/events/${event}/explain`, { rule })
    if (input.json) return printJson(explanation)
    print(explain(explanation))
  },
}

export function explain(explanation: Explanation): string {
  const { event, rules, rule: asked, moreRules, moreRecipients, why, text } = explanation
  const about = [event.source && `from ${event.source}`, time(event.time), event.status]
    .filter(Boolean)
    .join(', ')
  const lines = [`${style('bold', plain(event.type))}  ${event.id}`, plain(`  ${about}`)]
  // What matched is what the reader came for.
  const ordered = [...rules.filter(rule => rule.matched), ...rules.filter(rule => !rule.matched)]
  if (why !== undefined) lines.push('', `  ${style('yellow', '–')} ${plain(`${text ?? why} (${why})`)}`)
  else if (ordered.length === 0) lines.push('', `  ${style('yellow', '–')} ${reasonText('no_rule_matched')}`)
  for (const rule of ordered) {
    lines.push('', `  ${rule.matched ? style('green', '✓') : style('dim', '–')} ${ruleName(rule)}`)
    if (rule.why !== undefined) lines.push(`      ${reasonText(rule.why, rule.error)}`)
    for (const recipient of rule.recipients ?? []) {
      lines.push(
        `      ${plain(`${recipient.type} ${recipient.id}`)}${recipient.notificationId ? style('dim', `  ${recipient.notificationId}`) : ''}`,
      )
      const rows = (recipient.decisions ?? []).map(decided => [
        decided.channel,
        decided.decision,
        outcomeOf(decided, recipient.deliveries?.find(one => one.channel === decided.channel)?.status),
      ])
      // A fallback channel has a delivery and no decision of its own.
      for (const { channel, status } of recipient.deliveries ?? []) {
        if (!rows.some(row => row[0] === channel)) rows.push([channel, '', `→ ${status}`])
      }
      if (rows.length > 0) lines.push(table(rows, '        '))
      const since = (recipient.deliveries ?? []).flatMap(sinceThen)
      if (since.length > 0) lines.push(table(since, '          '))
      for (const { channel, attempts = [] } of recipient.deliveries ?? []) {
        if (attempts.length > 0)
          lines.push(
            table(
              attempts.map(one => attemptRow(channel, one)),
              '          ',
            ),
          )
      }
    }
  }
  if (asked) lines.push('', ...answerOf(asked))
  if (moreRules !== undefined) lines.push('', `  ${moreRules} more rules said no`)
  if (moreRecipients) lines.push('', '  There are more recipients: ask for one with --user')
  return lines.join('\n')
}

function answerOf({
  name,
  revision,
  plannedRevision,
  matches,
  checks,
  terms,
}: NonNullable<Explanation['rule']>) {
  const then =
    plannedRevision === null
      ? 'it was not asked when the event was planned'
      : plannedRevision === revision
        ? `revision ${revision}, as it was then`
        : `revision ${revision}; then it was ${plannedRevision}`
  const lines = [
    `  ${style('bold', plain(name))} ${matches ? 'takes' : 'does not take'} this event (${then})`,
  ]
  const mark = (holds: boolean | null) =>
    holds === null ? '?' : holds ? style('green', '✓') : style('red', '✗')
  for (const { holds, text } of checks) lines.push(`    ${mark(holds)} ${plain(text)}`)
  for (const { source, holds, error } of terms) {
    lines.push(`        ${mark(holds)} ${plain(source)}${error === undefined ? '' : plain(`: ${error}`)}`)
  }
  return lines
}

/** What has become of a delivery since it was decided: what it waits for, where it was collected, why it ended. */
function sinceThen({ channel, waitsFor, digest, ended }: Delivery): string[][] {
  const rows: string[][] = []
  if (waitsFor) rows.push([channel, `waits${untilText(waitsFor)}`, reasonText(waitsFor.reason)])
  if (digest) {
    const { id, key, items, state, closesAt, closedAt, message } = digest
    const when = closedAt === null ? `closes ${time(closesAt)}` : `${state} ${time(closedAt)}`
    rows.push([channel, `digest ${id}`, plain(`${items} items under ${key}, ${when}`)])
    if (message) {
      const waits = message.waitsFor
        ? `, waits${untilText(message.waitsFor)}: ${message.waitsFor.reason}`
        : ''
      rows.push([channel, `→ ${message.notificationId}`, `${message.status}${waits}`])
    }
  }
  if (ended) rows.push([channel, `ended ${time(ended.at)}`, reasonText(ended.reason)])
  return rows
}

const untilText = ({ until }: Waiting): string => (until === null ? '' : ` until ${time(until)}`)

const ruleName = (rule: { id: string | null; name?: string | null }): string =>
  rule.id === null ? 'direct request' : `rule ${style('bold', plain(rule.name ?? rule.id))}`

function outcomeOf(decided: Decided, status: string | undefined): string {
  const parts = []
  if (decided.until !== undefined) parts.push(`until ${time(decided.until)}`)
  if (decided.reason !== undefined) parts.push(reasonText(decided.reason, decided.detail))
  const { silence } = decided.because ?? {}
  if (silence?.comment !== undefined) parts.push(plain(`“${silence.comment}” until ${time(silence.endsAt)}`))
  if (status !== undefined) parts.push(`→ ${status}`)
  return parts.join('  ')
}

/** The sentence of the closed list, and the values that led to it. */
function reasonText(reason: string, detail?: string): string {
  const known: Record<string, { text: string }> = REASONS
  const text = Object.hasOwn(known, reason) ? `${known[reason]!.text} (${reason})` : reason
  return plain(detail === undefined ? text : `${text}: ${detail}`)
}

const attemptRow = (channel: string, one: Attempt): string[] =>
  [
    `${channel} #${one.attempt}`,
    time(one.at),
    one.outcome,
    one.provider ?? '',
    one.durationMs == null ? '' : `${one.durationMs} ms`,
    [one.code, one.error].filter(Boolean).join(': '),
  ].map(cell => plain(cell))
