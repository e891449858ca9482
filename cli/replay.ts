import { readFile } from 'node:fs/promises'
import { parse } from 'yaml'
import { createClient } from './client.ts'
import { type Command, REMOTE, UsageError } from './command.ts'
import { complain, plain, print, printJson, table } from './print.ts'

interface Side {
  at: string
  subject?: string
  body: string
}

interface Result {
  events: number
  more: boolean
  told: { before: number; after: number }
  totals: Record<string, number>
  byChannel: Record<string, Record<string, number>>
  users: { userId: string; differences: number; byChannel: Record<string, Record<string, number>> }[]
  examples: {
    kind: string
    userId: string
    channel: string
    eventType: string
    before?: Side
    after?: Side
  }[]
  notReconstructed: string[]
}

const KINDS = ['new', 'lost', 'changed', 'moved']

export const command: Command = {
  name: 'replay',
  summary: 'Show what recorded events would have led to with something changed',
  about:
    'Plays the events through everything twice, as things are and with the change, and prints the difference. Nothing\n' +
    'is sent or written.',
  options: {
    rule: { value: 'FILE', about: 'A rule in YAML; takes the place of the one with its name' },
    without: { value: 'ID', about: 'Leave this rule out' },
    defaults: { value: 'FILE', about: "A list of preference defaults in YAML, in place of the tenant's" },
    template: { value: 'FILE', about: 'A template in YAML; takes the place of the one with its name' },
    limit: { value: 'FILE', about: 'A limit in YAML, or a list; takes the place of the one with its name' },
    'without-limit': { value: 'NAME', about: 'Lift this limit (id or name)' },
    silence: {
      value: 'FILE',
      about: 'A silence in YAML, or a list; from the beginning unless it says startsAt',
    },
    'without-silence': { value: 'ID', about: 'As if this silence had never been' },
    inhibition: {
      value: 'FILE',
      about: 'An inhibition in YAML, or a list; takes the place of the one with its name',
    },
    'without-inhibition': { value: 'NAME', about: 'Leave this inhibition out (id or name)' },
    since: { value: 'TIME', about: 'An instant, or how long ago: 90m, 12h, 7d. Default: 7d' },
    until: { value: 'TIME', about: 'Default: now' },
    examples: { value: 'N', about: 'Differences to show one by one. Default: 10' },
    ...REMOTE,
  },
  examples: [
    'carillon replay --rule draft.yaml --since 7d',
    'carillon replay --limit limits/mails.yaml --since 24h',
    'carillon replay --without 0198c5f2-… --since 24h --json',
  ],
  async run(input) {
    const read = async (option: string): Promise<unknown> => {
      const file = input.text(option)
      if (file === undefined) return undefined
      try {
        return parse(await readFile(file, 'utf8'))
      } catch (error) {
        throw new UsageError(`${file} cannot be read: ${(error as Error).message.split('\n')[0]}`)
      }
    }
    const readList = async (option: string): Promise<unknown[] | undefined> => {
      const given = await read(option)
      return given === undefined ? undefined : [given].flat()
    }
    const template = (await read('template')) as
      | { name: string; channels: unknown; translations?: unknown }
      | undefined
    const body = {
      since: input.text('since') ?? '7d',
      until: input.text('until'),
      rule: await read('rule'),
      withoutRule: input.text('without'),
      defaults: await read('defaults'),
      ...(template && {
        template: {
          template: template.name,
          channels: template.channels,
          translations: template.translations,
        },
      }),
      limits: await readList('limit'),
      withoutLimit: input.text('without-limit'),
      silences: await readList('silence'),
      withoutSilence: input.text('without-silence'),
      inhibitions: await readList('inhibition'),
      withoutInhibition: input.text('without-inhibition'),
      examples: Number(input.text('examples') ?? 10),
    }
    const result = await createClient(input).lines<Result>('/api/rules/replay', body, ({ events }) => {
      if (!input.json && process.stderr.isTTY) process.stderr.write(`\r${events} events…`)
    })
    if (!input.json && process.stderr.isTTY) process.stderr.write('\r')
    if (input.json) printJson(result)
    else show(result)
    return 0
  },
}

function show({ events, more, told, totals, byChannel, users, examples, notReconstructed }: Result): void {
  print(
    `${events} events${more ? ', and more in the range' : ''}: ${told.before} messages as it is, ${told.after} with the change`,
  )
  print('')
  const rows = Object.entries(byChannel).map(([channel, counts]) => [
    channel,
    ...KINDS.map(kind => String(counts[kind])),
  ])
  print(table([['channel', ...KINDS], ...rows, ['all', ...KINDS.map(kind => String(totals[kind]))]]))
  if (users.length > 0) {
    print('')
    print('Most differences:')
    const rowsOf = ({ userId, byChannel: own }: Result['users'][number]) =>
      Object.entries(own).map(([channel, counts], i) => [
        i === 0 ? plain(userId) : '',
        channel,
        ...KINDS.map(kind => String(counts[kind])),
      ])
    print(table([['person', 'channel', ...KINDS], ...users.slice(0, 5).flatMap(rowsOf)]))
  }
  for (const { kind, userId, channel, eventType, before, after } of examples) {
    print('')
    print(`${kind}: ${channel} to ${plain(userId)}, ${eventType}`)
    if (before) print(`  - ${before.at} ${plain(before.subject ?? before.body)}`)
    if (after) print(`  + ${after.at} ${plain(after.subject ?? after.body)}`)
  }
  print('')
  for (const note of notReconstructed) complain(`note: ${note}`)
}
