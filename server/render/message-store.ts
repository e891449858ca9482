import { type Actor, audit } from '../admin/audit.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { TenantId } from '../types.ts'
import { type TemplateProblem, canonicalLocale } from './content.ts'
import { truncate } from './helpers.ts'
import { MAX_KEYS, type SharedMessages, compileMessage, messageWarnings, sharedMessages } from './messages.ts'
import type { TemplateWarning } from './publish.ts'

/** The messages of one language that all templates of a tenant may say. */
export interface MessageCatalogue {
  /** BCP 47. */
  locale: string
  /** ICU MessageFormat by key. */
  messages: Record<string, string>
  /** Counts up with each change. */
  revision: number
  updatedBy: string | null
  createdAt: Date
  updatedAt: Date
}

export interface CatalogueSummary extends Omit<MessageCatalogue, 'messages'> {
  /** How many messages it has. */
  keys: number
}

export interface SavedCatalogue {
  catalogue: MessageCatalogue
  warnings: TemplateWarning[]
}

/** Languages of one tenant. */
const MAX_CATALOGUES = 100
/** Characters of all languages of a tenant together: they are in the memory of every process that renders. */
const MAX_TENANT_CHARS = 4_000_000

const COLUMNS = `locale, revision, updated_by as "updatedBy", created_at as "createdAt", updated_at as "updatedAt"`

const list = sql(
  'list_messages',
  `select ${COLUMNS}, (select count(*)::int from jsonb_object_keys(messages)) as keys from message_catalogues
   where tenant_id = $1 and ($2::text is null or locale collate "C" > $2) order by locale collate "C" limit $3`,
)
const find = sql(
  'find_messages',
  `select ${COLUMNS}, messages from message_catalogues where tenant_id = $1 and locale = $2`,
)
const load = sql('load_messages', `select locale, messages from message_catalogues where tenant_id = $1`)
// Changes of one tenant one after the other, so that its bounds are exact.
const lockTenant = sql('lock_messages', `select pg_advisory_xact_lock(${0x6d657373}, $1)`)
const standing = sql(
  'messages_standing',
  `select count(*)::int as catalogues, coalesce(sum(length(messages::text)), 0)::int as chars
   from message_catalogues where tenant_id = $1 and locale <> $2`,
)
const put = sql(
  'put_messages',
  `insert into message_catalogues (tenant_id, locale, messages, updated_by) values ($1, $2, $3, $4)
   on conflict (tenant_id, locale) do update set messages = excluded.messages, updated_by = excluded.updated_by,
     revision = message_catalogues.revision + 1, updated_at = now()
   returning ${COLUMNS}, messages`,
)
const remove = sql('delete_messages', `delete from message_catalogues where tenant_id = $1 and locale = $2`)

/** By language, after the language `after`. */
export const listCatalogues = (
  q: Queryable,
  tenantId: TenantId,
  after: string | null,
  limit: number,
): Promise<CatalogueSummary[]> => q.rows<CatalogueSummary>(list, [tenantId, after, limit])

export const findCatalogue = (
  q: Queryable,
  tenantId: TenantId,
  locale: string,
): Promise<MessageCatalogue | undefined> => q.one<MessageCatalogue>(find, [tenantId, locale])

/** All of a tenant's messages, as of now. */
export async function tenantMessages(q: Queryable, tenantId: TenantId): Promise<SharedMessages> {
  const rows = await q.rows<Pick<MessageCatalogue, 'locale' | 'messages'>>(load, [tenantId])
  return sharedMessages(Object.fromEntries(rows.map(({ locale, messages }) => [locale, messages])))
}

/** @throws AppError invalid_request for what is no BCP 47 tag */
export function readLocale(tag: string, field: string): string {
  const locale = canonicalLocale(tag)
  // Two letters at least are what a column and a body may hold; "x" alone is no language either.
  if (locale !== undefined && locale.length >= 2 && locale.length <= 35) return locale
  throw new AppError('invalid_request', `"${truncate(tag, 40)}" is not a BCP 47 locale`, { field })
}

/** @throws AppError invalid_template with every message that cannot be read, its line and column */
export function checkCatalogue(locale: string, messages: Record<string, string>): void {
  const problems: TemplateProblem[] = []
  const keys = Object.keys(messages)
  if (keys.length > MAX_KEYS) problems.push({ field: '/messages', message: `more than ${MAX_KEYS} messages` })
  for (const key of keys.slice(0, MAX_KEYS)) {
    try {
      compileMessage(messages[key]!, locale)
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      problems.push({ field: `/messages/${key}`, message: error.message, ...error.extra })
    }
  }
  const [first] = problems
  if (!first) return
  throw new AppError('invalid_template', `${first.field}: ${first.message}`, {
    errors: problems.slice(0, 50),
    ...(first.line !== undefined && { extra: { line: first.line, column: first.column! } }),
  })
}

/**
 * Replaces the messages of a language by what `change` makes of them. What stays as it is keeps its revision.
 *
 * @param expected the revision the change was made from, 0 for none: AppError conflict when it is another by now
 * @throws AppError invalid_template for messages that cannot be read; conflict beyond the bounds of a tenant
 */
