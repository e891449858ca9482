/** The caller's place in a distributed trace. */
export interface TraceParent {
  /** 32 lower-case hex digits. */
  traceId: string
  /** The caller's span: 16 lower-case hex digits. */
  parentId: string
  sampled: boolean
}

// W3C Trace Context §3.2: https://www.w3.org/TR/trace-context/#traceparent-header
// Version ff is forbidden; a version above 00 may carry more after a dash, which we must not read.
const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/

/** What a `traceparent` header says; undefined when it is absent or invalid, since a bad one is to be ignored. */
export function parseTraceParent(header: string | string[] | undefined): TraceParent | undefined {
  if (typeof header !== 'string') return undefined
  const match = TRACEPARENT.exec(header)
  if (match === null) return undefined
  const [, version, traceId, parentId, flags, rest] = match
  if (version === '00' && rest !== undefined) return undefined
  if (/^0+$/.test(traceId!) || /^0+$/.test(parentId!)) return undefined
  return { traceId: traceId!, parentId: parentId!, sampled: (Number.parseInt(flags!, 16) & 1) === 1 }
}
