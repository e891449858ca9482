import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseTraceParent } from './trace-context.ts'

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'
const SPAN = '00f067aa0ba902b7'

test('a valid traceparent tells trace, span and sampling', () => {
  assert.deepEqual(parseTraceParent(`00-${TRACE}-${SPAN}-01`), {
    traceId: TRACE,
    parentId: SPAN,
    sampled: true,
  })
  assert.equal(parseTraceParent(`00-${TRACE}-${SPAN}-02`)?.sampled, false)
})

test('a later version may carry more', () => {
  assert.equal(parseTraceParent(`cc-${TRACE}-${SPAN}-01-what-the-future-brings`)?.traceId, TRACE)
  assert.equal(parseTraceParent(`cc-${TRACE}-${SPAN}-01`)?.traceId, TRACE)
})

test('anything else is ignored', () => {
  for (const header of [
    undefined,
    '',
    [`00-${TRACE}-${SPAN}-01`, `00-${TRACE}-${SPAN}-01`],
    `ff-${TRACE}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-01-more`,
    `cc-${TRACE}-${SPAN}-01.more`,
    `00-${TRACE.toUpperCase()}-${SPAN}-01`,
    `00-${'0'.repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${'0'.repeat(16)}-01`,
    `00-${TRACE}-${SPAN}`,
    ` 00-${TRACE}-${SPAN}-01`,
    `00-${TRACE.slice(1)}-${SPAN}-01`,
  ]) {
    assert.equal(parseTraceParent(header), undefined, String(header))
  }
})
