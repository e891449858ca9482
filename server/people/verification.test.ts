import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'
import {
  CODE_MINUTES,
  MAX_ATTEMPTS,
  RESEND_SECONDS,
  judgeCode,
  startVerification,
  typeCode,
} from './verification.ts'

let t: TestApp
before(async () => {
  t = await testApp()
})
after(() => t.stop())

async function person(userId: string): Promise<string> {
  const { body } = await t.call('PUT', `/api/users/${userId}`, {
    as: t.tenant.adminKey,
    body: { locale: 'pt-BR', addresses: [{ channel: 'email', address: `${userId}@example.org` }] },
  })
  return body.addresses[0].id
}

test('a person verifies an address with the code that was sent there, and is reached there from then on', async () => {
  const id = await person('vera')
  const vera = await t.tenant.token('vera')
  const path = `/api/users/vera/addresses/${id}/verification`
  const started = await t.call('POST', path, { as: vera })
  assert.equal(started.status, 202, started.text)
  assert.doesNotMatch(started.text, /\b\d{6}\b/)
  const mail = await eventually('the code', async () => {
    const { items } = (await t.call('GET', '/dev/mailbox.json')).body
    const found = items.find((one: Loose) => JSON.stringify(one.to).includes('vera@'))
    return found && (await t.call('GET', `/dev/mailbox.json/${found.id}`)).body
  })
  assert.equal(mail.subject, 'Seu código')
  const code = /\b\d{6}\b/.exec(mail.text)![0]

  const other = String((Number(code) + 1) % 1_000_000).padStart(6, '0')
  const wrong = await t.call('POST', `${path}/confirm`, { as: vera, body: { code: other } })
  assert.deepEqual([wrong.status, wrong.body.attemptsLeft], [400, MAX_ATTEMPTS - 1])
  const eve = await t.tenant.token('eve')
  assert.equal((await t.call('POST', `${path}/confirm`, { as: eve, body: { code } })).status, 403)
  const right = await t.call('POST', `${path}/confirm`, { as: vera, body: { code } })
  assert.deepEqual([right.status, right.body], [200, { verified: true }])
  assert.equal((await t.call('POST', path, { as: vera })).status, 409)

  const sent = await t.call('POST', '/api/notifications', {
    as: t.tenant.adminKey,
    body: { recipientId: 'vera', channels: ['email'], body: 'Welcome' },
  })
  assert.equal(sent.body.suppressed, 0)
})

test('codes expire, attempts are counted, and codes cannot be asked for at will', async () => {
  const id = await person('otto')
  const now = new Date('2030-01-01T12:00:00Z')
  const later = (seconds: number) => new Date(now.getTime() + seconds * 1000)
  const start = (at: Date) => t.db.tx(tx => startVerification(tx, t.tenant.id, 'otto', id, at))
  const confirm = (code: string, at: Date) =>
    t.db.tx(async tx => {
      const typed = await typeCode(tx, t.tenant.id, 'otto', id, code, at)
      if ('verified' in typed) return typed
      return judgeCode(tx, t.tenant.id, 'otto', id, typed, typed.ours ? 'right' : 'wrong', at)
    })
  const first = await start(now)
  await assert.rejects(start(later(RESEND_SECONDS - 1)), { code: 'rate_limited' })
  assert.deepEqual(await confirm(first.code, later(CODE_MINUTES * 60)), {
    verified: false,
    why: 'expired',
    left: 0,
  })

  const second = await start(later(600))
  const wrong = second.code === '000000' ? '111111' : '000000'
  for (let left = MAX_ATTEMPTS - 1; left >= 0; left--) {
    assert.deepEqual(await confirm(wrong, later(601)), { verified: false, why: 'wrong', left })
  }
  assert.deepEqual(await confirm(second.code, later(602)), { verified: false, why: 'spent', left: 0 })

  for (const at of [700, 800, 900]) await start(later(at))
  await assert.rejects(start(later(1000)), { code: 'rate_limited' })
  const last = await start(later(3601))
  assert.deepEqual(await confirm(last.code, later(3602)), { verified: true })
  const stored = await t.db.pool.query(
    'select count(*)::int as n from address_verifications where address_id = $1',
    [id],
  )
  assert.equal(stored.rows[0].n, 0)
})

test('an attempt counts before anybody is asked, and not where nobody could say; a verdict is about its own code', async () => {
  const id = await person('uma')
  const at = new Date('2030-01-01T12:00:00Z')
  const later = new Date(at.getTime() + 40_000)
  const tx = <T>(work: Parameters<typeof t.db.tx<T>>[0]) => t.db.tx(work)
  const start = (now: Date) => tx(q => startVerification(q, t.tenant.id, 'uma', id, now))
  const type = async (code: string) => {
    const typed = await tx(q => typeCode(q, t.tenant.id, 'uma', id, code, later))
    assert.ok(!('verified' in typed))
    return typed
  }
  const judge = (typed: Parameters<typeof judgeCode>[4], verdict: Parameters<typeof judgeCode>[5]) =>
    tx(q => judgeCode(q, t.tenant.id, 'uma', id, typed, verdict, later))
  await start(at)
  // Five at once: each has its own attempt, and a sixth has none.
  const typed = await Promise.all(Array.from({ length: MAX_ATTEMPTS }, () => type('0000')))
  assert.deepEqual(new Set(typed.map(({ left }) => left)), new Set([0, 1, 2, 3, 4]))
  const spent = await tx(q => typeCode(q, t.tenant.id, 'uma', id, '0000', later))
  assert.deepEqual(spent, { verified: false, why: 'spent', left: 0 })
  await judge(typed[0]!, undefined)
  const again = await type('0000')
  assert.equal(again.left, 0)

  // Another code was sent while the vendor thought about the first one.
  await start(later)
  assert.deepEqual(await judge(again, 'right'), { verified: false, why: 'expired', left: 0 })
  const fresh = await type('0000')
  assert.deepEqual(await judge(fresh, 'spent'), { verified: false, why: 'spent', left: 0 })
  assert.deepEqual(await tx(q => typeCode(q, t.tenant.id, 'uma', id, '0000', later)), {
    verified: false,
    why: 'spent',
    left: 0,
  })
  assert.deepEqual(await judge(fresh, 'right'), { verified: true })
})
