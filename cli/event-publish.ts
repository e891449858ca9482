import { randomUUID } from 'node:crypto'
import { PRIORITIES } from '../server/types.ts'
import { createClient, Unreachable } from './client.ts'
import { type Command, REMOTE, readJsonObject, readTime } from './command.ts'
import { complain, print, printJson } from './print.ts'

export const command: Command = {
  name: 'event publish',
  summary: 'Publish an event',
  args: '<type>',
  arity: { min: 1, max: 1 },
  options: {
    data: {
      value: 'JSON',
      about: 'What happened, as an object; @file or - (standard input) to read it',
      short: 'd',
    },
    source: { value: 'SOURCE', about: 'Who says so. Default: carillon-cli' },
    subject: { value: 'SUBJECT', about: 'What it is about' },
    id: { value: 'ID', about: 'Your id of the event: a second one with this source and id is a duplicate' },
    time: { value: 'TIME', about: 'When it happened. Default: now' },
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
    `carillon event publish order.shipped --data '{"order":"A-17"}' --subject alice`,
    'cat event.json | carillon event publish order.shipped --data -',
  ],
  async run(input) {
    const data = input.text('data')
    const key = input.text('idempotency-key') ?? randomUUID()
    const body = {
      type: input.args[0],
      source: input.text('source') ?? 'carillon-cli',
      data: data === undefined ? {} : await readJsonObject(data, 'data'),
      subject: input.text('subject'),
      id: input.text('id'),
      time: readTime(input.text('time'), 'time'),
      priority: input.choice('priority', PRIORITIES),
      category: input.text('category'),
      scheduledAt: readTime(input.text('scheduled-at'), 'scheduled-at'),
      expiresAt: readTime(input.text('expires-at'), 'expires-at'),
    }
    try {
      const accepted = await createClient(input).post<{ id: string; status?: string }>(
        '/api/events/publish',
        body,
        key,
      )
      if (input.json) return printJson(accepted)
      print(`${accepted.id}  ${accepted.status ?? 'accepted'}`)
      complain(`Why it became what it became: carillon why ${accepted.id}`)
    } catch (error) {
      if (error instanceof Unreachable) {
        complain(
          `Whether it was accepted is not known. Trying again with --idempotency-key ${key} cannot publish it twice.`,
        )
      }
      throw error
    }
  },
}
