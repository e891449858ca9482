import { setTimeout as delay } from 'node:timers/promises'
import { ApiError, createClient, type ServerSentEvent } from './client.ts'
import { type Command, REMOTE, UsageError } from './command.ts'
import { complain, plain, print, style } from './print.ts'

interface Envelope {
  seq: number
  type: string
  at?: string
  data?: Record<string, unknown>
}

const FIRST_WAIT_MS = 500
const MAX_WAIT_MS = 10_000

export const command: Command = {
  name: 'tail',
  summary: "Follow a user's inbox live",
  about: 'Goes on after an interruption where it stopped. Ctrl-C ends it. With --json: one envelope a line.',
  args: '<user>',
  arity: { min: 1, max: 1 },
  options: {
    after: { value: 'SEQ', about: 'Begin after this sequence number. Default: with what comes next' },
    count: { value: 'N', about: 'End after so many notifications' },
    ...REMOTE,
  },
  examples: ['carillon tail alice', 'carillon tail alice --after 0 --json | jq .data.subject'],
  async run(input) {
    const client = createClient(input)
    const after = wholeNumber(input.text('after'), 'after')
    const count = wholeNumber(input.text('count'), 'count') ?? Number.POSITIVE_INFINITY
    const stop = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())

    let lastEventId = after === undefined ? undefined : String(after)
    let seen = 0
    let wait = FIRST_WAIT_MS
    while (!stop.signal.aborted) {
      try {
        const events = client.events(
          '/realtime',
          { userId: input.args[0] },
          { lastEventId, signal: stop.signal },
        )
        for await (const event of events) {
          wait = FIRST_WAIT_MS
          lastEventId = event.id ?? lastEventId
          const envelope = readEnvelope(event)
          if (envelope === undefined) continue
          if (input.json) print(JSON.stringify(envelope))
          else if (envelope.type !== 'ping') print(lineOf(envelope))
          if (envelope.type === 'notification' && ++seen >= count) {
            stop.abort()
            return 0
          }
        }
      } catch (error) {
        if (stop.signal.aborted) break
        // Nobody could answer that better a second later.
        if (error instanceof ApiError && error.status < 500 && error.status !== 429) throw error
        if (seen === 0 && lastEventId === undefined && !(error instanceof ApiError)) throw error
        complain(`${(error as Error).message} Trying again.`)
      }
      await delay(wait, undefined, { signal: stop.signal }).catch(() => {})
      wait = Math.min(wait * 2, MAX_WAIT_MS)
    }
    return 0
  },
}

function wholeNumber(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined
  if (!/^\d{1,15}$/.test(text)) throw new UsageError(`--${option} is not a whole number`)
  return Number(text)
}

function readEnvelope({ data }: ServerSentEvent): Envelope | undefined {
  try {
    return JSON.parse(data) as Envelope
  } catch {
    return undefined
  }
}

function lineOf({ seq, type, at, data = {} }: Envelope): string {
  const text = (name: string, from = data) => {
    const value = from[name]
    return typeof value === 'string' ? value : undefined
  }
  const content = (data.content ?? {}) as Record<string, unknown>
  const subject = text('subject') ?? text('subject', content)
  const body = text('body') ?? text('body', content)
  const said =
    type === 'notification'
      ? [subject && style('bold', plain(subject)), body && plain(body)].filter(Boolean).join('  ')
      : plain(JSON.stringify(data))
  return `${style('dim', `${(at ?? '').slice(11, 19)}  ${seq}`)}  ${type.padEnd(12)}  ${said}`
}
