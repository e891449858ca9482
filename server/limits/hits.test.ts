import assert from 'node:assert/strict'
import { test } from 'node:test'
import { limitHits } from './hits.ts'
import type { LimitHit } from './hits.ts'

const hit = (key: string, more: Partial<LimitHit> = {}): LimitHit => ({
  tenantId: 1,
  userId: 'ann',
  channel: 'email',
  over: { key, label: 'email 2/hour', windowMs: 0, max: 2, used: 2, suspicious: false },
  ...more,
})

// covers: PFM-142, DIC-096
test('the first hit of a counter and channel is a line, and a flood of them one a minute', () => {
  const lines: Record<string, unknown>[] = []
  const hits = limitHits(about => lines.push(about))
  for (let second = 0; second < 60; second++) hits(hit('a'), second * 1_000)
  hits(hit('b'), 30_000)
  hits(hit('a', { channel: 'sms' }), 30_000)
  hits(hit('a', { tenantId: 2 }), 30_000)
  hits(hit('a'), 60_000)
  const line = { tenantId: 1, userId: 'ann', channel: 'email', limit: 'email 2/hour', used: 2, before: 0 }
  assert.deepEqual(lines, [
    line,
    line,
    { ...line, channel: 'sms' },
    { ...line, tenantId: 2 },
    { ...line, before: 59 },
  ])
})

test('what is remembered of counters is bounded', () => {
  let lines = 0
  const hits = limitHits(() => lines++)
  for (let i = 0; i < 1_000; i++) hits(hit(String(i)), 0)
  hits(hit('0'), 0)
  assert.equal(lines, 1_000)
  hits(hit('one more'), 0)
  hits(hit('0'), 0)
  assert.equal(lines, 1_002, 'all forgotten to make room')
})
