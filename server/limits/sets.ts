import type { Channel } from '../types.ts'
import type { LimitDefinition } from './store.ts'
import { OTHER_TIER, TIERS } from './store.ts'

/** What a set is for, and the traffic it holds for. Empty lists: all traffic. */
export interface LimitSet {
  summary: string
  limits(only: { categories: string[]; eventTypes: string[] }): LimitDefinition[]
}

const OUTSIDE: Channel[] = [
  'email',
  'sms',
  'whatsapp',
  'voice',
  'push',
  'web_push',
  'slack',
  'webhook',
  'pagerduty',
]

/** What a plan may use beside the inbox. */
const TIER_CHANNELS: Record<(typeof TIERS)[number], Channel[]> = {
  free: [],
  personal: ['web_push', 'email'],
  family: ['web_push', 'email', 'sms'],
  business: ['web_push', 'email', 'sms', 'whatsapp'],
}
/** Notifications a day; a business has no bound. */
const TIER_DAY: Record<string, number> = { free: 10, personal: 50, family: 200, [OTHER_TIER]: 100 }

/** At most as many interruptions an hour as the attention budget has unless it is said. */
export const ATTENTION_PER_HOUR = 6

type Draft = Pick<LimitDefinition, 'name' | 'scope' | 'window' | 'max'> & Partial<LimitDefinition>

const define = (summary: string, drafts: readonly Draft[]): LimitSet => ({
  summary,
  limits: only =>
    drafts.map(draft => ({
      channels: [],
      tiers: [],
      costs: {},
      every: 1,
      gapSeconds: null,
      per: 'delivery',
      overflow: 'hold',
      criticalPasses: true,
      shares: {},
      reason: null,
      enabled: true,
      ...only,
      ...draft,
    })),
})

/** Of the tenant as a whole: what is urgent passes the bounds of people, not those of the system. */
const whole = (channel: Channel, max: number, window: 'minute' | 'hour'): Draft => ({
  name: `all ${channel}`,
  scope: 'tenant',
  channels: [channel],
  max,
  window,
  criticalPasses: false,
})
const each = (channel: Channel, max: number): Draft => ({
  name: `user ${channel}`,
  scope: 'user',
  channels: [channel],
  max,
  window: 'hour',
})

const SETS = {
  dictamesh: define('Per user and channel, per channel as a whole, and per category', [
    each('email', 100),
    each('sms', 10),
    each('push', 50),
    whole('email', 10_000, 'hour'),
    whole('sms', 1_000, 'hour'),
    whole('slack', 100, 'minute'),
    // One message a second: https://docs.slack.dev/apis/web-api/rate-limits/
    {
      name: 'slack channel',
      scope: 'address',
      channels: ['slack'],
      window: 'gap',
      gapSeconds: 1,
      max: 1,
      criticalPasses: false,
    },
    // Five a day to all people together would be none.
    {
      name: 'marketing',
      scope: 'user',
      categories: ['marketing'],
      max: 5,
      window: 'day',
      per: 'notification',
    },
    { name: 'transactional', scope: 'category', categories: ['transactional'], max: 1_000, window: 'hour' },
  ]),
  pfm: define('10 an hour and 50 a day, for each person and channel', [
    { name: 'hour', scope: 'user_channel', max: 10, window: 'hour' },
    { name: 'day', scope: 'user_channel', max: 50, window: 'day' },
  ]),
  alphintra: define('Channels as a whole by the minute, people by hour and day, and spam', [
    whole('email', 1_000, 'minute'),
    whole('sms', 100, 'minute'),
    whole('push', 5_000, 'minute'),
    whole('webhook', 1_000, 'minute'),
    { name: 'user hour', scope: 'user', max: 20, window: 'hour', per: 'notification' },
    { name: 'user day', scope: 'user', max: 100, window: 'day', per: 'notification' },
    { name: 'same content', scope: 'content', max: 5, window: 'minute', every: 10, reason: 'throttled' },
    {
      name: 'flood',
      scope: 'user',
      max: 100,
      window: 'minute',
      per: 'notification',
      overflow: 'skip',
      reason: 'spam',
    },
  ]),
  aura: define('Plans by the attribute "tier": channels, notifications a day, and five minutes between two', [
    ...TIERS.map(
      (tier): Draft => ({
        name: `channels of ${tier}`,
        scope: 'tenant',
        tiers: [tier],
        channels: OUTSIDE.filter(channel => !TIER_CHANNELS[tier].includes(channel)),
        max: 0,
        window: 'day',
        overflow: 'skip',
        criticalPasses: false,
        reason: 'channel_not_allowed',
      }),
    ),
    ...Object.entries(TIER_DAY).map(
      ([tier, max]): Draft => ({
        name: `day of ${tier}`,
        scope: 'user',
        tiers: [tier],
        max,
        window: 'day',
        per: 'notification',
      }),
    ),
    { name: 'pause', scope: 'user', window: 'gap', gapSeconds: 300, max: 1 },
  ]),
  attention: define(
    'So many interruptions an hour across everything; the rest joins the summary of the hour',
    [
      {
        name: 'budget',
        scope: 'user',
        max: ATTENTION_PER_HOUR,
        window: 'hour',
        per: 'notification',
        overflow: 'digest',
        shares: { LOW: 0.5, NORMAL: 0.8 },
        reason: 'attention',
      },
    ],
  ),
} as const satisfies Record<string, LimitSet>

export type SetName = keyof typeof SETS
export const LIMIT_SETS: Readonly<Record<SetName, LimitSet>> = SETS
export const SET_NAMES = Object.keys(SETS) as SetName[]

/**
 * The limits of a set as they are to be stored: named after it, for this traffic only. A limit that is about
 * categories of its own keeps them.
 */
export function limitsOf(
  set: SetName,
  only: { categories?: string[]; eventTypes?: string[]; max?: number },
): LimitDefinition[] {
  const { categories = [], eventTypes = [], max } = only
  return LIMIT_SETS[set].limits({ categories, eventTypes }).map(limit => ({
    ...limit,
    name: `${set}: ${limit.name}`,
    ...(set === 'attention' && max !== undefined && { max }),
  }))
}
