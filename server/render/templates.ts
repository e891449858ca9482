import { type Actor, audit } from '../admin/audit.ts'
import { isId, newId } from '../db/ids.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Id, TenantId } from '../types.ts'
import { type RevisionCache, revisionCache } from './cache.ts'
import { tenantMessages } from './message-store.ts'
import type { SharedMessages } from './messages.ts'
import { compileMarkup } from './publish.ts'
import { type Layout, type Layouts, MAX_COPIED, layoutNames, takesIn } from './partials.ts'
import {
  type ChannelContent,
  type CompiledRevision,
  type Messages,
  type TemplateRevision,
  type TemplateVariable,
  byChannel,
  normalizeRevision,
  readBy,
  validateRevision,
} from './content.ts'

/** What a person can say about a template; the rest is ours. */
export interface TemplateDefinition {
  name: string
  description: string
  category: string
  tags: string[]
  enabled: boolean
  /** Shown to people. Without one the last part of the previous version counts up. */
  version?: string
  /** Of the shape of its texts and variables, as its keepers count; `1.0` unless stated. */
  schemaVersion?: string
  locale: string
  channels: TemplateRevision['channels']
  translations: NonNullable<TemplateRevision['translations']>
  variables: TemplateVariable[]
  /** ICU messages by BCP 47 tag and key, for the helper `t`. */
  messages: Messages
  /** Texts that its other texts take in by their names. */
  partials: Record<string, string>
  /** What it takes in of other templates; found out when it is saved. */
  layouts?: Layouts
  /** The tenant's messages that its texts say; found out then as well. */
  said?: string[]
}

/** A template at one of its revisions. */
export interface Template extends TemplateDefinition {
  id: Id
  version: string
  schemaVersion: string
  revision: number
  /** What is sent; null while nothing was published. */
  publishedRevision: number | null
  /** The newest, perhaps a draft. */
  lastRevision: number
  createdBy: string | null
  createdAt: Date
  updatedAt: Date
  layouts: Layouts
  said: string[]
}

type Texts = 'channels' | 'translations' | 'variables' | 'messages' | 'partials' | 'layouts' | 'said'

/** In lists: without its texts. */
export interface TemplateSummary extends Omit<Template, Texts> {
  channels: string[]
  locales: string[]
}

export interface RevisionSummary {
  revision: number
  /** A draft is newer than what is published. */
  status: 'published' | 'draft' | 'earlier'
  version: string
  locale: string
  channels: string[]
  locales: string[]
  createdBy: string | null
  createdAt: Date
}

interface Row {
  id: string
  name: string
  description: string
  category: string
  tags: string[]
  enabled: boolean
  revision: number
  version: string
  schema_version: string
  locale: string
  channels: Template['channels']
  translations: Template['translations']
  variables: Template['variables']
  messages: Template['messages']
  partials: Template['partials']
  layouts: Layouts
  said: string[]
  published: number | null
  last_revision: number
  created_by: string | null
  created_at: Date
  updated_at: Date
}

const templateOf = <R extends Omit<Row, Texts>>({
  published,
  last_revision,
  schema_version,
  created_by,
  created_at,
  updated_at,
  ...row
}: R) => ({
  ...row,
  publishedRevision: published,
  lastRevision: last_revision,
  schemaVersion: schema_version,
  createdBy: created_by,
  createdAt: created_at,
  updatedAt: updated_at,
})

const COLUMNS = `t.id, t.name, t.description, t.category, t.tags, t.enabled, r.revision, r.version, r.schema_version,
         r.locale, nullif(t.revision, 0) as published, t.last_revision, t.created_by, t.created_at, t.updated_at`
/** What is sent or, while nothing is, the newest draft. */
const SHOWN = 'coalesce(nullif(t.revision, 0), t.last_revision)'

const TEXTS = 'r.channels, r.translations, r.variables, r.messages, r.partials, r.layouts, r.said'
const NAMES = `array(select jsonb_object_keys(r.channels)) as channels,
         array(select jsonb_object_keys(r.translations)) as locales`

// ------------------------------------------------------------------------------------------------ reading

