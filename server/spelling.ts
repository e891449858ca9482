import { CHANNELS, PRIORITIES } from './types.ts'
import type { Channel, Priority } from './types.ts'

/**
 * The documented spellings of one thing: `EMAIL`, `IN_APP`, `inApp`, `in-app`, `BROWSER_PUSH` … Whatever comes in
 * is read leniently; what goes out has one spelling.
 */
const OTHER_NAMES: Record<string, Channel> = {
  browser_push: 'web_push',
  push_web: 'web_push',
  push_mobile: 'push',
}

const channels = new Map<string, Channel>([
  ...CHANNELS.map(channel => [channel, channel] as const),
  ...CHANNELS.map(channel => [channel.toUpperCase(), channel] as const),
  ...CHANNELS.map(channel => [channel.replaceAll('_', '-'), channel] as const),
  ...CHANNELS.map(
    channel => [channel.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()), channel] as const,
  ),
  ...Object.entries(OTHER_NAMES),
  ...Object.entries(OTHER_NAMES).map(([name, channel]) => [name.toUpperCase(), channel] as const),
])

/** Every spelling of a channel that is understood. */
export const CHANNEL_SPELLINGS: readonly string[] = [...channels.keys()]
/** MEDIUM is NORMAL by another name. */
export const PRIORITY_SPELLINGS: readonly string[] = [
  ...PRIORITIES,
  'MEDIUM',
  ...PRIORITIES.map(p => p.toLowerCase()),
  'medium',
]

export const readChannel = (text: string): Channel | undefined => channels.get(text)

export function readPriority(text: string): Priority | undefined {
  const upper = text.toUpperCase()
  return upper === 'MEDIUM' ? 'NORMAL' : PRIORITIES.find(priority => priority === upper)
}
