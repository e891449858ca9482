import { Type } from 'typebox'
import type { Access, Api } from '../http/api.ts'
import type { Metrics } from './metrics.ts'
import type { Readiness } from './ready.ts'

export interface ObserveDeps {
  metrics: Metrics
  /** `readiness(standardChecks(…))` of ready.ts. */
  ready: () => Promise<Readiness>
  version: string
  /** Serve /metrics to whoever reaches this server: see `metricsArePublic`. */
  metricsPublic: boolean
}

/**
 * Metrics name providers, rules' counts and rates, but no people and no content. They are open where only this
 * machine can ask, or where the operator said so; elsewhere Prometheus sends an operator's key as bearer token.
 * The address of a caller is not asked: behind a proxy on the same machine everybody comes from 127.0.0.1.
 */
export const metricsArePublic = (http: { metricsPublic: boolean; host: string }): boolean =>
  http.metricsPublic || /^(127\.\d+\.\d+\.\d+|::1|localhost)$/.test(http.host)

const Health = Type.Object({ status: Type.Literal('ok'), version: Type.String() })
const Ready = Type.Object({
  status: Type.Enum(['ready', 'not_ready']),
  checks: Type.Record(Type.String(), Type.String(), { description: '`ok`, or what is wrong.' }),
})
const NoQuery = Type.Object({}, { additionalProperties: false })
const OPEN: Access = { role: 'public' }
const OPERATOR: Access = { role: 'admin', scope: 'admin:read', operator: true }

/** Health, readiness and metrics, for orchestrators, load balancers and Prometheus. */
export function observeRoutes(api: Api, deps: ObserveDeps): void {
  const { metrics, ready, version } = deps

  api.get(
    '/healthz',
    {
      config: { access: OPEN, limit: false },
      schema: {
        tags: ['Operation'],
        operationId: 'getHealth',
        summary: 'Whether the process lives',
        description: 'Asks nothing of the database: restarting this process would not mend that.',
        querystring: NoQuery,
        response: { 200: Health },
      },
    },
    async (_request, reply) => {
      reply.header('cache-control', 'no-store')
      return { status: 'ok' as const, version }
    },
  )

  api.get(
    '/readyz',
    {
      config: { access: OPEN, limit: false },
      schema: {
        tags: ['Operation'],
        operationId: 'getReadiness',
        summary: 'Whether the process can take work',
        description:
          'Database, migrations, partitions, and not stopping. 503 with the same body when it cannot.',
        querystring: NoQuery,
        response: { 200: Ready, 503: Ready },
      },
    },
    async (_request, reply) => {
      const answer = await ready()
      reply.header('cache-control', 'no-store')
      // A probe's "no" is an answer, not an error: it would fill the log at every probe.
      reply.code(answer.ready ? 200 : 503)
      return { status: answer.ready ? ('ready' as const) : ('not_ready' as const), checks: answer.checks }
    },
  )

  api.get(
    '/metrics',
    {
      config: deps.metricsPublic ? { access: OPEN, limit: false } : { access: OPERATOR },
      schema: {
        tags: ['Operation'],
        operationId: 'getMetrics',
        summary: 'Metrics in the Prometheus text format',
        description:
          "Open on a server of this machine alone or by CARILLON_METRICS_PUBLIC; else for operators' keys.",
        querystring: NoQuery,
        response: { 200: { content: { 'text/plain': { schema: Type.String() } } } },
      },
    },
    async (_request, reply) => {
      reply.header('cache-control', 'no-store').type(metrics.contentType)
      return metrics.text()
    },
  )

  // Streams and long polls are counted as connections instead: their duration says nothing.
  api.addHook('onResponse', async (request, reply) => {
    const { url, config } = request.routeOptions
    if (url === undefined || config.access?.queryToken === true) return
    metrics.request(request.method, url, reply.statusCode, reply.elapsedTime / 1000)
  })
}
