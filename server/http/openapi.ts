import { hash } from 'node:crypto'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import { ERRORS, type ErrorCode } from '../errors.ts'
import type { Access, Api } from './api.ts'

type Operation = {
  operationId?: string
  description?: string
  requestBody?: unknown
  security?: object[]
  responses: Record<string, object>
  'x-access'?: Access
}
interface Document {
  paths: Record<string, Record<string, Operation>>
  components?: Record<string, Record<string, object>>
}

const METHODS = new Set(['get', 'put', 'post', 'delete', 'patch', 'head', 'options'])

/** What any operation may answer, by status; the codes behind each are those of the table of errors. */
const ALWAYS = [400, 404, 429, 500, 503]
const WITH_BODY = [413, 415]
const WITH_CREDENTIALS = [401, 403]
/** What depends on the thing itself: only operations that change something. */
const WITH_CHANGE = [409, 422]

/** Collects the routes as OpenAPI 3.1. To be called before any route is added; see `serveDocs`. */
export async function collectDocs(api: Api, version: string): Promise<void> {
  await api.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Carillon',
        version,
        description: 'Events in, the right notification out, durable and explained.',
      },
    },
    transform: ({ schema, url, route }) => ({
      url,
      schema: { ...schema, 'x-access': route.config?.access } as typeof schema,
    }),
  })
}

/**
 * Adds, in one place, what every operation has in common: who may call it, and the problems it may answer
 * (RFC 9457), so that no route has to repeat them.
 */
export function completeDocument<D extends Document>(source: D): D {
  const document = structuredClone(source)
  const components: Record<string, Record<string, object>> = (document.components ??= {})
  components.securitySchemes = {
    apiKey: { type: 'http', scheme: 'bearer', description: 'An API key, crl_…, as bearer token.' },
    apiKeyHeader: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
    token: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'A token of your issuer.' },
  }
  components.schemas = { ...components.schemas, Problem: PROBLEM_SCHEMA }
  components.responses = { ...components.responses, ...problemResponses() }

  for (const operations of Object.values(document.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      if (!METHODS.has(method)) continue
      const access = operation['x-access']
      const open = access === undefined || access.role === 'public'
      const changes = method !== 'get' && method !== 'head'
      operation.security = open ? [] : [{ apiKey: [] }, { apiKeyHeader: [] }, { token: [] }]
      if (!open) {
        const words = [`Role: ${access.role}.`, access.scope && `Scope: \`${access.scope}\`.`]
        if (access.operator) words.push("Operator's tenant only.")
        operation.description = [operation.description, words.filter(Boolean).join(' ')]
          .filter(Boolean)
          .join('\n\n')
      }
      const statuses = [
        ...ALWAYS,
        ...(open ? [] : WITH_CREDENTIALS),
        ...(operation.requestBody === undefined ? [] : WITH_BODY),
        ...(changes ? WITH_CHANGE : []),
      ]
      for (const status of statuses) {
        operation.responses[status] ??= { $ref: `#/components/responses/Problem${status}` }
      }
    }
  }
  return document
}

const PROBLEM_SCHEMA = {
  type: 'object',
  description: 'RFC 9457 problem details.',
  required: ['type', 'title', 'status', 'detail', 'instance', 'code', 'requestId'],
  properties: {
    type: { type: 'string', format: 'uri-reference', description: 'Where the code is explained.' },
    title: { type: 'string', description: 'The same for every occurrence of the code.' },
    status: { type: 'integer' },
    detail: { type: 'string', description: 'About this occurrence.' },
    instance: { type: 'string', format: 'uri-reference', description: 'The path that was asked for.' },
    code: { type: 'string', enum: Object.keys(ERRORS), description: 'Stable; decide by this.' },
    number: { type: 'integer', description: 'The documented number, for the codes that have one.' },
    errors: {
      type: 'array',
      items: {
        type: 'object',
        required: ['field', 'message'],
        properties: {
          field: { type: 'string', description: 'JSON pointer into the body, or the name of a parameter.' },
          message: { type: 'string' },
        },
      },
    },
    requestId: { type: 'string', format: 'uuid' },
  },
}