const findById = sql(
  'find_template',
  `select ${COLUMNS}, ${TEXTS}
   from templates t
   join template_revisions r on (r.tenant_id, r.template_id) = (t.tenant_id, t.id)
    and r.revision = case $3::int when 0 then t.last_revision else coalesce($3, ${SHOWN}) end
   where t.tenant_id = $1 and t.id = $2 and t.deleted_at is null`,
)

/**
 * The published state, another revision, or the newest one, be it a draft: name and so on are always today's, the
 * texts those of the revision.
 */
export async function findTemplate(
  q: Queryable,
  tenantId: TenantId,
  id: Id,
  revision?: number | 'last',
): Promise<Template | undefined> {
  const row = await q.one<Row>(findById, [tenantId, id, revision === 'last' ? 0 : (revision ?? null)])
  return row && templateOf(row)
}

const resolve = sql(
  'resolve_templates',
  `select id, name, case when enabled then nullif(revision, 0) end as revision from templates
   where tenant_id = $1 and (id = any ($2::uuid[]) or name = any ($3)) and deleted_at is null`,
)

/** A template by its id, and the revision that is sent by now: undefined for a draft, or what is disabled. */
export interface ResolvedTemplate {
  id: Id
  revision: number | undefined
}

/** By whatever they were asked for: an id or a name, an id first. What there is not is not in the map. */
export async function findTemplates(
  q: Queryable,
  tenantId: TenantId,
  idsOrNames: readonly string[],
): Promise<Map<string, ResolvedTemplate>> {
  const found = new Map<string, ResolvedTemplate>()
  if (idsOrNames.length === 0) return found
  const rows = await q.rows<{ id: string; name: string; revision: number | null }>(resolve, [
    tenantId,
    idsOrNames.filter(isId),
    idsOrNames,
  ])
  const byName = new Map(rows.map(row => [row.name, row]))
  const byId = new Map(rows.map(row => [row.id, row]))
  for (const asked of idsOrNames) {
    const row = byId.get(asked.toLowerCase()) ?? byName.get(asked)
    if (row) found.set(asked, { id: row.id, revision: row.revision ?? undefined })
  }
  return found
}

/** The same, their ids alone. */
export async function resolveTemplates(
  q: Queryable,
  tenantId: TenantId,
  idsOrNames: readonly string[],
): Promise<Map<string, Id>> {
  const found = await findTemplates(q, tenantId, idsOrNames)
  return new Map(Array.from(found, ([asked, { id }]) => [asked, id]))
}

export interface TemplateFilter {
  name?: string
  /** Part of the name, in any case. */
  search?: string
  category?: string
  tag?: string
  enabled?: boolean
}

const list = sql(
  'list_templates',
  `select ${COLUMNS}, ${NAMES}
   from templates t
   join template_revisions r on (r.tenant_id, r.template_id, r.revision) = (t.tenant_id, t.id, ${SHOWN})
   where t.tenant_id = $1 and t.deleted_at is null
     and ($2::uuid is null or t.id < $2)
     and ($3::text is null or t.name = $3)
     and ($4::text is null or t.category = $4)
     and ($5::text is null or t.tags @> array[$5])
     and ($6::boolean is null or t.enabled = $6)
     and ($7::text is null or position(lower($7) in lower(t.name)) > 0)
   order by t.id desc limit $8`,
)

/** Newest first, after the template `after`. */
export async function listTemplates(
  q: Queryable,
  tenantId: TenantId,
  filter: TemplateFilter,
  after: Id | null,
  limit: number,
): Promise<TemplateSummary[]> {
  const { name = null, category = null, tag = null, enabled = null, search = null } = filter
  const rows = await q.rows<Omit<Row, Texts> & { channels: string[]; locales: string[] }>(list, [
    tenantId,
    after,
    name,
    category,
    tag,
    enabled,
    search,
    limit,
  ])
  return rows.map(templateOf)
}

const listOfRevisions = sql(
  'list_template_revisions',
  `select r.revision, r.version, r.locale, ${NAMES},
     case when r.revision = t.revision then 'published' when r.revision > t.revision then 'draft' else 'earlier' end as status,
     r.created_by as "createdBy", r.created_at as "createdAt"
   from template_revisions r
   join templates t on (t.tenant_id, t.id) = (r.tenant_id, r.template_id)
   where r.tenant_id = $1 and r.template_id = $2 and t.deleted_at is null
     and ($3::int is null or r.revision < $3)
   order by r.revision desc limit $4`,
)