export async function changeCatalogue(
  tx: Tx,
  actor: Actor,
  locale: string,
  change: (before: Readonly<Record<string, string>>) => Record<string, string>,
  expected?: number,
  traceId?: string,
): Promise<SavedCatalogue> {
  const { tenantId } = actor
  await tx.run(lockTenant, [tenantId])
  const before = await findCatalogue(tx, tenantId, locale)
  if (expected !== undefined && expected !== (before?.revision ?? 0)) {
    const by = before ? `at revision ${before.revision}` : 'gone'
    throw new AppError('conflict', `The messages in ${locale} are ${by} by now.`, { field: '/revision' })
  }
  const messages = change(before?.messages ?? {})
  checkCatalogue(locale, messages)
  const warnings = [...messageWarnings({ [locale]: messages }, locale)].slice(0, MAX_WARNINGS)
  const { changes, added, changed, removed } = difference(before?.messages ?? {}, messages)
  if (before && added + changed + removed === 0) return { catalogue: before, warnings }

  const others = (await tx.one<{ catalogues: number; chars: number }>(standing, [tenantId, locale]))!
  if (!before && others.catalogues >= MAX_CATALOGUES) {
    throw new AppError('conflict', `There are messages in ${MAX_CATALOGUES} languages already.`)
  }
  if (others.chars + JSON.stringify(messages).length > MAX_TENANT_CHARS) {
    throw new AppError('conflict', `All messages together have more than ${MAX_TENANT_CHARS} characters.`)
  }
  const catalogue = (await tx.one<MessageCatalogue>(put, [
    tenantId,
    locale,
    JSON.stringify(messages),
    actor.id ?? null,
  ]))!
  await audit(tx, actor, {
    action: before ? 'messages.updated' : 'messages.created',
    objectKind: 'messages',
    objectId: locale,
    details: { revision: catalogue.revision, added, changed, removed, changes },
    traceId,
  })
  const gone = Object.keys(before?.messages ?? {}).filter(key => !Object.hasOwn(messages, key))
  const missed = (await unsaid(tx, tenantId, gone)).map(({ key, templates }) => ({
    field: `/messages/${key}`,
    message: `No language has it any more, and is to be said by ${templates.join(', ')}`,
  }))
  return { catalogue, warnings: [...missed, ...warnings].slice(0, MAX_WARNINGS) }
}

/** @throws AppError not_found; conflict while templates say what only this language has */
export async function deleteCatalogue(tx: Tx, actor: Actor, locale: string, traceId?: string): Promise<void> {
  const { tenantId } = actor
  await tx.run(lockTenant, [tenantId])
  const before = await findCatalogue(tx, tenantId, locale)
  if (!before) throw new AppError('not_found', 'There are no messages in this language.')
  await tx.run(remove, [tenantId, locale])
  const [missing] = await unsaid(tx, tenantId, Object.keys(before.messages))
  if (missing) {
    const { key, templates } = missing
    throw new AppError('conflict', `Only ${locale} has "${key}", which is said by ${templates.join(', ')}.`)
  }
  const { changes, removed } = difference(before.messages, {})
  await audit(tx, actor, {
    action: 'messages.deleted',
    objectKind: 'messages',
    objectId: locale,
    details: { revision: before.revision, removed, changes },
    traceId,
  })
}

const MAX_WARNINGS = 100
const MAX_SHOWN = 20
const MAX_TEXT = 200

/** For the audit: what each of the first messages was and is, cut. */
function difference(before: Readonly<Record<string, string>>, after: Readonly<Record<string, string>>) {
  const changes = new Map<string, { before?: string; after?: string }>()
  const counts = { added: 0, changed: 0, removed: 0 }
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const was = Object.hasOwn(before, key) ? before[key]! : undefined
    const is = Object.hasOwn(after, key) ? after[key]! : undefined
    if (was === is) continue
    const what = was === undefined ? 'added' : is === undefined ? 'removed' : 'changed'
    counts[what]++
    if (changes.size >= MAX_SHOWN) continue
    changes.set(key, {
      ...(was !== undefined && { before: truncate(was, MAX_TEXT) }),
      ...(is !== undefined && { after: truncate(is, MAX_TEXT) }),
    })
  }
  return { ...counts, changes: Object.fromEntries(changes) }
}

const saying = sql(
  'templates_saying_messages',
  `select said.key, (array_agg(t.name order by t.name))[1:5] as templates
   from template_revisions r
   join templates t on (t.tenant_id, t.id, t.revision) = (r.tenant_id, r.template_id, r.revision)
   cross join lateral unnest(r.said) as said (key)
   where r.tenant_id = $1 and r.said <> '{}' and r.said && $2::text[] and t.deleted_at is null and t.enabled
     and said.key = any ($2::text[])
   group by said.key order by said.key limit $3`,
)

/** Of these keys, those that no language has and that published templates say, with the first of these. */
async function unsaid(
  tx: Tx,
  tenantId: TenantId,
  keys: readonly string[],
): Promise<{ key: string; templates: string[] }[]> {
  if (keys.length === 0) return []
  const shared = await tenantMessages(tx, tenantId)
  const gone = keys.filter(key => shared.inWhich(key) === undefined)
  if (gone.length === 0) return []
  return tx.rows<{ key: string; templates: string[] }>(saying, [tenantId, gone, MAX_WARNINGS])
}
