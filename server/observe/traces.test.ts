import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { eventSpanId, openTraces, planSpanId, traceparent } from './traces.ts'

interface Exported {
  name: string
  traceId: string
  spanId: string
  parentSpanId?: string
  kind: number
  attributes: { key: string; value: { stringValue?: string; intValue?: number } }[]
  status: { code?: number; message?: string }
}

/** A collector: takes OTLP over HTTP with JSON and keeps the spans. */
async function collector(t: TestContext, status = 200) {
  const spans: Exported[] = []
  const requests: { url: string | undefined; headers: NodeJS.Dict<string | string[]>; service: unknown }[] =
    []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', chunk => (body += chunk))
    request.on('end', () => {
      const { resourceSpans } = JSON.parse(body) as {
        resourceSpans: {
          resource: { attributes: Exported['attributes'] }
          scopeSpans: { spans: Exported[] }[]
        }[]
      }
      for (const { resource, scopeSpans } of resourceSpans) {
        const service = resource.attributes.find(one => one.key === 'service.name')?.value.stringValue
        requests.push({ url: request.url, headers: request.headers, service })
        for (const scope of scopeSpans) spans.push(...scope.spans)
      }
      response.writeHead(status, { 'content-type': 'application/json' }).end('{}')
    })
  })
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  t.after(() => server.close())
  return { endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, spans, requests }
}

const CALLER = { traceId: '0af7651916cd43dd8448eb211c80319c', parentId: 'b7ad6b7169203331' }

// covers: DIC-204, PFM-268
test('event, plan and delivery are one trace, also when another process delivers later', async t => {
  const { endpoint, spans, requests } = await collector(t)
  const eventId = newId()

  const accepting = await openTraces({ endpoint, headers: { 'x-api-key': 'k' }, serviceName: 'bells' })
  const event = accepting.startSpan('event', {
    traceId: CALLER.traceId,
    parentSpanId: CALLER.parentId,
    sampled: true,
    spanId: eventSpanId(eventId),
    kind: 'server',
    attributes: { 'carillon.tenant': 7 },
  })
  const plan = accepting.startSpan('plan', {
    traceId: event.traceId,
    parentSpanId: event.spanId,
    spanId: planSpanId(eventId),
  })
  plan.end()
  event.end()
  await accepting.close()

  // All that the row keeps.
  const row = { traceId: event.traceId, eventId }
  const delivering = await openTraces({ endpoint })
  const delivery = delivering.startSpan('delivery', {
    traceId: row.traceId,
    parentSpanId: planSpanId(row.eventId),
    kind: 'client',
  })
  delivery.set({ 'carillon.channel': 'email' })
  delivery.fail('timeout')
  delivery.end()
  await delivering.close()

  const [one, two, three] = ['event', 'plan', 'delivery'].map(name => spans.find(span => span.name === name)!)
  assert.equal(spans.length, 3)
  for (const span of spans) assert.equal(span.traceId, CALLER.traceId)
  assert.equal(one!.parentSpanId, CALLER.parentId)
  assert.equal(two!.parentSpanId, one!.spanId)
  assert.equal(three!.parentSpanId, two!.spanId)
  assert.equal(three!.status.message, 'timeout')
  assert.deepEqual(three!.attributes, [{ key: 'carillon.channel', value: { stringValue: 'email' } }])
  assert.equal(delivery.traceparent, `00-${CALLER.traceId}-${three!.spanId}-01`)
  assert.equal(requests[0]!.url, '/v1/traces')
  assert.equal(requests[0]!.headers['x-api-key'], 'k')
  assert.equal(requests[0]!.service, 'bells')
})

test('a new trace has no parent, and a kept trace id without a parent span is continued', async t => {
  const { endpoint, spans } = await collector(t)
  const traces = await openTraces({ endpoint })
  const fresh = traces.startSpan('fresh')
  fresh.end()
  traces.startSpan('kept', { traceId: CALLER.traceId }).end()
  await traces.close()
  const byName = (name: string) => spans.find(span => span.name === name)!
  assert.match(fresh.traceId!, /^(?!0+$)[0-9a-f]{32}$/)
  assert.equal(byName('fresh').traceId, fresh.traceId)
  assert.ok(!byName('fresh').parentSpanId)
  assert.equal(byName('kept').traceId, CALLER.traceId)
  assert.ok(!byName('kept').parentSpanId)
})

