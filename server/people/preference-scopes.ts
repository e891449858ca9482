import type { Channel } from '../types.ts'

/** What a message is, as people and the law see it: every message is of exactly one class. */
export const MESSAGE_CLASSES = ['marketing', 'transactional', 'alerts', 'social'] as const
export type MessageClass = (typeof MESSAGE_CLASSES)[number]

/** Preference scope of the class that nobody is told about without having agreed. */
export const MARKETING = 'class:marketing'
/** Before the name of a topic: what a person's level of it comes to. Made from subscriptions (facts.ts), never stored. */
export const TOPIC_LEVEL = 'topic_level:'

/**
 * The class of a message: MARKETING is marketing and COMMUNITY is social; of TRADING what is about risk, and of
 * SYSTEM what is about security, is an alert; a category that has the name of a class is that class; the rest is
 * transactional. Case makes no difference.
 */
export function classOf(category: string, eventType: string): MessageClass {
  // A few hundred categories in use at most, but events may invent them: so the memory of them is bounded.
  const known = plain.get(category)
  if (known !== undefined) return known
  const name = category.toLowerCase()
  if (name === 'trading') return RISK.test(eventType) ? 'alerts' : 'transactional'
  if (name === 'system') return SECURITY.test(eventType) ? 'alerts' : 'transactional'
  const found =
    name === 'community' ? 'social' : (MESSAGE_CLASSES.find(one => one === name) ?? 'transactional')
  if (plain.size < 1_000) plain.set(category, found)
  return found
}

const plain = new Map<string, MessageClass>()
// Words of an event type, so that `asterisk` is no risk.
const RISK = /(?:^|[._-])(?:risks?|emergency|margin|liquidation)(?:$|[._-])/i
const SECURITY = /(?:^|[._-])security(?:$|[._-])/i

/** What a message falls under, besides being a message to somebody. */
export interface Subject {
  ruleId?: string | undefined
  /** Scopes of a solution, as they are stored: `aura:<id>`, `alert:<id>`. */
  scopes?: readonly string[] | undefined
  /** Topics whose audience is told. What people want of a topic has brought them in, or not, before this. */
  topics?: readonly string[] | undefined
  category: string
  eventType: string
}

/**
 * The scopes of a message, most specific first: rule, a solution's own, topics, category, class. A category is also
 * what people follow under that name, in lower case too: whoever set the topic `trading` to NONE hears nothing of
 * category TRADING.
 */
export function scopesOf({ ruleId, scopes, topics, category, eventType }: Subject): string[] {
  const found: string[] = []
  if (ruleId !== undefined) found.push(`rule:${ruleId}`)
  if (scopes !== undefined) found.push(...scopes)
  if (topics !== undefined) for (const topic of topics) found.push(`topic:${topic}`)
  if (category !== '') {
    found.push(`${TOPIC_LEVEL}${category}`)
    const lower = category.toLowerCase()
    if (lower !== category) found.push(`${TOPIC_LEVEL}${lower}`)
    found.push(`category:${category}`)
  }
  found.push(`class:${classOf(category, eventType)}`)
  return found
}

/** Whether a scope is a kind of message; the others are rules and sources. */
export const isKind = (scope: string): boolean => /^(?:topic|topic_level|category|class):/.test(scope)

/** `user:global`, `tenant:email`, `user:category:news`, `user:category:news:email` */
export const layerName = (owner: 'user' | 'tenant', scope: string, channel: Channel | null): string => {
  if (scope === '') return `${owner}:${channel ?? 'global'}`
  return channel === null ? `${owner}:${scope}` : `${owner}:${scope}:${channel}`
}
