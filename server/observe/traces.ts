import type { Attributes, Span as SdkSpan } from '@opentelemetry/api'
import type { Id } from '../types.ts'

export interface Traces {
  /** False: every span is an empty one and costs a call. Ask before computing attributes. */
  readonly enabled: boolean
  startSpan(name: string, options?: SpanOptions): Span
  /** Sends what waits; to be called when the process stops. */
  close(): Promise<void>
}

export interface SpanOptions {
  /** The trace to continue: the caller's, or the one kept on the row. Absent: a new one. */
  traceId?: string | null
  /** The span this one is part of: the caller's, or `eventSpanId` of the event. */
  parentSpanId?: string
  /** Whether the caller records its trace. Absent: decided by the trace id, the same in every process. */
  sampled?: boolean
  /** This span's own id, so that others can name it as their parent later. Absent: random. */
  spanId?: string
  kind?: 'internal' | 'server' | 'client' | 'producer' | 'consumer'
  /** Ids, counts, names. Never content or addresses. */
  attributes?: Attributes
  startedAt?: Date
}

export interface Span {
  /** To be kept on the rows. Undefined when traces are off and nobody named a trace. */
  readonly traceId: string | undefined
  readonly spanId: string | undefined
  readonly sampled: boolean
  /** The header that hands the trace on (W3C Trace Context); undefined without a trace. */
  readonly traceparent: string | undefined
  set(attributes: Attributes): void
  /** Marks it as failed. `code` is a stable code, never a message that could hold content. */
  fail(code: string): void
  end(at?: Date): void
}

export interface TraceOptions {
  /** Address of an OpenTelemetry collector; undefined: no traces, and the SDK is not even loaded. */
  endpoint: string | undefined
  headers?: Readonly<Record<string, string>>
  serviceName?: string
  serviceVersion?: string
  /** Share of the traces begun here that are recorded. Default 1. */
  sampleRatio?: number
  /** Called with how many spans the collector did not take. */
  onDropped?: (spans: number) => void
}

/**
 * The spans of an event have ids that follow from the event's own, so that a delivery minutes later, in another
 * process, names its parent without anything but the trace id and the event id having been stored.
 *
 * A uuidv7's last 8 bytes are 62 random bits and the variant, hence never zero, which would be no span.
 */
export const eventSpanId = (eventId: Id): string => eventId.slice(19).replace('-', '').toLowerCase()

/** The span of planning an event: parent of its deliveries. */
export function planSpanId(eventId: Id): string {
  const id = eventSpanId(eventId)
  return id.slice(0, -1) + (Number.parseInt(id.slice(-1), 16) ^ 1).toString(16)
}

/** W3C Trace Context §3.2, version 00: https://www.w3.org/TR/trace-context/#traceparent-header */
export const traceparent = (traceId: string, spanId: string, sampled: boolean): string =>
  `00-${traceId}-${spanId}-0${sampled ? 1 : 0}`

/** Without an endpoint nothing is loaded and a span only passes on the trace it was given. */
export async function openTraces(options: TraceOptions): Promise<Traces> {
  return options.endpoint === undefined ? silent : load({ ...options, endpoint: options.endpoint })
}

const silent: Traces = {
  enabled: false,
  startSpan: (_name, { traceId, parentSpanId, sampled = false } = {}) =>
    traceId == null ? NOTHING : passing(traceId, parentSpanId, sampled),
  close: async () => {},
}

const NOTHING: Span = Object.freeze({
  traceId: undefined,
  spanId: undefined,
  sampled: false,
  traceparent: undefined,
  set() {},
  fail() {},
  end() {},
})

const passing = (traceId: string, spanId: string | undefined, sampled: boolean): Span => ({
  ...NOTHING,
  traceId,
  spanId,
  sampled,
  traceparent: spanId === undefined ? undefined : traceparent(traceId, spanId, sampled),
})

// What a collector that is away may cost: 8,192 spans of memory, then they are dropped.
const QUEUE = 8192
const BATCH = 512
const DELAY_MS = 1000
const EXPORT_MS = 3000
const CLOSE_MS = 2000

