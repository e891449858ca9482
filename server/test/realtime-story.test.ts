import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import WebSocket from 'ws'
import { type Loose, eventually, testApp } from './app.ts'

const EVENTS = 200

/** From the moment a producer's request leaves to the moment an open socket shows it: measured and told, not judged. */
test('accepted events reach an open socket in order, each once', async context => {
  const t = await testApp()
  await t.call('PUT', '/api/users/alice', { as: t.tenant.adminKey, body: {} })
  const alice = await t.tenant.token('alice')
  const ws = new WebSocket(`${t.url.replace('http', 'ws')}/realtime`, 'carillon.v1', {
    headers: { authorization: `Bearer ${alice}` },
  })
  try {
    const arrived: { seq: number; id: string; at: number }[] = []
    let greeted = false
    ws.on('message', (text: Buffer) => {
      const { seq, data }: Loose = JSON.parse(text.toString('utf8'))
      greeted = true
      const id = data?.eventId ?? data?.item?.eventId
      if (id !== undefined) arrived.push({ seq, id, at: performance.now() })
    })
    await once(ws, 'open')
    await eventually('the greeting', () => greeted)

    const sent = new Map<string, number>()
    for (let n = 0; n < EVENTS; n++) {
      const at = performance.now()
      const answer = await t.call('POST', '/api/notifications', {
        as: t.tenant.serviceKey,
        body: { recipientId: 'alice', subject: `Number ${n}`, body: 'x' },
      })
      assert.equal(answer.status, 202, answer.text)
      sent.set(answer.body.eventId, at)
    }
    await eventually('all of them', () => arrived.length >= EVENTS)
    assert.deepEqual(
      arrived.map(one => one.id),
      [...sent.keys()],
    )
    for (const [n, one] of arrived.entries()) if (n > 0) assert.ok(one.seq > arrived[n - 1]!.seq)
    const took = arrived.map(({ id, at }) => at - sent.get(id)!).sort((a, b) => a - b)
    const ms = (share: number) => `${took[Math.floor(took.length * share)]!.toFixed(1)} ms`
    context.diagnostic(`request to socket: median ${ms(0.5)}, p95 ${ms(0.95)}, p99 ${ms(0.99)}`)
  } finally {
    ws.terminate()
    await t.stop()
  }
})