/** Latest first, before the revision `before`. */
export const listRevisions = (
  q: Queryable,
  tenantId: TenantId,
  id: Id,
  before: number | null,
  limit: number,
): Promise<RevisionSummary[]> => q.rows<RevisionSummary>(listOfRevisions, [tenantId, id, before, limit])

const findVersion = sql(
  'find_template_version',
  `select revision from template_revisions where tenant_id = $1 and template_id = $2 and version = $3
   order by revision desc limit 1`,
)

/** The latest revision that people know by this version. */
export const revisionOfVersion = async (
  q: Queryable,
  tenantId: TenantId,
  id: Id,
  version: string,
): Promise<number | undefined> =>
  (await q.one<{ revision: number }>(findVersion, [tenantId, id, version]))?.revision

// ------------------------------------------------------------------------------------------------ writing

const insertTemplate = sql(
  'insert_template',
  `insert into templates (tenant_id, id, name, description, category, tags, enabled, created_by, revision, last_revision)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1)`,
)
const insertRevision = sql(
  'insert_template_revision',
  `insert into template_revisions
     (tenant_id, template_id, revision, version, locale, channels, translations, variables, messages, created_by,
      schema_version, partials, layouts, layout_ids, said)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
)
// The row alone: a join would be rechecked after waiting for another update, against the revision of before.
const lockTemplate = sql(
  'lock_template',
  `select name, revision, last_revision as last from templates where tenant_id = $1 and id = $2 and deleted_at is null for update`,
)
const versionOf = sql(
  'template_version',
  `select version from template_revisions where tenant_id = $1 and template_id = $2 and revision = $3`,
)
const updateRow = sql(
  'update_template',
  `update templates set name = $3, description = $4, category = $5, tags = $6, enabled = $7, revision = $8,
          last_revision = $8, updated_at = now()
   where tenant_id = $1 and id = $2`,
)
const keepDraft = sql(
  'keep_template_draft',
  `update templates set last_revision = $3, updated_at = now() where tenant_id = $1 and id = $2`,
)
const publishRow = sql(
  'publish_template',
  `update templates set revision = $3, updated_at = now() where tenant_id = $1 and id = $2`,
)
const rulesUsing = sql(
  'rules_using_template',
  `select name from rules where tenant_id = $1 and template_id = $2 and deleted_at is null order by name limit 5`,
)
const deleteRow = sql(
  'delete_template',
  `update templates set enabled = false, deleted_at = now(), updated_at = now() where tenant_id = $1 and id = $2`,
)

/**
 * Whoever saves a template waits for others of the tenant who do: so what a revision takes in is what is published
 * then, and who publishes a layout knows everybody that has an older one. Taken before any row.
 */
const lockTemplates = sql('lock_templates', `select pg_advisory_xact_lock(${0x746d706c}, $1)`)
const currentRevisions = sql(
  'layout_revisions',
  `select id, revision from templates where tenant_id = $1 and id = any ($2) and deleted_at is null`,
)

/** @throws AppError conflict when what a definition takes in has changed since it was looked at */
async function lockLayouts(tx: Tx, tenantId: TenantId, layouts: Layouts = {}): Promise<void> {
  await tx.run(lockTemplates, [tenantId])
  const taken = Object.entries(layouts)
  if (taken.length === 0) return
  const ids = taken.map(([, { templateId }]) => templateId)
  const rows = await tx.rows<{ id: string; revision: number }>(currentRevisions, [tenantId, ids])
  const current = new Map(rows.map(({ id, revision }) => [id, revision]))
  for (const [name, { templateId, revision }] of taken) {
    if (current.get(templateId) !== revision) {
      throw new AppError(
        'conflict',
        `The template "${name}", which it takes in, is being changed. Try again.`,
      )
    }
  }
}

interface Locked {
  name: string
  /** 0: nothing is published. */
  revision: number
  last: number
}

async function lock(tx: Tx, tenantId: TenantId, id: Id): Promise<Locked> {
  const locked = await tx.one<Locked>(lockTemplate, [tenantId, id])
  if (!locked) throw new AppError('not_found', 'There is no template with this id.')
  return locked
}

/**
 * The definition as it is stored, checked: Go-style texts are in Handlebars afterwards.
 *
 * Takes up to some 100 ms for the largest definitions, so it is called before the transaction.
 *
 * @param shared the tenant's messages, which the texts may say besides their own
 * @throws AppError invalid_template with every problem found
 */
export function prepareDefinition(
  definition: TemplateDefinition,
  shared?: SharedMessages,
): TemplateDefinition {
  const prepared = normalizeRevision(definition)
  validateRevision(prepared, shared)
  return { ...prepared, said: sayWords(prepared) ? readBy(prepared).messages : [] }
}

/** Whether there may be a `t` among the texts; to find out which takes as long as checking them. */
const sayWords = ({ channels, translations, partials, layouts }: TemplateDefinition): boolean =>
  /\bt[\s\\]/.test(JSON.stringify([channels, translations, partials, layouts]))

/** The other templates that a definition names, as they are now; what there is not is not among them. */
export type LayoutsFor = (definition: TemplateDefinition) => Layouts | Promise<Layouts>

/**
 * A definition with its markup compiled and what it takes in of other templates.
 *
 * @throws AppError invalid_template when that is too much
 */
export async function withLayouts(
  definition: TemplateDefinition,
  layoutsFor: LayoutsFor,
): Promise<TemplateDefinition> {
  const written = await compileMarkup(definition)
  const layouts = await layoutsFor(definition)
  if (JSON.stringify(layouts).length > MAX_COPIED) {
    const message = `what it takes in of other templates has more than ${MAX_COPIED} characters`
    throw new AppError('invalid_template', message, { field: '/channels' })
  }
  return { ...written, layouts }
}

/** The same, checked: what is saved. */
export const publishable = async (
  definition: TemplateDefinition,
  layoutsFor: LayoutsFor,
  shared?: SharedMessages,
): Promise<TemplateDefinition> => prepareDefinition(await withLayouts(definition, layoutsFor), shared)

/** A definition as others take it in. */
export const layoutOf = (
  templateId: Id,
  revision: number,
  { locale, channels, translations, partials, layouts = {}, messages, variables }: TemplateDefinition,
): Layout => {
  const texts: Layout['texts'] = { [locale]: channels }
  for (const [tag, contents] of Object.entries(translations)) texts[tag] = byChannel(contents)
  const plain = ({ subject, title, body, html }: ChannelContent) => {
    const line = subject ?? title
    return {
      ...(line !== undefined && { subject: line }),
      ...(body !== undefined && { body }),
      ...(html !== undefined && { html }),
    }
  }
  const only = (contents: Layout['texts'][string]) =>
    Object.fromEntries(Object.entries(contents).map(([channel, content]) => [channel, plain(content)]))
  return {
    templateId,
    revision,
    locale,
    texts: Object.fromEntries(Object.entries(texts).map(([tag, contents]) => [tag, only(contents)])),
    partials,
    layouts,
    messages,
    variables,
  }
}

const findLayouts = sql(
  'find_layouts',
  `select t.id, t.name, r.revision, r.locale, ${TEXTS}
   from templates t
   join template_revisions r on (r.tenant_id, r.template_id, r.revision) = (t.tenant_id, t.id, t.revision)
   where t.tenant_id = $1 and t.name = any ($2) and t.id is distinct from $3 and t.deleted_at is null`,
)

/**
 * What templates of a tenant take in of each other: as it is published, be it enabled or not, since a layout need not
 * be something to send.
 *
 * @param self the template that is saved; it never means itself
 */
export const layoutsOf =
  (q: Queryable, tenantId: TenantId, self: Id | null = null): LayoutsFor =>
  async definition => {
    const names = layoutNames(definition)
    if (names.length === 0) return {}
    type Found = Pick<Row, 'id' | 'name' | 'revision' | 'locale' | Texts>
    const rows = await q.rows<Found>(findLayouts, [tenantId, names, self])
    const layouts: Layouts = {}
    for (const row of rows) {
      const layout = layoutOf(row.id, row.revision, {
        ...row,
        description: '',
        category: '',
        tags: [],
        enabled: true,
      })
      if (self !== null && takesIn(layout, self)) {
        throw new AppError(
          'invalid_template',
          `"${row.name}" takes in this template, so it cannot be taken in by it`,
        )
      }
      layouts[row.name] = layout
    }
    return layouts
  }

/** The same for definitions that are nobody's yet, such as those of a folder. */
export function layoutsAmong(definitions: ReadonlyMap<string, TemplateDefinition>): LayoutsFor {
  const made = new Map<string, Promise<Layout>>()
  const within = async (definition: TemplateDefinition, path: readonly string[]): Promise<Layouts> => {
    const layouts: Layouts = {}
    for (const name of layoutNames(definition)) {
      const found = definitions.get(name)
      if (!found) continue
      if (path.includes(name)) {
        throw new AppError('invalid_template', `"${name}" and "${definition.name}" take in each other`)
      }
      let layout = made.get(name)
      if (!layout) made.set(name, (layout = make(found, [...path, name])))
      layouts[name] = await layout
    }
    return layouts
  }
  const make = async (definition: TemplateDefinition, path: readonly string[]): Promise<Layout> =>
    layoutOf('', 0, {
      ...normalizeRevision(await compileMarkup(definition)),
      layouts: await within(definition, path),
    })
  return definition => within(definition, [definition.name])
}

/**
 * @param draft nothing is published yet: whoever names the template sends without it
 * @throws AppError already_exists for a name in use
 */
export async function createTemplate(
  tx: Tx,
  actor: Actor,
  prepared: TemplateDefinition,
  traceId?: string,
  draft = false,
): Promise<Id> {
  const id = newId()
  const { tenantId } = actor
  const { name, description, category, tags, enabled } = prepared
  await lockLayouts(tx, tenantId, prepared.layouts)
  await named(name, () =>
    tx.run(insertTemplate, [
      tenantId,
      id,
      name,
      description,
      category,
      tags,
      enabled,
      actor.id ?? null,
      draft ? 0 : 1,
    ]),
  )
  await addRevision(tx, actor, id, 1, prepared.version ?? '1.0.0', prepared)
  await audit(tx, actor, {
    action: 'template.created',
    objectKind: 'template',
    objectId: id,
    details: { name, revision: 1, enabled, ...(draft && { draft }) },
    traceId,
  })
  return id
}

/**
 * A new revision; the ones before stay as they are, since notifications name them.
 *
 * @param expected the revision the change was made from: AppError conflict when it is neither what is published nor
 * the newest draft any more
 * @param again the texts, and what they take in, are those of an earlier revision
 * @throws AppError not_found; already_exists for a name in use; conflict when a template that it takes in has changed
 */
export async function updateTemplate(
  tx: Tx,
  actor: Actor,
  id: Id,
  prepared: TemplateDefinition,
  expected?: number,
  traceId?: string,
  again = false,
): Promise<void> {
  const { tenantId } = actor
  // What an earlier revision took in may be older by now: saying it again is no mistake.
  await lockLayouts(tx, tenantId, again ? {} : prepared.layouts)
  const before = await lockAt(tx, tenantId, id, expected)
  const revision = await nextRevision(tx, actor, id, before, prepared)
  const { name, description, category, tags, enabled } = prepared
  await named(name, () =>
    tx.run(updateRow, [tenantId, id, name, description, category, tags, enabled, revision]),
  )
  await audit(tx, actor, {
    action: 'template.updated',
    objectKind: 'template',
    objectId: id,
    details: { name, revision, enabled, ...(name !== before.name && { nameBefore: before.name }) },
    traceId,
  })
}

/**
 * Keeps the texts as a new revision that is not sent yet; `publishTemplate` makes it so. Name, category, tags and
 * whether it is enabled belong to the template and are left alone.
 *
 * @throws AppError not_found; conflict, as for `updateTemplate`
 */
export async function draftTemplate(
  tx: Tx,
  actor: Actor,
  id: Id,
  prepared: TemplateDefinition,
  expected?: number,
  traceId?: string,
): Promise<number> {
  await lockLayouts(tx, actor.tenantId, prepared.layouts)
  const before = await lockAt(tx, actor.tenantId, id, expected)
  const revision = await nextRevision(tx, actor, id, before, prepared)
  await tx.run(keepDraft, [actor.tenantId, id, revision])
  await audit(tx, actor, {
    action: 'template.drafted',
    objectKind: 'template',
    objectId: id,
    details: { name: before.name, revision },
    traceId,
  })
  return revision
}

/**
 * From now on a draft is what is sent: the newest, or the one named.
 *
 * @throws AppError not_found; conflict when there is no such draft
 */
export async function publishTemplate(
  tx: Tx,
  actor: Actor,
  id: Id,
  wanted?: number,
  traceId?: string,
): Promise<void> {
  const { tenantId } = actor
  await lockLayouts(tx, tenantId)
  const before = await lock(tx, tenantId, id)
  const revision = wanted ?? before.last
  if (revision <= before.revision || revision > before.last) {
    throw new AppError(
      'conflict',
      revision > before.last
        ? `There is no revision ${revision}.`
        : `Revision ${before.revision} is published, and ${revision} is no draft of something newer.`,
      { field: '/revision' },
    )
  }
  await tx.run(publishRow, [tenantId, id, revision])
  await audit(tx, actor, {
    action: 'template.published',
    objectKind: 'template',
    objectId: id,
    details: { name: before.name, revision, before: before.revision },
    traceId,
  })
}

async function lockAt(tx: Tx, tenantId: TenantId, id: Id, expected: number | undefined): Promise<Locked> {
  const before = await lock(tx, tenantId, id)
  if (expected !== undefined && expected !== before.revision && expected !== before.last) {
    throw new AppError('conflict', `The template is at revision ${before.last} by now.`, {
      field: '/revision',
    })
  }
  return before
}

async function nextRevision(
  tx: Tx,
  actor: Actor,
  id: Id,
  before: Locked,
  prepared: TemplateDefinition,
): Promise<number> {
  const revision = before.last + 1
  let { version } = prepared
  if (version === undefined) {
    const latest = await tx.one<{ version: string }>(versionOf, [actor.tenantId, id, before.last])
    version = nextVersion(latest!.version, revision)
  }
  await addRevision(tx, actor, id, revision, version, prepared)
  return revision
}

/**
 * Takes it out of use and frees its name. The rows stay: notifications of the past refer to them.
 *
 * @throws AppError not_found; conflict while rules or templates use it
 */
export async function deleteTemplate(tx: Tx, actor: Actor, id: Id, traceId?: string): Promise<void> {
  const { tenantId } = actor
  await lockLayouts(tx, tenantId)
  const { name, revision } = await lock(tx, tenantId, id)
  const rules = await tx.rows<{ name: string }>(rulesUsing, [tenantId, id])
  if (rules.length > 0) {
    throw new AppError('conflict', `Rules use this template: ${rules.map(rule => rule.name).join(', ')}.`)
  }
  const users = await usersOf(tx, tenantId, id, MAX_NAMED)
  if (users.length > 0) {
    throw new AppError('conflict', `Templates take it in: ${users.map(user => user.name).join(', ')}.`)
  }
  await tx.run(deleteRow, [tenantId, id])
  await audit(tx, actor, {
    action: 'template.deleted',
    objectKind: 'template',
    objectId: id,
    details: { name, revision },
    traceId,
  })
}

// --------------------------------------------------------------------------------------------- layouts' users

const listUsers = sql(
  'list_layout_users',
  `select t.id, t.name, l.value -> 'revision' as revision
   from template_revisions r
   join templates t on (t.tenant_id, t.id, t.revision) = (r.tenant_id, r.template_id, r.revision)
   cross join lateral jsonb_each(r.layouts) l
   where r.tenant_id = $1 and r.layout_ids <> '{}' and r.layout_ids @> array[$2::uuid] and t.deleted_at is null
     and l.value ->> 'templateId' = $2::text
     and ($3::int is null or (l.value -> 'revision')::int <> $3)
   order by t.id limit $4`,
)
const republishRow = sql(
  'republish_template',
  `update templates set revision = $3, last_revision = $4, updated_at = now() where tenant_id = $1 and id = $2`,
)

/** A template whose published texts take in another one. */
export interface LayoutUser {
  id: Id
  name: string
  /** The other one's revision that it has. */
  revision: number
}

const MAX_NAMED = 5
/** As many are shown, and no more are made anew at once. */
export const MAX_USERS = 500

const usersOf = (
  q: Queryable,
  tenantId: TenantId,
  id: Id,
  limit: number,
  but: number | null = null,
): Promise<LayoutUser[]> => q.rows<LayoutUser>(listUsers, [tenantId, id, but, limit])

/** Templates that are still sent with another revision of this one than the published. */
export const outdatedUsers = (
  q: Queryable,
  tenantId: TenantId,
  { id, publishedRevision }: Pick<Template, 'id' | 'publishedRevision'>,
): Promise<LayoutUser[]> =>
  publishedRevision === null ? Promise.resolve([]) : usersOf(q, tenantId, id, MAX_USERS, publishedRevision)

/**
 * Makes new revisions of all templates that take in another revision of this one than the published, and of those that
 * take in these. Drafts stay drafts, with what is new as well.
 *
 * @throws AppError invalid_template when one of them does not fit any more; conflict when there are too many
 */
export async function republishUsers(tx: Tx, actor: Actor, id: Id, traceId?: string): Promise<void> {
  const { tenantId } = actor
  const shared = await tenantMessages(tx, tenantId)
  const changed = [id]
  let made = 0
  for (const layout of changed) {
    const published = await findTemplate(tx, tenantId, layout)
    for (const user of await outdatedUsers(tx, tenantId, published!)) {
      if (++made > MAX_USERS) {
        throw new AppError(
          'conflict',
          `More than ${MAX_USERS} templates take it in: publish some by themselves.`,
        )
      }
      await republish(tx, actor, user, published!.name, shared, traceId)
      changed.push(user.id)
    }
  }
}

async function republish(
  tx: Tx,
  actor: Actor,
  { id, name }: LayoutUser,
  because: string,
  shared: SharedMessages,
  traceId: string | undefined,
): Promise<void> {
  const { tenantId } = actor
  const before = await lock(tx, tenantId, id)
  const again = async (revision: number): Promise<TemplateDefinition> => {
    const texts = await findTemplate(tx, tenantId, id, revision)
    try {
      return await publishable({ ...texts!, version: undefined }, layoutsOf(tx, tenantId, id), shared)
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      throw new AppError('invalid_template', `The template "${name}": ${error.message}`, {
        ...(error.errors && {
          errors: error.errors.map(({ field, message }) => ({ field, message: `"${name}": ${message}` })),
        }),
      })
    }
  }
  const published = await nextRevision(tx, actor, id, before, await again(before.revision))
  let last = published
  if (before.last > before.revision) {
    last = await nextRevision(tx, actor, id, { ...before, last }, await again(before.last))
  }
  await tx.run(republishRow, [tenantId, id, published, last])
  await audit(tx, actor, {
    action: 'template.republished',
    objectKind: 'template',
    objectId: id,
    details: { name, revision: published, before: before.revision, layout: because },
    traceId,
  })
}

const addRevision = (
  tx: Tx,
  actor: Actor,
  id: Id,
  revision: number,
  version: string,
  {
    locale,
    channels,
    translations,
    variables,
    messages,
    partials,
    layouts = {},
    said = [],
    schemaVersion = '1.0',
  }: TemplateDefinition,
): Promise<number> =>
  tx.run(insertRevision, [
    actor.tenantId,
    id,
    revision,
    version,
    locale,
    JSON.stringify(channels),
    JSON.stringify(translations),
    JSON.stringify(variables),
    JSON.stringify(messages),
    actor.id ?? null,
    schemaVersion,
    JSON.stringify(partials),
    JSON.stringify(layouts),
    [...new Set(Object.values(layouts).map(({ templateId }) => templateId))],
    said,
  ])

async function named(name: string, write: () => Promise<unknown>): Promise<void> {
  try {
    await write()
  } catch (error) {
    if ((error as { code?: string; constraint?: string }).constraint !== 'templates_name') throw error
    throw new AppError('already_exists', `There is a template called "${name}" already.`, { field: '/name' })
  }
}

/** `1.0.0` → `1.0.1`; a version that does not end in a number gives way to the revision's number. */
export function nextVersion(version: string, revision: number): string {
  const [, head, last] = /^(.*?)(\d{1,9})$/.exec(version) ?? []
  return last === undefined ? String(revision) : `${head}${Number(last) + 1}`
}

// -------------------------------------------------------------------------------------------- for planning

export interface WantedTemplate {
  tenantId: TenantId
  templateId: Id
  /** A pinned one; without it the current one, if the template is enabled. */
  revision?: number
}

/** Compiled templates for the pipeline, kept as long as they are current. */
export interface Templates {
  /**
   * Compiled revisions in the order asked for; undefined for what does not exist, is deleted or, where no revision
   * is pinned, disabled. At most one statement, and none when all are at hand.
   */
  load(q: Queryable, wanted: readonly WantedTemplate[]): Promise<(CompiledRevision | undefined)[]>
  /** To be called for changes of kind `template`. */
  forget(tenantId: TenantId, templateId: Id): void
  /** Forgets which revisions are current; compiled ones stay, they never change. */
  reset(): void
}

const loadWanted = sql(
  'load_template_revisions',
  `select w.nr, t.tenant_id, t.id, t.name, r.revision, r.locale, ${TEXTS}
   from unnest($1::int[], $2::uuid[], $3::int[]) with ordinality as w (tenant_id, template_id, revision, nr)
   join templates t on (t.tenant_id, t.id) = (w.tenant_id, w.template_id)
    and (w.revision is not null or (t.enabled and t.deleted_at is null))
   join template_revisions r on (r.tenant_id, r.template_id) = (t.tenant_id, t.id)
    and r.revision = coalesce(w.revision, t.revision)`,
)

interface LoadedRow extends Pick<Row, 'id' | 'name' | 'revision' | 'locale' | Texts> {
  nr: number
  tenant_id: number
}

const MAX_CURRENT = 50_000

export function templates(cache: RevisionCache = revisionCache()): Templates {
  /** The current revision of each, or null for what cannot be used. Its texts are in the cache alone: that has a bound. */
  const current = new Map<string, number | null>()
  // A load that began before a change was heard of may bring what was current before it.
  let changes = 0
  const keyOf = (tenantId: TenantId, templateId: Id) => `${tenantId} ${templateId}`

  const atHand = ({
    tenantId,
    templateId,
    revision,
  }: WantedTemplate): CompiledRevision | null | undefined => {
    const wanted = revision ?? current.get(keyOf(tenantId, templateId))
    return typeof wanted === 'number' ? cache.get(tenantId, templateId, wanted) : wanted
  }

  return {
    async load(q, wanted) {
      const found = wanted.map(atHand)
      const missing = new Map<string, { want: WantedTemplate; places: number[] }>()
      for (const [i, want] of wanted.entries()) {
        if (found[i] !== undefined) continue
        const key = `${keyOf(want.tenantId, want.templateId)} ${want.revision ?? ''}`
        const same = missing.get(key)
        if (same) same.places.push(i)
        else missing.set(key, { want, places: [i] })
      }
      if (missing.size > 0) {
        const heard = changes
        const asked = [...missing.values()]
        const rows = await q.rows<LoadedRow>(loadWanted, [
          asked.map(({ want }) => want.tenantId),
          asked.map(({ want }) => want.templateId),
          asked.map(({ want }) => want.revision ?? null),
        ])
        const compiled = new Map(rows.map(row => [row.nr, cache.compile(row.tenant_id, revisionOf(row))]))
        for (const [nr, { want, places }] of asked.entries()) {
          const result = compiled.get(nr + 1)
          for (const i of places) found[i] = result
          if (want.revision === undefined && heard === changes) {
            if (current.size >= MAX_CURRENT) current.clear()
            current.set(keyOf(want.tenantId, want.templateId), result?.revision.revision ?? null)
          }
        }
      }
      return found.map(compiled => compiled ?? undefined)
    },
    forget(tenantId, templateId) {
      changes++
      current.delete(keyOf(tenantId, templateId))
    },
    reset() {
      changes++
      current.clear()
    },
  }
}

const revisionOf = (row: LoadedRow): TemplateRevision => ({
  templateId: row.id,
  name: row.name,
  revision: row.revision,
  locale: row.locale,
  channels: row.channels,
  translations: row.translations,
  variables: row.variables,
  messages: row.messages,
  partials: row.partials,
  layouts: row.layouts,
})
