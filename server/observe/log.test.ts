import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import pg from 'pg'
import { secret } from '../config.ts'
import { createLogger, type Logger } from './log.ts'

/** What is written when `work` logs. */
function written(work: (log: Logger) => void, options: { readable?: boolean } = {}): string {
  let text = ''
  work(createLogger({ level: 'trace', ...options, destination: { write: line => void (text += line) } }))
  return text
}

const line = (work: (log: Logger) => void) => JSON.parse(written(work)) as Record<string, unknown>

// covers: PFM-267
test('a line is JSON with the level as a word and the time in ISO 8601', () => {
  const { time, ...rest } = line(log => log.warn({ channel: 'email', n: 3 }, 'provider is slow'))
  assert.deepEqual(rest, { level: 'warn', channel: 'email', n: 3, msg: 'provider is slow' })
  assert.equal(new Date(time as string).toISOString(), time)
})

// covers: DIC-130, PFM-267
test('content and secrets stay out, at any depth and however the field is spelled', () => {
  const CANARY = 'canary-7f3a'
  const names =
    'authorization Authorization cookie set-cookie x-api-key apiKey password smtp_password secret jwtSecret token ' +
    'access_token to address email recipientEmail phone subject body html text data content payload data_key headers'
  for (const name of names.split(' ')) {
    const shapes = [
      { [name]: CANARY },
      { message: { parts: [{ [name]: CANARY }] } },
      { [name]: { inner: [CANARY] } },
      { [name]: 7.25 },
    ]
    for (const shape of shapes) {
      const text = written(log => log.info(shape, 'sent'))
      assert.doesNotMatch(text, /canary|7\.25/, `${name}: ${text}`)
      assert.match(text, /<redacted>/)
    }
    assert.doesNotMatch(
      written(log => log.child({ [name]: CANARY }).info('sent')),
      /canary/,
      name,
    )
  }
})

test('what is no plain data is named, not walked', () => {
  class Socket {
    auth = 'canary'
  }
  const text = written(log =>
    log.info({
      socket: new Socket(),
      bytes: Buffer.from('canary'),
      map: new Map([['a', 'canary']]),
      key: secret('canary'),
    }),
  )
  assert.doesNotMatch(text, /canary/)
  assert.match(text, /"socket":"<Socket>","bytes":"<6 bytes>"/)
})

test('an error gives its message, code and cause, and nothing else it carries', () => {
  const cause = Object.assign(new Error('socket hang up'), { code: 'ECONNRESET', config: { auth: 'canary' } })
  const error = Object.assign(new Error('the relay broke off', { cause }), {
    response: 'canary',
    code: 'EENVELOPE',
  })
  const { err } = line(log => log.error(error)) as { err: Record<string, unknown> }
  assert.equal(err.message, 'the relay broke off')
  assert.equal(err.code, 'EENVELOPE')
  assert.match(String(err.stack), /^at .*log\.test\.ts/)
  assert.equal((err.cause as Record<string, unknown>).code, 'ECONNRESET')
  assert.doesNotMatch(JSON.stringify(err), /canary/)
})

test('a database error shows where it happened, not the row', () => {
  const error = Object.assign(
    new pg.DatabaseError('invalid input syntax for type uuid: "canary"', 1, 'error'),
    {
      severity: 'ERROR',
      code: '22P02',
      routine: 'string_to_uuid',
      detail: 'Key (address)=(canary) already exists.',
      where: 'COPY users, line 1: "canary"',
      internalQuery: 'canary',
      table: 'addresses',
    },
  )
  const text = written(log => log.error({ err: error }, 'failed'))
  assert.doesNotMatch(
    text + written(log => log.error(error)) + written(log => log.error({ err: error })),
    /canary/,
  )
  assert.match(text, /"code":"22P02"/)
  assert.match(text, /"table":"addresses"/)
  const other = Object.assign(new pg.DatabaseError('relation "nothing" does not exist', 1, 'error'), {
    severity: 'ERROR',
    routine: 'x',
  })
  assert.match(
    written(log => log.error(other)),
    /relation .*nothing.* does not exist/,
  )
})

test('credentials and addresses inside a text are blotted out', () => {
  const text = written(log =>
    log.info(
      'Bearer eyJhbGciOi.eyJzdWIi.c2ln crl_0123456789abcdefghijABCDEFGHIJ12 postgres://u:hunter2@db/x to alice@example.org +4915112345678',
    ),
  )
  assert.doesNotMatch(text, /eyJ|crl_|hunter2|alice|4915/)
  JSON.parse(text)
})

test('whatever is logged, the line stays one line of JSON', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.anything({ withBigInt: true, withDate: true })),
      fc.string(),
      (fields, msg) => {
        const text = written(log => log.info(fields, msg))
        assert.equal(text.split('\n').length, 2)
        JSON.parse(text)
      },
    ),
  )
})

test('endless and huge things are cut', () => {
  const round: Record<string, unknown> = {
    list: Array.from({ length: 10_000 }, (_, i) => i),
    long: 'x'.repeat(1_000_000),
  }
  round.self = round
  assert.ok(written(log => log.info(round)).length < 40_000)
})

test('a person at a terminal gets a readable line, cleaned as well', () => {
  const text = written(log => log.info({ port: 4400, password: 'canary' }, 'listening'), { readable: true })
  assert.match(text, /^\d\d:\d\d:\d\d info {2}listening {2}port=4400 {2}password=<redacted>\n$/)
  assert.match(
    written(log => log.error(new Error('broken')), { readable: true }),
    /error .*\n {2}broken\n {2}at /,
  )
})