async function load(options: TraceOptions & { endpoint: string }): Promise<Traces> {
  const [api, sdk, { OTLPTraceExporter }, { resourceFromAttributes }] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-trace'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
  ])
  const { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace, TraceFlags } = api

  // The SDK asks for ids and for a decision while it starts a span, in one go; these three answer for that span.
  let wanted: SpanOptions = {}
  const random = new sdk.RandomIdGenerator()
  const byRatio = new sdk.TraceIdRatioBasedSampler(options.sampleRatio ?? 1)
  const exporter = new OTLPTraceExporter({
    url: `${options.endpoint.replace(/\/+$/, '')}/v1/traces`,
    headers: { ...options.headers },
    timeoutMillis: EXPORT_MS,
  })
  const provider = new sdk.TracerProvider({
    resource: resourceFromAttributes({
      'service.name': options.serviceName ?? 'carillon',
      'service.version': options.serviceVersion,
      'process.pid': process.pid,
    }),
    idGenerator: {
      generateSpanId: () => wanted.spanId ?? random.generateSpanId(),
      generateTraceId: () => wanted.traceId ?? random.generateTraceId(),
    },
    sampler: {
      shouldSample(context, traceId) {
        if (wanted.sampled === undefined) return byRatio.shouldSample(context, traceId)
        const { RECORD_AND_SAMPLED, NOT_RECORD } = sdk.SamplingDecision
        return { decision: wanted.sampled ? RECORD_AND_SAMPLED : NOT_RECORD }
      },
    },
    spanProcessors: [
      new sdk.BatchSpanProcessor({
        exporter: {
          export: (spans, done) =>
            exporter.export(spans, result => {
              if (result.code !== 0) options.onDropped?.(spans.length)
              done(result)
            }),
          shutdown: () => exporter.shutdown(),
          forceFlush: () => exporter.forceFlush(),
        },
        maxQueueSize: QUEUE,
        maxExportBatchSize: BATCH,
        scheduledDelayMillis: DELAY_MS,
        exportTimeoutMillis: EXPORT_MS,
      }),
    ],
  })
  const tracer = provider.getTracer('carillon', options.serviceVersion)

  const kinds = {
    internal: SpanKind.INTERNAL,
    server: SpanKind.SERVER,
    client: SpanKind.CLIENT,
    producer: SpanKind.PRODUCER,
    consumer: SpanKind.CONSUMER,
  }

  const wrap = (span: SdkSpan): Span => {
    const { traceId, spanId, traceFlags } = span.spanContext()
    const sampled = (traceFlags & TraceFlags.SAMPLED) !== 0
    return {
      traceId,
      spanId,
      sampled,
      traceparent: traceparent(traceId, spanId, sampled),
      set: attributes => void span.setAttributes(attributes),
      fail: code => void span.setStatus({ code: SpanStatusCode.ERROR, message: code }),
      end: at => span.end(at),
    }
  }

  return {
    enabled: true,
    startSpan(name, spanOptions = {}) {
      const { traceId, parentSpanId, sampled, kind = 'internal', attributes, startedAt } = spanOptions
      // Without a parent the trace id goes in through the id generator: it is then the first span of its trace.
      const context =
        traceId == null || parentSpanId === undefined
          ? ROOT_CONTEXT
          : trace.setSpanContext(ROOT_CONTEXT, {
              traceId,
              spanId: parentSpanId,
              traceFlags: sampled === false ? TraceFlags.NONE : TraceFlags.SAMPLED,
              isRemote: true,
            })
      wanted = spanOptions
      try {
        return wrap(tracer.startSpan(name, { kind: kinds[kind], attributes, startTime: startedAt }, context))
      } finally {
        wanted = {}
      }
    },
    // The exporter tries a collector that is away again and again; that must not keep a process from stopping.
    async close() {
      const { promise: late, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, CLOSE_MS)
      await Promise.race([provider.shutdown().catch(() => {}), late])
      clearTimeout(timer)
    },
  }
}