function problemResponses(): Record<string, object> {
  const byStatus = new Map<number, [ErrorCode, { title: string; numeric?: number }][]>()
  for (const [code, row] of Object.entries(ERRORS) as [ErrorCode, { status: number; title: string }][]) {
    byStatus.set(row.status, [...(byStatus.get(row.status) ?? []), [code, row]])
  }
  const retryAfter = { 'Retry-After': { description: 'Seconds to wait.', schema: { type: 'integer' } } }
  const headers: Record<number, object> = {
    401: { 'WWW-Authenticate': { schema: { type: 'string' } } },
    405: { Allow: { schema: { type: 'string' } } },
    409: retryAfter,
    429: retryAfter,
    503: retryAfter,
  }
  return Object.fromEntries(
    [...byStatus].map(([status, codes]) => [
      `Problem${status}`,
      {
        description: codes
          .map(([code, { title, numeric }]) => `\`${code}\`${numeric ? ` (${numeric})` : ''}: ${title}.`)
          .join('\n\n'),
        ...(headers[status] && { headers: headers[status] }),
        content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
      },
    ]),
  )
}

/** The document at `/docs/openapi.json`, a page to read and try it at `/docs`, the table of errors at `/docs/errors`. */
export async function serveDocs(api: Api): Promise<void> {
  const open = { access: { role: 'public' } } as const
  let document: string | undefined

  api.get('/docs/openapi.json', { config: open, schema: { hide: true } }, (_request, reply) => {
    document ??= JSON.stringify(completeDocument(api.swagger() as unknown as Document))
    reply.type('application/json; charset=utf-8').send(document)
  })
  const errorsPage = renderErrors()
  api.get('/docs/errors', { config: open, schema: { hide: true } }, (_request, reply) => {
    reply.type('text/html; charset=utf-8').header('content-security-policy', ERRORS_CSP).send(errorsPage)
  })
  await api.register(async scope => {
    // The plugin's routes know nothing of access; the page shows what is public anyway.
    scope.addHook('onRoute', route => {
      route.config = { ...route.config, ...open }
    })
    await scope.register(swaggerUi, {
      routePrefix: '/docs',
      uiConfig: { deepLinking: true, docExpansion: 'list', persistAuthorization: false },
      theme: {
        title: 'Carillon API',
        css: [{ filename: 'carillon.css', content: '.swagger-ui .topbar { display: none }' }],
      },
      transformSpecification: document => completeDocument(document as unknown as Document),
      staticCSP: {
        'default-src': ["'none'"],
        'connect-src': ["'self'"],
        // Swagger UI sets style attributes; scripts come from this server only.
        'style-src': ["'self'", "'unsafe-inline'"],
        'script-src': ["'self'"],
        'img-src': ["'self'", 'data:'],
        'font-src': ["'self'", 'data:'],
        'base-uri': ["'none'"],
        'form-action': ["'none'"],
        'frame-ancestors': ["'none'"],
      },
    })
  })
}

const ERRORS_STYLE =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}' +
  'td,th{text-align:left;padding:.3rem 1rem .3rem 0;vertical-align:top}tr:target{background:#ffefc2;color:#000}' +
  ':root{color-scheme:light dark}'
const ERRORS_CSP = `default-src 'none'; style-src 'sha256-${hash('sha256', ERRORS_STYLE, 'base64')}'; frame-ancestors 'none'; base-uri 'none'`

function renderErrors(): string {
  const rows = (Object.entries(ERRORS) as [ErrorCode, { status: number; title: string; numeric?: number }][])
    .map(
      ([code, { status, title, numeric }]) =>
        `<tr id="${code}"><td><code>${code}</code></td><td>${status}</td><td>${numeric ?? ''}</td><td>${title.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}.</td></tr>`,
    )
    .join('\n')
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Carillon: errors</title><style>${ERRORS_STYLE}</style></head>
<body><h1>Errors</h1>
<p>Every failed request answers <code>application/problem+json</code> (RFC 9457) with one of these codes.</p>
<table><thead><tr><th>Code</th><th>Status</th><th>Number</th><th>Meaning</th></tr></thead>
<tbody>
${rows}
</tbody></table></body></html>
`
}
