import { isDeepStrictEqual } from 'node:util'
import { KINDS, asShown, inOrder } from '../server/replay/files.ts'
import type { Kind, Resource } from '../server/replay/files.ts'
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
  'publishedRevision',
  'lastRevision',
  'version',
  'versions',
  'locales',
  'layouts',
  'usedBy',
  'set',
  'createdAt',
  'createdBy',
  'updatedAt',
  'updatedBy',
  'deletedAt',
  'warnings',
  'status',
  'state',
])
/** Something holds from when it was made, unless it says otherwise: no difference. */
const UNLESS_SAID = new Set(['validFrom', 'startsAt', 'version'])
/** What need not be written, because it is so anyway. */
const DEFAULTS: Record<Kind, Record<string, unknown>> = {
  messages: {},
  rules: { priority: 'NORMAL', timezone: 'UTC', enabled: true },
  templates: { enabled: true, locale: 'en', schemaVersion: '1.0' },
  limits: { enabled: true, per: 'delivery', overflow: 'hold', criticalPasses: true, every: 1 },
  silences: {},
  inhibitions: { enabled: true },
}

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
      // A set of limits is switched as a whole; what is over never comes again.
      if (item['set'] != null || item['state'] === 'expired') continue
      // The lists of templates and messages leave their texts out.
      const id = kind === 'messages' ? (item['locale'] as string) : item.id
      const whole =
        kind === 'templates' || kind === 'messages'
          ? { ...(await client.get<Held>(`${KINDS[kind].path}/${id}`)), id }
          : item
      found.set(nameOf(kind, whole), whole)
    }
    cursor = page.nextCursor ?? undefined
  } while (cursor !== undefined)
  return found
}

const nameOf = (kind: Kind, item: Record<string, unknown>): string =>
  (item[KINDS[kind].name] as string | undefined) ?? ''

/** What `push` would do, and has to do. */
export async function compare(
  client: Client,
  resources: readonly Resource[],
  now = new Date(),
): Promise<Change[]> {
  const changes: Change[] = []
  const templateNames = new Map<string, string>()
  for (const kind of ORDER) {
    const there = await held(client, kind)
    if (kind === 'templates') for (const [name, { id }] of there) templateNames.set(id, name)
    const ofKind = resources.filter(resource => resource.kind === kind)
    const here = kind === 'templates' ? inOrder(ofKind) : ofKind
    for (const resource of here) {
      const { name, file } = resource
      // A silence that is over has nothing left to do.
      if (kind === 'silences' && new Date(resource.body['endsAt'] as string) <= now) continue
      const known = there.get(name)
      const body = { ...resource.body, [KINDS[kind].name]: name }
      if (!known) {
        changes.push({ kind, name, what: 'create', fields: [], body, file })
        continue
      }
      const fields = difference(
        asWritten(kind, known, templateNames),
        asWritten(kind, await asShown(resource), templateNames),
      )
      if (fields.length > 0) changes.push({ kind, name, what: 'update', fields, id: known.id, body, file })
    }
    const names = new Set(here.map(resource => resource.name))
    for (const [name, { id, enabled }] of there) {
      if (!names.has(name) && enabled !== false) changes.push({ kind, name, what: 'disable', fields: [], id })
    }
  }
  // A language goes once nothing says what it alone has.
  const last = (change: Change) => Number(change.kind === 'messages' && change.what === 'disable')
  return changes.sort((a, b) => last(a) - last(b))
}

/** A server's object as a document of a folder: without what the server adds, and without what is default. */
export function asWritten(
  kind: Kind,
  item: Record<string, unknown>,
  templateNames: ReadonlyMap<string, string>,
): Record<string, unknown> {
  const written: Record<string, unknown> = {}
  for (const [field, value] of Object.entries(item)) {
    if (OWN.has(field) || isDefault(kind, field, value)) continue
    written[field] = field === 'templateId' ? (templateNames.get(value as string) ?? value) : value
  }
  // A gap is always of one.
  if (kind === 'limits' && item['window'] === 'gap') delete written['max']
  return written
}

function isDefault(kind: Kind, field: string, value: unknown): boolean {
  if (value === null || value === undefined || value === '') return true
  if (Array.isArray(value)) return value.length === 0
  if (typeof value === 'object') return Object.keys(value).length === 0
  return DEFAULTS[kind][field] === value
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
  if (kind === 'messages') {
    return what === 'disable'
      ? client.delete(`${path}/${id}`)
      : client.put(`${path}/${body!['locale'] as string}`, { messages: body!['messages'] ?? {} })
  }
  if (what === 'create') return client.post(path, body)
  // A silence is not replaced: what it kept quiet until now is explained by it.
  if (kind === 'silences')
    return what === 'update' ? client.patch(`${path}/${id}`, body) : client.post(`${path}/${id}/expire`, {})
  // In a folder every template takes in the others as the folder has them.
  if (what === 'update')
    return client.put(`${path}/${id}`, kind === 'templates' ? { ...body, republish: true } : body)
  const current = await client.get<Record<string, unknown>>(`${path}/${id}`)
  return client.put(`${path}/${id}`, { ...asWritten(kind, current, new Map()), enabled: false })
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
