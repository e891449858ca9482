import type { InlineContent, JsonObject, Priority } from '../types.ts'

/** The event that takes the place of a digest's items. It is never collected itself. */
export const DIGEST_EVENT = 'carillon.digest'

export interface DigestItem {
  notificationId: string
  eventType: string
  at: Date
  priority: Priority
  subject: string | undefined
  body: string
}

interface Words {
  count(n: number): string
  more(n: number): string
}

const WORDS: Record<string, Words> = {
  en: {
    count: n => (n === 1 ? '1 notification' : `${n} notifications`),
    more: n => `and ${n} more`,
  },
  pt: {
    count: n => (n === 1 ? '1 notificação' : `${n} notificações`),
    more: n => `e mais ${n}`,
  },
  zh: {
    count: n => `${n} 条通知`,
    more: n => `还有 ${n} 条`,
  },
}

/** Longer texts are cut: a digest is for looking over. */
const MAX_LINE = 200
const MAX_SHOWN = 50

/**
 * The message a digest is, for readers whose rule names no template: how many, then the beginning of each. `data` is
 * what a template of one's own gets: the items with subject and text, their count, and the key they were collected
 * under.
 */
export function composeDigest({
  id,
  key,
  items,
  count,
  locale,
}: {
  id: string
  key: string
  items: readonly DigestItem[]
  /** All of them, also those that are not shown. */
  count: number
  locale: string
}): { content: InlineContent; data: JsonObject } {
  const words = WORDS[locale.toLowerCase().split('-')[0]!] ?? WORDS['en']!
  const shown = items.slice(0, MAX_SHOWN)
  const lines = shown.flatMap(({ subject, body }) =>
    subject === undefined || body.trim() === '' || line(body) === line(subject)
      ? [`• ${line(subject ?? body)}`]
      : [`• ${line(subject)}`, `  ${line(body)}`],
  )
  const left = count - shown.length
  if (left > 0) lines.push(words.more(left))
  return {
    content: { subject: words.count(count), body: lines.join('\n') },
    data: {
      digestId: id,
      key,
      count,
      more: count - items.length,
      items: items.map(({ notificationId, eventType, at, priority, subject, body }) => ({
        notificationId,
        eventType,
        at: at.toISOString(),
        priority,
        subject: subject ?? null,
        body: body.slice(0, 1000),
      })),
    },
  }
}

function line(text: string): string {
  const flat = text.replaceAll(/\s+/g, ' ').trim()
  return flat.length <= MAX_LINE ? flat : `${flat.slice(0, MAX_LINE - 1).trimEnd()}…`
}
