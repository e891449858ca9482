import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { inspect } from 'node:util'
import fc from 'fast-check'
import {
  asDeliveryError,
  DELIVERY_CODES,
  DeliveryError,
  fit,
  judge,
  makeSecret,
  permanent,
  rateLimited,
  retryAfter,
  temporary,
  unknown,
} from './provider.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')

test('Retry-After: seconds and the three date forms (RFC 9110 §10.2.3)', () => {
  const at = (value: string | string[] | undefined) => retryAfter(value, NOW)?.toISOString()
  assert.equal(at('120'), '2026-11-21T12:02:00.000Z')
  assert.equal(at(' 0 '), '2026-11-21T12:00:00.000Z')
  assert.equal(at(['5', '10']), '2026-11-21T12:00:05.000Z')
  assert.equal(at('Sat, 21 Nov 2026 12:30:00 GMT'), '2026-11-21T12:30:00.000Z')
  assert.equal(at('Saturday, 21-Nov-26 12:30:00 GMT'), '2026-11-21T12:30:00.000Z')
  assert.equal(at('Sat Nov 21 12:30:00 2026'), '2026-11-21T12:30:00.000Z')
  assert.equal(at('Sun, 06 Nov 1994 08:49:37 GMT'), NOW.toISOString(), 'the past is now')
  assert.equal(at('99999999999999999999'), '2026-11-22T12:00:00.000Z', 'a day at most')
  for (const none of [
    undefined,
    '',
    'soon',
    '-1',
    '1.5',
    '12 apples',
    '2026-11-21',
    'Sat, 99 Xxx 2026 12:30:00 GMT',
  ]) {
    assert.equal(at(none), undefined, none)
  }
})

test('Retry-After is never in the past nor further than a day, whatever is sent', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.nat().map(String),
        fc.date({ noInvalidDate: true }).map(d => d.toUTCString()),
      ),
      text => {
        const until = retryAfter(text, NOW)
        assert.ok(until === undefined || (until >= NOW && until.getTime() - NOW.getTime() <= 86_400_000))
      },
    ),
  )
})

// covers: PFM-182, PFM-186
test('a status is judged the same for every vendor', () => {
  const verdict = (status: number, headers = {}) => {
    const error = judge(status, headers, NOW)
    return error === undefined ? 'taken' : `${error.kind} ${error.code}`
  }
  const later = { 'retry-after': '7' }
  assert.deepEqual(
    [200, 201, 202, 204, 299].map(status => verdict(status)),
    Array(5).fill('taken'),
  )
  for (const status of [301, 302, 307, 308]) assert.equal(verdict(status), 'permanent redirect_refused')
  for (const status of [408, 425, 429, 503]) assert.equal(verdict(status, later), 'rate_limited rate_limited')
  assert.equal(verdict(429), 'temporary rate_limited')
  for (const status of [408, 425, 503]) assert.equal(verdict(status), 'temporary unavailable')
  for (const status of [500, 501, 502, 504, 599])
    assert.equal(verdict(status, later), 'temporary server_error')
  for (const status of [404, 410]) assert.equal(verdict(status), 'permanent gone')
  for (const status of [400, 402, 405, 409, 422, 451]) assert.equal(verdict(status), 'permanent refused')
  assert.equal(verdict(401), 'temporary auth')
  assert.equal(verdict(403), 'permanent forbidden')
  assert.equal(verdict(413), 'permanent too_large')
  assert.equal(judge(429, later, NOW)?.until?.getTime(), NOW.getTime() + 7_000)
})

// covers: PFM-198
test('errors say what the loop needs to know', () => {
  assert.deepEqual(
    [
      permanent('gone'),
      rateLimited(NOW),
      unknown(),
      temporary('server_error'),
      temporary('busy'),
      unknown('aborted'),
    ].map(error => [error.final, error.blamesLane]),
    [
      [true, false],
      [false, false],
      [false, true],
      [false, true],
      [false, false],
      [false, false],
    ],
  )
  const foreseen = permanent('gone')
  assert.equal(asDeliveryError(foreseen), foreseen)
  const surprise = asDeliveryError(new TypeError('oops'))
  assert.ok(surprise instanceof DeliveryError)
  assert.deepEqual(
    [surprise.kind, surprise.code, surprise.message],
    ['temporary', 'unexpected', DELIVERY_CODES.unexpected],
  )
})

test('a secret shows only when it is asked for', () => {
  const secret = makeSecret('hunter2')
  assert.equal(secret.reveal(), 'hunter2')
  for (const shown of [
    String(secret),
    `${secret}`,
    JSON.stringify({ secret }),
    inspect({ secret }, { depth: 9, showHidden: true }),
  ]) {
    assert.ok(!shown.includes('hunter2') && shown.includes('<secret>'), shown)
  }
})

test('text is cut between characters as people see them', () => {
  assert.equal(fit('abc', 3), 'abc')
  assert.equal(fit('abcd', 3), 'ab…')
  assert.equal(fit('ab👩‍👩‍👧‍👦cd', 6), 'ab…')
  assert.equal(fit('abcd', 0), '')
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.integer({ min: 1, max: 40 }), (text, max) => {
      const cut = fit(text, max)
      assert.ok(cut.length <= max)
      assert.ok(cut.isWellFormed())
      assert.ok(cut === text || (cut.endsWith('…') && text.startsWith(cut.slice(0, -1))))
    }),
  )
})

test('the page of delivery codes lists the same codes with the same words', () => {
  const page = readFileSync(new URL('../../docs/reference/delivery-codes.md', import.meta.url), 'utf8')
  const table = page.slice(page.indexOf('| code | meaning |'))
  const rows = [...table.matchAll(/^\| `(\w+)` \| (.+) \|$/gm)].map(([, code, meaning]) => [code, meaning])
  assert.deepEqual(rows, Object.entries(DELIVERY_CODES))
})
