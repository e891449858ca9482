/**
 * The types of the console's calls, from the routes' own schemas: `node scripts/console-types.ts` writes
 * console/src/api/schema.ts, and a test compares. So the console knows what the server takes and answers without
 * importing anything of it.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { assetRoutes } from '../server/assets/routes.ts'
import { buildServer } from '../server/http/server.ts'
import { ingestRoutes } from '../server/ingest/routes.ts'
import { previewRoutes } from '../server/render/preview-routes.ts'
import { templateRoutes } from '../server/render/routes.ts'

export const SCHEMA = join(import.meta.dirname, '..', 'console', 'src', 'api', 'schema.ts')

/** What the console calls. */
const OPERATIONS = [
  'createTemplate',
  'deleteTemplate',
  'diffTemplate',
  'getTemplate',
  'listAssets',
  'listTemplateDefaults',
  'listTemplateVersions',
  'listTemplates',
  'previewNotification',
  'publishTemplate',
  'putAsset',
  'rollBackTemplate',
  'sendNotification',
  'sendTestOfTemplate',
  'updateTemplate',
  'validateTemplate',
]

interface Schema {
  type?: string | string[]
  enum?: unknown[]
  const?: unknown
  anyOf?: Schema[]
  properties?: Record<string, Schema>
  patternProperties?: Record<string, Schema>
  additionalProperties?: boolean | Schema
  required?: string[]
  items?: Schema
  format?: string
}
interface Operation {
  operationId?: string
  parameters?: { name: string; in: string; required?: boolean; schema: Schema }[]
  requestBody?: { content: Record<string, { schema: Schema }>; required?: boolean }
  responses: Record<string, { content?: Record<string, { schema: Schema }> }>
}

/** The file as it should be. */
export async function consoleTypes(): Promise<string> {
  // Nothing is called: the routes' schemas are all that is wanted of it.
  const nothing = undefined as never
  const api = await buildServer({ auth: nothing, version: '0' })
  templateRoutes(api, { db: nothing, defaults: async () => [] })
  previewRoutes(api, { db: nothing })
  assetRoutes(api, {
    db: nothing,
    objects: undefined,
    links: nothing,
    now: () => new Date(),
    maxBytes: 1,
    tenantBytes: 1,
  })
  ingestRoutes(api, {
    db: nothing,
    acceptor: nothing,
    now: nothing,
    findTemplates: nothing,
    checkVariables: nothing,
    quietUntil: nothing,
    maxItems: 1,
    maxBytes: 1,
  })
  await api.ready()
  const { paths } = api.swagger() as unknown as { paths: Record<string, Record<string, Operation>> }
  await api.close()

  const lines: string[] = []
  const found = new Set<string>()
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const { operationId = '' } = operation
      if (!OPERATIONS.includes(operationId)) continue
      found.add(operationId)
      lines.push(
        `  ${operationId}: {`,
        `    method: '${method.toUpperCase()}'`,
        `    path: '${path}'`,
        `    params: ${parameters(operation, 'path')}`,
        `    query: ${parameters(operation, 'query')}`,
        `    body: ${bodyOf(operation)}`,
        `    answer: ${answerOf(operation)}`,
        '  }',
      )
    }
  }
  const missing = OPERATIONS.filter(name => !found.has(name))
  if (missing.length > 0) throw new Error(`There is no operation ${missing.join(', ')}`)
  return [
    '// Made from the routes of the server by scripts/console-types.ts.',
    '',
    'export interface Operations {',
    ...lines,
    '}',
    '',
    '/** Where each operation is, for calling it. */',
    'export const PATHS = {',
    ...lines.flatMap((line, at) =>
      line.startsWith('    method: ')
        ? [`  ${lines[at - 1]!.trim().replace(': {', '')}: [${line.slice(12)}, ${lines[at + 1]!.slice(10)}],`]
        : [],
    ),
    '} as const',
    '',
  ].join('\n')
}

function parameters({ parameters = [] }: Operation, where: string): string {
  const own = parameters.filter(one => one.in === where)
  if (own.length === 0) return 'undefined'
  const fields = own.map(
    ({ name, required, schema }) => `${name}${required ? '' : '?'}: ${typeOf(schema, '    ')}`,
  )
  return `{ ${fields.join('; ')} }`
}

const bodyOf = ({ requestBody }: Operation): string => {
  const schema = requestBody?.content['application/json']?.schema
  return schema === undefined ? 'undefined' : typeOf(schema, '    ')
}

const answerOf = ({ responses }: Operation): string => {
  const good = Object.entries(responses).find(([status]) => status.startsWith('2'))
  const schema = good?.[1].content?.['application/json']?.schema
  return schema === undefined ? 'null' : typeOf(schema, '    ')
}

function typeOf(schema: Schema, indent: string): string {
  if (schema.const !== undefined) return literal(schema.const)
  if (schema.enum) return schema.enum.map(literal).join(' | ')
  if (schema.anyOf) return [...new Set(schema.anyOf.map(one => typeOf(one, indent)))].join(' | ')
  const types = [schema.type].flat()
  if (types.length > 1) return types.map(type => typeOf({ ...schema, type }, indent)).join(' | ')
  switch (types[0]) {
    case 'string':
      return 'string'
    case 'integer':
    case 'number':
      return 'number'
    case 'boolean':
      return 'boolean'
    case 'null':
      return 'null'
    case 'array': {
      const item = schema.items ? typeOf(schema.items, indent) : 'unknown'
      return /[ |]/.test(item) ? `(${item})[]` : `${item}[]`
    }
    case 'object':
      return objectOf(schema, indent)
    default:
      return 'unknown'
  }
}

function objectOf(
  { properties, patternProperties, additionalProperties, required = [] }: Schema,
  indent: string,
): string {
  const of = Object.values(patternProperties ?? {})[0]
  if (of) return `Record<string, ${typeOf(of, indent)}>`
  if (!properties || Object.keys(properties).length === 0) {
    const value = typeof additionalProperties === 'object' ? typeOf(additionalProperties, indent) : 'unknown'
    return `Record<string, ${value}>`
  }
  const inner = `${indent}  `
  const fields = Object.entries(properties).map(
    ([name, field]) => `${inner}${key(name)}${required.includes(name) ? '' : '?'}: ${typeOf(field, inner)}`,
  )
  return `{\n${fields.join('\n')}\n${indent}}`
}

const key = (name: string) => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : `'${name}'`)
const literal = (value: unknown) => (typeof value === 'string' ? `'${value}'` : String(value))

if (import.meta.main) writeFileSync(SCHEMA, await consoleTypes())
