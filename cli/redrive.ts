import { isId } from '../server/db/ids.ts'
import { CHANNELS } from '../server/types.ts'
import { type Client, createClient } from './client.ts'
import { type Command, type Input, REMOTE, UsageError } from './command.ts'
import { plain, print, printJson, table, time } from './print.ts'

interface DeadLetter {
  id: string
  at?: string
  kind?: string
  channel?: string | null
  eventType?: string | null
  code?: string
  error?: string
}

export const command: Command = {
  name: 'redrive',
  summary: 'Send dead letters again',
  about: 'Without ids and without --all it lists the dead letters that the options name.',
  args: '[id…]',
  arity: { min: 0, max: 1000 },
  options: {
    all: { about: 'Every dead letter that the other options name' },
    kind: { value: 'KIND', about: 'event or delivery' },
    channel: { value: 'CHANNEL', about: 'Deliveries of this channel' },
    code: { value: 'CODE', about: 'What failed with this code' },
    type: { value: 'TYPE', about: 'What came of events of this type' },
    limit: { value: 'N', about: 'How many to list, up to 200. Default: 50' },
    ...REMOTE,
  },
  examples: [
    'carillon redrive --channel email',
    'carillon redrive 0198c5f2-…',
    'carillon redrive --all --code timeout',
  ],
  async run(input) {
    const filter = filterOf(input)
    for (const id of input.args) if (!isId(id)) throw new UsageError(`"${id}" is not an id`)
    if (input.args.length > 0 && (input.on('all') || Object.keys(filter).length > 0)) {
      throw new UsageError('Name ids, or what to send again with --all, not both')
    }
    const client = createClient(input)
    if (input.args.length > 0) return redriveEach(client, input)
    if (!input.on('all')) return list(client, input, filter)
    const result = await client.post<{ redriven: number }>('/api/dead-letters/redrive', { filter })
    if (input.json) printJson(result)
    else print(`${result.redriven} sent again.`)
  },
}

function filterOf(input: Input): Record<string, string> {
  const filter = {
    kind: input.choice('kind', ['event', 'delivery']),
    channel: input.choice('channel', CHANNELS),
    code: input.text('code'),
    eventType: input.text('type'),
  }
  return Object.fromEntries(
    Object.entries(filter).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  )
}

/** One refused id must not keep the others. */
async function redriveEach(client: Client, input: Input): Promise<number> {
  const results: { id: string; ok: boolean; error?: string }[] = []
  for (const id of input.args) {
    try {
      await client.post(`/api/dead-letters/${id}/redrive`, {})
      results.push({ id, ok: true })
    } catch (error) {
      results.push({ id, ok: false, error: (error as Error).message })
    }
  }
  if (input.json) printJson(results)
  else print(table(results.map(one => [one.id, one.ok ? 'sent again' : `failed: ${one.error}`])))
  return results.every(one => one.ok) ? 0 : 1
}

async function list(client: Client, input: Input, filter: Record<string, string>): Promise<void> {
  const limit = input.text('limit')
  const page = await client.get<{ items: DeadLetter[]; nextCursor: string | null }>('/api/dead-letters', {
    ...filter,
    limit,
  })
  if (input.json) return printJson(page)
  if (page.items.length === 0) return print('No dead letters.')
  print(
    table(
      page.items.map(one =>
        [
          one.id,
          time(one.at),
          one.kind ?? '',
          one.channel ?? '',
          one.eventType ?? '',
          `${one.code ?? ''}: ${one.error ?? ''}`,
        ].map(plain),
      ),
    ),
  )
  if (page.nextCursor !== null) print('There are more.')
}