test('what the caller does not record is not recorded; by ratio, every process decides alike', async t => {
  const { endpoint, spans } = await collector(t)
  const [one, two] = [
    await openTraces({ endpoint, sampleRatio: 0.5 }),
    await openTraces({ endpoint, sampleRatio: 0.5 }),
  ]
  one.startSpan('refused', { traceId: CALLER.traceId, parentSpanId: CALLER.parentId, sampled: false }).end()
  one.startSpan('followed', { traceId: 'f'.repeat(32), parentSpanId: CALLER.parentId, sampled: true }).end()
  let recorded = 0
  for (let i = 0; i < 400; i++) {
    const begun = one.startSpan('begun')
    const later = two.startSpan('later', { traceId: begun.traceId, parentSpanId: begun.spanId })
    assert.equal(later.sampled, begun.sampled)
    if (begun.sampled) recorded++
    begun.end()
    later.end()
  }
  await Promise.all([one.close(), two.close()])
  assert.ok(recorded > 100 && recorded < 300, String(recorded))
  assert.deepEqual(
    [spans.filter(s => s.name === 'refused').length, spans.filter(s => s.name === 'followed').length],
    [0, 1],
  )
  assert.equal(spans.filter(s => s.name === 'later').length, recorded)
})

test('spans that the collector refuses are counted', async t => {
  const { endpoint } = await collector(t, 400)
  let dropped = 0
  const traces = await openTraces({ endpoint, onDropped: spans => void (dropped += spans) })
  traces.startSpan('lost').end()
  traces.startSpan('lost').end()
  await traces.close()
  assert.equal(dropped, 2)
})

test('a collector that never answers does not keep the process', async t => {
  const server = createServer(() => {})
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const traces = await openTraces({ endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })
  traces.startSpan('lost').end()
  const asked = new Promise(done => server.once('request', done))
  await Promise.all([asked, traces.close()])
})

test('without an endpoint a span passes on the trace it was given, and the SDK is never loaded', async () => {
  const traces = await openTraces({ endpoint: undefined })
  assert.equal(traces.enabled, false)
  assert.equal(traces.startSpan('event').traceId, undefined)
  const span = traces.startSpan('event', {
    traceId: CALLER.traceId,
    parentSpanId: CALLER.parentId,
    sampled: true,
  })
  assert.equal(span.traceId, CALLER.traceId)
  assert.equal(span.traceparent, `00-${CALLER.traceId}-${CALLER.parentId}-01`)
  span.set({ a: 1 })
  span.fail('timeout')
  span.end()
  await traces.close()

  const script = `
    import { registerHooks } from 'node:module'
    registerHooks({ resolve(name, context, next) {
      if (name.startsWith('@opentelemetry/')) console.log('loaded', name)
      return next(name, context)
    } })
    const { openTraces } = await import(${JSON.stringify(import.meta.resolve('./traces.ts'))})
    const traces = await openTraces({ endpoint: process.env.COLLECTOR })
    await traces.close()`
  const run = async (env: NodeJS.ProcessEnv) =>
    (await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { env })).stdout
  assert.equal(await run({}), '')
  assert.match(await run({ COLLECTOR: 'http://127.0.0.1:9' }), /loaded @opentelemetry\/sdk-trace/)
})

test('span ids made from event ids are valid, different, and always the same', () => {
  fc.assert(
    fc.property(fc.uuid({ version: 7 }), id => {
      for (const spanId of [eventSpanId(id), planSpanId(id)]) assert.match(spanId, /^(?!0+$)[0-9a-f]{16}$/)
      assert.notEqual(eventSpanId(id), planSpanId(id))
      assert.equal(eventSpanId(id), eventSpanId(id.toUpperCase()))
    }),
  )
  assert.equal(
    traceparent('a'.repeat(32), 'b'.repeat(16), false),
    `00-${'a'.repeat(32)}-${'b'.repeat(16)}-00`,
  )
})
