import { isDeepStrictEqual } from 'node:util'
import { KINDS } from '../server/replay/files.ts'
import type { Kind, Resource } from '../server/replay/files.ts'
import { readChannel, readPriority } from '../server/spelling.ts'
import { ApiError } from './client.ts'
import type { Client } from './client.ts'

/** What a folder and a server hold, side by side. */
export interface Change {
  kind: Kind
  name: string
  what: 'create' | 'update' | 'disable'
  /** Fields that differ; for `create` and `disable` none are listed. */
  fields: { field: string; server: unknown; folder: unknown }[]
  /** On the server. */
  id?: string
  body?: Record<string, unknown>
  file?: string
}

type Held = Record<string, unknown> & { id: string }

/** What the server adds of its own. */
const OWN = new Set([
  'id',
  'no',
  'revision',
  'version',
  'createdAt',
  'createdBy',
  'updatedAt',
  'updatedBy',
  'deletedAt',
  'warnings',
  'status',
  'state',
])
/** A rule holds from when it was made, unless it says otherwise: no difference. */
const UNLESS_SAID = new Set(['validFrom', 'version'])
const DEFAULTS: Record<string, unknown> = { priority: 'NORMAL', timezone: 'UTC', enabled: true, locale: 'en' }

/** In the order in which they depend on each other: a rule names a template. */
const ORDER = Object.keys(KINDS) as Kind[]

/** Everything of a kind by its name. A server that does not know the kind has nothing of it. */
export async function held(client: Client, kind: Kind): Promise<Map<string, Held>> {
  const found = new Map<string, Held>()
  let cursor: string | undefined
  do {
    let page: { items: Held[]; nextCursor: string | null }
    try {
      page = await client.get(KINDS[kind].path, { limit: 200, cursor })
    } catch (error) {
      if (error instanceof ApiError && error.status === 404 && cursor === undefined) return found
      throw error
    }
    for (const item of page.items) {
      // The list of templates leaves their texts out.
      const whole = kind === 'templates' ? await client.get<Held>(`${KINDS[kind].path}/${item.id}`) : item
      found.set(nameOf(kind, whole), whole)
    }
    cursor = page.nextCursor ?? undefined
  } while (cursor !== undefined)
  return found
}

const nameOf = (kind: Kind, item: Record<string, unknown>): string =>
  (item[kind === 'silences' ? 'comment' : 'name'] as string | undefined) ?? ''

/** What `push` would do, and has to do. */
export async function compare(client: Client, resources: readonly Resource[]): Promise<Change[]> {
  const changes: Change[] = []
  const templateNames = new Map<string, string>()
  for (const kind of ORDER) {
    const there = await held(client, kind)
    if (kind === 'templates') for (const [name, { id }] of there) templateNames.set(id, name)
    const here = resources.filter(resource => resource.kind === kind)
    for (const { name, body, file } of here) {
      const known = there.get(name)
      if (!known) {
        changes.push({ kind, name, what: 'create', fields: [], body, file })
        continue
      }
      const fields = difference(asWritten(known, templateNames), plain(body))
      if (fields.length > 0) changes.push({ kind, name, what: 'update', fields, id: known.id, body, file })
    }
    const names = new Set(here.map(resource => resource.name))
    for (const [name, { id, enabled }] of there) {
      if (!names.has(name) && enabled !== false && kind !== 'silences') {
        changes.push({ kind, name, what: 'disable', fields: [], id })
      }
    }
  }
  return changes
}

/** A server's object as a document of a folder: without what the server adds, and without what is default. */
export function asWritten(
  item: Record<string, unknown>,
  templateNames: ReadonlyMap<string, string>,
): Record<string, unknown> {
  const written: Record<string, unknown> = {}
  for (const [field, value] of Object.entries(item)) {
    if (OWN.has(field) || isDefault(field, value)) continue
    written[field] = field === 'templateId' ? (templateNames.get(value as string) ?? value) : value
  }
  return written
}

function isDefault(field: string, value: unknown): boolean {
  if (value === null || value === undefined || value === '') return true
  if (Array.isArray(value)) return value.length === 0
  if (typeof value === 'object') return Object.keys(value).length === 0
  return Object.hasOwn(DEFAULTS, field) && DEFAULTS[field] === value
}

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400 }

/** A document as the server will show it again. */
function plain(body: Record<string, unknown>): Record<string, unknown> {
  const shown: Record<string, unknown> = {}
  for (const [field, value] of Object.entries(body)) {
    if (field === 'batchWindow' && typeof value === 'string') {
      shown['batchWindowSeconds'] = Number(value.slice(0, -1)) * (UNITS[value.at(-1)!] ?? 1)
    } else if (/^valid(From|Until)$|At$/.test(field) && value !== null)
      shown[field] = new Date(value as string | Date).toISOString()
    else if (field === 'priority') shown[field] = readPriority(String(value)) ?? value
    else if (/^(fallbackC|c)hannels$/.test(field) && Array.isArray(value)) {
      shown[field] = value.map(name => readChannel(String(name)) ?? (name as unknown))
    } else shown[field] = value
  }
  return Object.fromEntries(Object.entries(shown).filter(([field, value]) => !isDefault(field, value)))
}

function difference(server: Record<string, unknown>, folder: Record<string, unknown>): Change['fields'] {
  const fields = new Set([...Object.keys(server), ...Object.keys(folder)])
  return [...fields]
    .filter(field => !(UNLESS_SAID.has(field) && folder[field] === undefined))
    .filter(field => !isDeepStrictEqual(sorted(server[field]), sorted(folder[field])))
    .map(field => ({ field, server: server[field], folder: folder[field] }))
}

/** Names in one order; YAML dates as the text they stand for. */
const sorted = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value ?? null, (_, inner: unknown) =>
      inner !== null && typeof inner === 'object' && !Array.isArray(inner)
        ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
        : inner,
    ),
  ) as unknown

/** One change, made. */
export async function apply(client: Client, { kind, what, id, body }: Change): Promise<void> {
  const { path } = KINDS[kind]
  if (what === 'create') return client.post(path, body)
  if (what === 'update') return client.put(`${path}/${id}`, body)
  const current = await client.get<Record<string, unknown>>(`${path}/${id}`)
  return client.put(`${path}/${id}`, { ...asWritten(current, new Map()), enabled: false })
}

export function describeChange({ kind, what, name, fields, file }: Change): string {
  const sign = { create: '+', update: '~', disable: '-' }[what]
  const where = file === undefined ? '' : ` (${file})`
  const lines = fields.map(({ field, server, folder }) => `    ${field}: ${short(server)} → ${short(folder)}`)
  return [`${sign} ${kind} ${name}${where}`, ...lines].join('\n')
}

const short = (value: unknown): string => {
  const text = value === undefined ? '(default)' : JSON.stringify(value)
  return text.length <= 80 ? text : `${text.slice(0, 79)}…`
}
