/**
 * The types of the console's calls, from the routes' own schemas, for console/src/api/schema.ts: so the console knows what
 * the server takes and answers without importing anything of it. scripts/reference-docs.ts writes it, with the other
 * files that are made from the code, and its test compares.
 */
import { execFileSync } from 'node:child_process'
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

  const shapes: Shapes = new Map()
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
        `    params: ${parameters(operation, 'path', shapes)}`,
        `    query: ${parameters(operation, 'query', shapes)}`,
        `    body: ${bodyOf(operation, shapes)}`,
        `    answer: ${answerOf(operation, shapes)}`,
        '  }',
      )
    }
  }
  const missing = OPERATIONS.filter(name => !found.has(name))
  if (missing.length > 0) throw new Error(`There is no operation ${missing.join(', ')}`)
  return formatted(
    [
      '// Made from the routes of the server by scripts/reference-docs.ts.',
      '',
      ...[...shapes.values()].map(({ name, text }) => `interface ${name} ${text}\n`),
      'export interface Operations {',
      ...lines,
      '}',
      '',
      '/** Where each operation is, for calling it. */',
      'export const PATHS = {',
      ...lines.flatMap((line, at) =>
        line.startsWith('    method: ')
          ? [
              `  ${lines[at - 1]!.trim().replace(': {', '')}: [${line.slice(12)}, ${lines[at + 1]!.slice(10)}],`,
            ]
          : [],
      ),
      '} as const',
      '',
    ].join('\n'),
  )
}

/** Shapes that were met, by what they are: each is written once, under its name. */
type Shapes = Map<string, { name: string; text: string }>

function parameters({ parameters = [] }: Operation, where: string, shapes: Shapes): string {
  const own = parameters.filter(one => one.in === where)
  if (own.length === 0) return 'undefined'
  const fields = own.map(
    ({ name, required, schema }) => `${name}${required ? '' : '?'}: ${typeOf(schema, shapes)}`,
  )
  return `{ ${fields.join('; ')} }`
}

const bodyOf = ({ requestBody }: Operation, shapes: Shapes): string => {
  const schema = requestBody?.content['application/json']?.schema
  return schema === undefined ? 'undefined' : typeOf(schema, shapes)
}

const answerOf = ({ responses }: Operation, shapes: Shapes): string => {
  const good = Object.entries(responses).find(([status]) => status.startsWith('2'))
  const schema = good?.[1].content?.['application/json']?.schema
  return schema === undefined ? 'null' : typeOf(schema, shapes)
}

function typeOf(schema: Schema, shapes: Shapes): string {
  if (schema.const !== undefined) return literal(schema.const)
  if (schema.enum) return schema.enum.map(literal).join(' | ')
  if (schema.anyOf) return [...new Set(schema.anyOf.map(one => typeOf(one, shapes)))].join(' | ')
  const types = [schema.type].flat()
  if (types.length > 1) return types.map(type => typeOf({ ...schema, type }, shapes)).join(' | ')
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
      const item = schema.items ? typeOf(schema.items, shapes) : 'unknown'
      return /[ |]/.test(item) ? `(${item})[]` : `${item}[]`
    }
    case 'object':
      return objectOf(schema, shapes)
    default:
      return 'unknown'
  }
}

function objectOf(
  { properties = {}, patternProperties, additionalProperties, required = [] }: Schema,
  shapes: Shapes,
): string {
  const of = Object.values(patternProperties ?? {})[0]
  if (of) return `Record<string, ${typeOf(of, shapes)}>`
  if (Object.keys(properties).length === 0) {
    const value = typeof additionalProperties === 'object' ? typeOf(additionalProperties, shapes) : 'unknown'
    return `Record<string, ${value}>`
  }
  const fields = Object.entries(properties).map(
    ([name, field]) => `  ${key(name)}${required.includes(name) ? '' : '?'}: ${typeOf(field, shapes)}`,
  )
  const text = `{\n${fields.join('\n')}\n}`
  if (fields.length < MIN_FIELDS) return text
  let shape = shapes.get(text)
  if (shape === undefined) shapes.set(text, (shape = { name: `Shape${shapes.size + 1}`, text }))
  return shape.name
}

/** Smaller ones are read more easily where they stand. */
const MIN_FIELDS = 4

const key = (name: string) => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : `'${name}'`)
const literal = (value: unknown) => (typeof value === 'string' ? `'${value}'` : String(value))

/** As `npm run format` would leave it. */
function formatted(source: string): string {
  const root = join(import.meta.dirname, '..')
  const biome = join(root, 'node_modules', '.bin', 'biome')
  return execFileSync(biome, ['format', '--stdin-file-path', SCHEMA], {
    cwd: root,
    input: source,
    encoding: 'utf8',
    maxBuffer: 1 << 24,
  })
}
