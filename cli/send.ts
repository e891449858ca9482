import { randomUUID } from 'node:crypto'
import { CHANNELS, type Channel, PRIORITIES, type RecipientType } from '../server/types.ts'
import { createClient, Unreachable } from './client.ts'
import {
  type Command,
  type Input,
  REMOTE,
  readJsonObject,
  readStdin,
  readTime,
  UsageError,
} from './command.ts'
import { complain, print, printJson } from './print.ts'

export const command: Command = {
  name: 'send',
  summary: 'Tell somebody something, without any rule',
  options: {
    user: { value: 'ID', about: 'Who is told', multiple: true, short: 'u' },
    group: { value: 'NAME', about: 'Everybody in a group', multiple: true },
    role: { value: 'NAME', about: 'Everybody with a role', multiple: true },
    topic: { value: 'NAME', about: 'Everybody subscribed to a topic', multiple: true },
    to: { value: 'CHANNEL=ADDRESS', about: 'A bare address, such as email=a@example.org', multiple: true },
    channel: { value: 'CHANNEL', about: 'Default: in_app, and those of --to', multiple: true, short: 'c' },
    fallback: {
      value: 'CHANNEL',
      about: 'Tried in this order when none of the others delivered',
      multiple: true,
    },
    subject: { value: 'TEXT', about: 'Subject or title', short: 's' },
    body: { value: 'TEXT', about: 'What to say; - reads standard input', short: 'b' },
    html: { value: 'TEXT', about: 'The same as HTML, for e-mail' },
    template: { value: 'ID', about: 'A template instead of subject and body' },
    data: { value: 'JSON', about: 'Values for the template; @file or - to read them', short: 'd' },
    priority: { value: 'PRIORITY', about: PRIORITIES.join(', ') },
    category: { value: 'CATEGORY', about: 'For preferences and limits' },
    'scheduled-at': { value: 'TIME', about: 'Not before this time' },
    'expires-at': { value: 'TIME', about: 'Not after this time' },
    'idempotency-key': {
      value: 'KEY',
      about: 'The same key again gives the same answer again. Default: a random one',
    },
    ...REMOTE,
  },
  examples: [
    'carillon send --user alice --subject Hello --body "Lunch is ready"',
    'carillon send --to email=bob@example.org --subject Hello --body "Lunch is ready"',
    `carillon send --group kitchen --channel email --fallback sms --template 0198… --data '{"dish":"soup"}'`,
  ],
  async run(input) {
    const key = input.text('idempotency-key') ?? randomUUID()
    const body = await requestOf(input)
    try {
      const accepted = await createClient(input).post<{ id: string; status?: string }>(
        '/api/notifications',
        body,
        key,
      )
      if (input.json) return printJson(accepted)
      print(`${accepted.id}  ${accepted.status ?? 'accepted'}`)
    } catch (error) {
      if (error instanceof Unreachable) {
        complain(
          `Whether it was accepted is not known. Trying again with --idempotency-key ${key} cannot send it twice.`,
        )
      }
      throw error
    }
  },
}

async function requestOf(input: Input): Promise<unknown> {
  const addresses: Partial<Record<Channel, string[]>> = {}
  for (const item of input.list('to')) {
    const at = item.indexOf('=')
    if (at < 1 || at === item.length - 1) throw new UsageError(`--to ${item} is not CHANNEL=ADDRESS`)
    ;(addresses[channelOf(item.slice(0, at), 'to')] ??= []).push(item.slice(at + 1))
  }
  const recipients = (['user', 'group', 'role', 'topic'] as const satisfies readonly RecipientType[]).flatMap(
    type => input.list(type).map(id => ({ type, id })),
  )
  const addressed = Object.keys(addresses) as Channel[]
  if (recipients.length + addressed.length === 0)
    throw new UsageError('Nobody is named: use --user, --group, --role, --topic or --to')

  const named = input.list('channel').map(word => channelOf(word, 'channel'))
  const channels = new Set([...named, ...addressed])
  if (named.length === 0 && recipients.length > 0) channels.add('in_app')

  const given = { subject: input.text('subject'), body: input.text('body'), html: input.text('html') }
  const template = input.text('template')
  const data = input.text('data')
  if (
    template === undefined &&
    given.body === undefined &&
    given.html === undefined &&
    given.subject === undefined
  ) {
    throw new UsageError('Nothing is said: use --body or --template')
  }
  if (given.body === '-') given.body = (await readStdin()).trimEnd()
  return {
    ...(recipients.length === 0 ? {} : { recipients }),
    channels: [...channels],
    ...(addressed.length === 0 ? {} : { addresses }),
    ...(input.list('fallback').length === 0
      ? {}
      : { fallbackChannels: input.list('fallback').map(word => channelOf(word, 'fallback')) }),
    templateId: template,
    subject: given.subject,
    body: given.body,
    bodyHtml: given.html,
    data: data === undefined ? undefined : await readJsonObject(data, 'data'),
    priority: input.choice('priority', PRIORITIES),
    category: input.text('category'),
    scheduledAt: readTime(input.text('scheduled-at'), 'scheduled-at'),
    expiresAt: readTime(input.text('expires-at'), 'expires-at'),
  }
}

function channelOf(word: string, option: string): Channel {
  const channel = CHANNELS.find(each => each === word.toLowerCase())
  if (channel === undefined) throw new UsageError(`--${option}: "${word}" is none of ${CHANNELS.join(', ')}`)
  return channel
}
