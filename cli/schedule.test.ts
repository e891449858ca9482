import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'

/** With nothing set that could lead to a server. */
const next = (...args: string[]) =>
  spawnSync(process.execPath, [join(import.meta.dirname, 'carillon.ts'), 'schedule', 'next', ...args], {
    env: { PATH: process.env['PATH'], NO_COLOR: '1', TZ: 'UTC' },
    encoding: 'utf8',
  })

test('the next times of a pattern, on the wall and in UTC, without a server', () => {
  const { stdout, status } = next(
    '--cron',
    '30 2 * * *',
    '--timezone',
    'Europe/Berlin',
    '--from',
    '2026-03-28',
    '--count',
    '3',
  )
  assert.equal(
    stdout,
    [
      'SAT  2026-03-28 02:30:00  +01:00  2026-03-28T01:30:00Z',
      'SUN  2026-03-29 03:00:00  +02:00  2026-03-29T01:00:00Z',
      'MON  2026-03-30 02:30:00  +02:00  2026-03-30T00:30:00Z',
      '',
    ].join('\n'),
  )
  assert.equal(status, 0)
})

test('weekly, monthly and intervals; JSON for programs', () => {
  const times = (...args: string[]) => {
    const { stdout, stderr } = next(...args, '--from', '2026-11-21T12:00:00Z', '--count', '2', '--json')
    assert.equal(stderr, '')
    return (JSON.parse(stdout) as { times: { at: string }[] }).times.map(({ at }) => at.slice(0, 16))
  }
  assert.deepEqual(times('--weekly', 'mon 09:00'), ['2026-11-23T09:00', '2026-11-30T09:00'])
  assert.deepEqual(times('--monthly', '31 18:00'), ['2026-11-30T18:00', '2026-12-31T18:00'])
  assert.deepEqual(times('--every', '90'), ['2026-11-21T12:00', '2026-11-21T12:01'])
  assert.deepEqual(times('--daily', '06:00'), ['2026-11-22T06:00', '2026-11-23T06:00'])
})

test('what cannot be understood, and what cannot be kept', () => {
  const wrong: [args: string[], status: number, said: RegExp][] = [
    [[], 2, /Give one of --cron/],
    [['--daily', '06:00', '--every', '5'], 2, /Give one of --cron/],
    [['--weekly', 'someday 06:00'], 2, /--weekly begins with/],
    [['--daily', '06:00', '--count', '0'], 2, /--count is 1 to 50/],
    [['--daily', '25:00'], 1, /daily: A time of day is HH:MM/],
    [['--cron', '0 0 30 2 *'], 1, /cron: .*never comes/],
    [['--daily', '06:00', '--timezone', 'Mars/Olympus'], 1, /timezone: There is no time zone/],
  ]
  for (const [args, status, said] of wrong) {
    const result = next(...args)
    assert.equal(result.status, status, args.join(' '))
    assert.match(result.stderr, said)
  }
})
