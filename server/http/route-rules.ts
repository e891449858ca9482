import type { Api } from './api.ts'

/**
 * What every route promises, checked over a finished server, so that no module can forget it: who may call it,
 * a place in the docs, and a bound on everything it takes in. Returns one sentence for each broken promise.
 */
export function brokenRouteRules(api: Api): string[] {
  const found: string[] = []
  const operationIds = new Map<string, string>()
  for (const route of api.allRoutes) {
    // Made by the framework from its GET, with the same settings.
    if (route.method === 'HEAD') continue
    const name = `${String(route.method)} ${route.url}`
    const say = (problem: string) => found.push(`${name}: ${problem}`)
    const access = route.config?.access
    if (access === undefined) say('no access')
    else if ((access.role === 'service' || access.role === 'admin') && access.scope === undefined) {
      say('no scope, though keys may call it')
    } else if (access.queryToken === true && route.method !== 'GET') say('queryToken, but not a GET')

    const schema = route.schema as Schema | undefined
    if (schema?.hide === true) continue
    if (!schema?.tags?.length) say('no tags')
    if (!schema?.summary) say('no summary')
    if (!schema?.operationId) say('no operationId')
    else if (operationIds.has(schema.operationId)) {
      say(`operationId ${schema.operationId} is also that of ${operationIds.get(schema.operationId)}`)
    } else operationIds.set(schema.operationId, name)

    if (!Object.keys(schema?.response ?? {}).some(status => status.startsWith('2'))) say('no 2xx response')
    const named = route.url.match(/:[A-Za-z]+/g) ?? []
    for (const param of named) {
      if (schema?.params?.properties?.[param.slice(1)] === undefined) say(`no schema of ${param}`)
    }
    for (const part of ['params', 'querystring', 'body'] as const) {
      if (schema?.[part] !== undefined) for (const problem of unbounded(schema[part], part)) say(problem)
    }
    const changes = route.method === 'PUT' || route.method === 'PATCH'
    if (changes && schema?.body === undefined && route.config?.rawBody !== true) say('no schema of its body')
    if (schema?.querystring === undefined && route.method === 'GET' && named.length === 0) {
      say('no schema of its query')
    }
  }
  return found
}

interface Schema extends JsonSchema {
  hide?: boolean
  tags?: string[]
  summary?: string
  operationId?: string
  params?: JsonSchema
  querystring?: JsonSchema
  body?: JsonSchema
  response?: object
}

interface JsonSchema {
  type?: string | string[]
  properties?: Record<string, JsonSchema>
  patternProperties?: Record<string, JsonSchema>
  additionalProperties?: boolean | JsonSchema
  unevaluatedProperties?: boolean | JsonSchema
  maxProperties?: number
  items?: JsonSchema
  maxItems?: number
  maxLength?: number
  pattern?: string
  format?: string
  enum?: unknown[]
  const?: unknown
  anyOf?: JsonSchema[]
  allOf?: JsonSchema[]
  oneOf?: JsonSchema[]
}

function unbounded(schema: JsonSchema, path: string): string[] {
  const found: string[] = []
  const inside = (part: JsonSchema, name: string) => found.push(...unbounded(part, `${path}/${name}`))
  if (schema.const !== undefined || schema.enum !== undefined) return found
  if (schema.type === 'string') {
    const bounded =
      schema.maxLength !== undefined || schema.format !== undefined || schema.pattern?.endsWith('$') === true
    if (!bounded) found.push(`${path} is a text without maxLength`)
  }
  if (schema.type === 'array') {
    if (schema.maxItems === undefined) found.push(`${path} is a list without maxItems`)
    if (schema.items !== undefined) inside(schema.items, '*')
  }
  if (schema.properties !== undefined) {
    if (schema.additionalProperties === undefined && schema.unevaluatedProperties === undefined) {
      found.push(`${path} takes unknown fields`)
    }
    for (const [name, part] of Object.entries(schema.properties)) inside(part, name)
  }
  for (const part of Object.values(schema.patternProperties ?? {})) inside(part, '*')
  if (typeof schema.additionalProperties === 'object') inside(schema.additionalProperties, '*')
  for (const parts of [schema.anyOf, schema.allOf, schema.oneOf]) {
    for (const [i, part] of (parts ?? []).entries()) inside(part, String(i))
  }
  return found
}
