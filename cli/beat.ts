import { setTimeout as delay } from 'node:timers/promises'
import { ApiError, createClient, Unreachable } from './client.ts'
import { type Command, REMOTE, UsageError } from './command.ts'
import { complain, print, printJson } from './print.ts'

const FIRST_WAIT_MS = 200
const LONGEST_WAIT_MS = 10_000

export const command: Command = {
  name: 'beat',
  summary: 'Say that a source is alive, for the last line of a job',
  about: 'Tries again while nobody answers: a beat that is lost in a restart would be told as silence.',
  args: 'name',
  arity: { min: 1, max: 1 },
  options: {
    patience: { value: 'SECONDS', about: 'How long to try, 0 to 3600. Default: 60' },
    ...REMOTE,
  },
  examples: ['pg_dump orders > orders.sql && carillon beat backup.nightly'],
  async run(input) {
    const [name] = input.args
    const patience = Number(input.text('patience') ?? 60)
    if (!Number.isInteger(patience) || patience < 0 || patience > 3600) {
      throw new UsageError('--patience is a whole number of seconds, 0 to 3600')
    }
    const client = createClient(input)
    const until = performance.now() + patience * 1000
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(LONGEST_WAIT_MS, wait * 2)) {
      try {
        await client.post(`/api/heartbeats/${encodeURIComponent(name!)}/beat`, undefined)
        break
      } catch (error) {
        const passing = error instanceof Unreachable || (error instanceof ApiError && error.status === 503)
        if (!passing || performance.now() + wait > until) throw error
        complain(`${error.message}; trying again.`)
        await delay(wait)
      }
    }
    if (input.json) printJson({ name, beat: true })
    else print(`${name} was heard.`)
  },
}
