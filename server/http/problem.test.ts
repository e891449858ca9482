import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect, type NetConnectOpts } from 'node:net'
import { test } from 'node:test'
import { AppError } from '../errors.ts'
import { slippedThrough, toAppError, toProblem } from './problem.ts'

const refused = async (options: NetConnectOpts): Promise<unknown> => {
  const [error] = await once(connect(options), 'error')
  return error
}

test('a server that does not answer is the database’s absence; a missing file is not', async () => {
  assert.equal(toAppError(await refused({ port: 1, host: '127.0.0.1' })).code, 'database_error')
  assert.equal(toAppError(await refused({ path: '/nonexistent/.s.PGSQL.5432' })).code, 'database_error')
  const missing = await readFile('/nonexistent/file').catch((error: unknown) => error)
  assert.equal(toAppError(missing).code, 'internal')
  const both = Object.assign(new AggregateError([new Error('a'), new Error('b')]), { code: 'ECONNREFUSED' })
  assert.equal(toAppError(both).code, 'database_error')
})

const database = (code: string) => Object.assign(new Error('secret detail'), { severity: 'ERROR', code })

test('what PostgreSQL says becomes a code, never its words', () => {
  for (const [state, code] of [
    ['08006', 'database_error'],
    ['53300', 'database_error'],
    ['57P01', 'database_error'],
    ['40P01', 'database_error'],
    ['23505', 'already_exists'],
    ['23503', 'conflict'],
    ['22P02', 'invalid_request'],
    ['22012', 'internal'],
    ['42601', 'internal'],
  ] as const) {
    const error = toAppError(database(state))
    assert.equal(error.code, code, state)
    assert.doesNotMatch(error.message, /secret/)
  }
  assert.equal(toAppError(database('40001')).retryAfterSeconds, 1)
})

test('a caller’s mistake that only the database caught is told apart, for the log', () => {
  assert.equal(slippedThrough(toAppError(database('22P02'))), true)
  assert.equal(slippedThrough(toAppError(database('08006'))), false)
  assert.equal(slippedThrough(new AppError('not_found', 'x')), false)
})

test('somebody else’s 4xx is not the caller’s', () => {
  assert.equal(toAppError(Object.assign(new Error('x'), { statusCode: 404 })).code, 'internal')
  const aborted = Object.assign(new Error('aborted'), { statusCode: 400, code: 'ECONNRESET' })
  assert.equal(toAppError(aborted).code, 'invalid_request')
  // Its code is a number.
  assert.equal(toAppError(new DOMException('aborted', 'AbortError')).code, 'internal')
})

test('no member but the documented ones can be replaced, and errors carry nothing else', () => {
  const errors = [{ field: '/a', message: 'm', secret: 1 } as { field: string; message: string }]
  const extra = { status: 200, code: 'x', position: 3 }
  const problem = toProblem(new AppError('invalid_expression', 'd', { errors, extra }), {
    path: '/p',
    requestId: 'r',
  })
  assert.deepEqual([problem.status, problem.code, problem.position], [400, 'invalid_expression', 3])
  assert.deepEqual(problem.errors, [{ field: '/a', message: 'm' }])
  assert.equal('number' in problem, false)
})
