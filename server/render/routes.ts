import { isDeepStrictEqual } from 'node:util'
import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import { CHANNELS } from '../types.ts'
import {
  LAYOUTS,
  LINKS,
  canonicalLocale,
  type ChannelContent,
  type TemplateProblem,
  type TemplateRevision,
  VARIABLE_TYPES,
  checkRevision,
  normalizeRevision,
  readBy,
} from './content.ts'
import {
  type LayoutsFor,
  type Template,
  type TemplateDefinition,
  createTemplate,
  deleteTemplate,
  draftTemplate,
  findTemplate,
  layoutsOf,
  listRevisions,
  listTemplates,
  outdatedUsers,
  publishTemplate,
  publishable,
  republishUsers,
  revisionOfVersion,
  updateTemplate,
  withLayouts,
} from './templates.ts'
import { tenantMessages } from './message-store.ts'
import { MAX_KEYS, MAX_MESSAGE, type SharedMessages } from './messages.ts'
import { MAX_OWN_PARTIALS, PARTIAL_NAME } from './partials.ts'
import { missingPictures } from './missing-pictures.ts'
import { warningsOf } from './publish.ts'
import { MAX_SOURCE } from './template.ts'

const closed = { additionalProperties: false }

const Id = Type.String({ format: 'uuid' })
const Time = Type.String({ format: 'date-time' })
const MaybeText = Type.Union([Type.String(), Type.Null()])
const Name = Type.String({ minLength: 1, maxLength: 255, pattern: '\\S' })
const Locale = Type.String({ minLength: 2, maxLength: 35, description: 'BCP 47, such as de or pt-BR.' })
const Version = Type.String({ minLength: 1, maxLength: 50 })
const SchemaVersion = Type.String({
  minLength: 1,
  maxLength: 50,
  description: 'Of the shape of texts and variables, as you count; 1.0 unless stated.',
})
const Source = Type.String({
  maxLength: MAX_SOURCE,
  description: 'Handlebars, or the notation of Go templates, which is stored as Handlebars.',
})

const CONTENT = {
  subject: Type.Optional(Source),
  title: Type.Optional(
    Type.String({ maxLength: MAX_SOURCE, description: 'Used where there is no subject.' }),
  ),
  body: Type.Optional(
    Type.String({ maxLength: MAX_SOURCE, description: 'Text; for slack also a Block Kit document in JSON.' }),
  ),
  html: Type.Optional(Source),
  htmlBody: Type.Optional(Type.String({ maxLength: MAX_SOURCE, description: 'Another name of html.' })),
  mjml: Type.Optional(
    Type.String({ maxLength: MAX_SOURCE, description: 'MJML, from which html is made when it is saved.' }),
  ),
  image: Type.Optional(Type.String({ maxLength: 2_048, description: 'Absolute URL of a picture.' })),
  layout: Type.Optional(
    Type.Enum([...LAYOUTS], {
      description:
        'E-mail: `base` puts the text, or HTML, into a document that clients show well; text gets it unless `none` is stated.',
    }),
  ),
  links: Type.Optional(
    Type.Enum([...LINKS], {
      description:
        'SMS, WhatsApp and push: whether links in the text are made short; unless stated, as the tenant wants it.',
    }),
  ),
  actions: Type.Optional(
    Type.Array(
      Type.Object(
        {
          id: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
          label: Type.String({ minLength: 1, maxLength: 500 }),
          url: Type.Optional(Type.String({ minLength: 1, maxLength: 2_048 })),
        },
        closed,
      ),
      { maxItems: 10, description: 'Buttons: a link, or without one an interaction that comes back.' },
    ),
  ),
  data: Type.Optional(
    Type.Union([Type.Record(Type.String(), Type.Any(), { maxProperties: 1_000 }), Source], {
      description: 'For the channel: an object whose texts are templates, or a template of a JSON object.',
    }),
  ),
}
const Content = Type.Object(CONTENT, closed)

const contents = Object.fromEntries(
  ['default', ...CHANNELS].map(channel => [channel, Type.Optional(Content)]),
)
const Channels = Type.Object(contents, {
  ...closed,
  minProperties: 1,
  description: 'What each channel says; `default` is for channels not named.',
})
const Translations = Type.Record(
  Type.String({ pattern: '^[A-Za-z0-9_-]{2,35}$' }),
  Type.Object({ ...contents, ...CONTENT }, { ...closed, minProperties: 1 }),
  {
    ...closed,
    maxProperties: 100,
    description: 'By locale: contents by channel, or one content for all channels.',
  },
)
const Variables = Type.Array(
  Type.Object(
    {
      name: Type.String({ minLength: 1, maxLength: 255 }),
      type: Type.Optional(Type.Enum([...VARIABLE_TYPES])),
      required: Type.Optional(Type.Boolean()),
      default: Type.Optional(Type.Any()),
    },
    closed,
  ),
  { maxItems: 200, description: 'What the texts expect to be given.' },
)

export const MESSAGE_KEY = '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$'
export const MessagesOfOne = Type.Record(
  Type.String({ pattern: MESSAGE_KEY }),
  Type.String({ maxLength: MAX_MESSAGE }),
  { ...closed, maxProperties: MAX_KEYS },
)
const Messages = Type.Record(Type.String({ pattern: '^[A-Za-z0-9_-]{2,35}$' }), MessagesOfOne, {
  ...closed,
  maxProperties: 100,
  description:
    'ICU messages by locale and key, for `{{t "key"}}`; every key has a message in the language of the template.',
})

const Partials = Type.Record(Type.String({ pattern: PARTIAL_NAME }), Source, {
  ...closed,
  maxProperties: MAX_OWN_PARTIALS,
  description:
    'Texts that the others take in, `{{> name}}`. Other templates, and `base`, are taken in by their names as well.',
})

/** A template as it is written. */
export const TemplateBody = Type.Object(
  {
    name: Name,
    description: Type.Optional(Type.String({ maxLength: 10_000 })),
    category: Type.Optional(Type.String({ maxLength: 255 })),
    tags: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 100 }), { maxItems: 50, uniqueItems: true }),
    ),
    enabled: Type.Optional(Type.Boolean({ description: 'True unless stated.' })),
    version: Type.Optional(Version),
    schemaVersion: Type.Optional(SchemaVersion),
    locale: Type.Optional(Locale),
    channels: Channels,
    translations: Type.Optional(Translations),
    variables: Type.Optional(Variables),
    messages: Type.Optional(Messages),
    partials: Type.Optional(Partials),
  },
  closed,
)
const IsDraft = Type.Optional(
  Type.Boolean({
    description: 'Keep the texts as a draft: nothing is sent with them until it is published.',
  }),
)
const Republish = Type.Optional(
  Type.Boolean({
    description:
      'Make new revisions of the templates that take this one in, so that they are sent with what it says now.',
  }),
)
const New = Type.Object({ ...TemplateBody.properties, draft: IsDraft }, closed)
const Change = Type.Object(
  {
    ...TemplateBody.properties,
    draft: IsDraft,
    republish: Republish,
    revision: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 2 ** 31 - 1,
        description: 'The revision this change was made from: 409 when there is a newer one.',
      }),
    ),
  },
  closed,
)
/** Texts that are not saved. */
export const Draft = Type.Object(
  {
    locale: Type.Optional(Locale),
    channels: Channels,
    translations: Type.Optional(Translations),
    variables: Type.Optional(Variables),
    messages: Type.Optional(Messages),
    partials: Type.Optional(Partials),
  },
  closed,
)

const SUMMARY = {
  id: Id,
  name: Type.String(),
  description: Type.String(),
  category: Type.String(),
  tags: Type.Array(Type.String()),
  enabled: Type.Boolean(),
  revision: Type.Integer({ description: 'Whose texts these are.' }),
  publishedRevision: Type.Union([Type.Integer(), Type.Null()], {
    description: 'What is sent; null while nothing is.',
  }),
  lastRevision: Type.Integer({ description: 'The newest; a draft when it is beyond the published one.' }),
  version: Type.String(),
  schemaVersion: Type.String(),
  locale: Type.String(),
  locales: Type.Array(Type.String(), { description: 'What it is translated to.' }),
  createdBy: MaybeText,
  createdAt: Time,
  updatedAt: Time,
}
const Summary = Type.Object({ ...SUMMARY, channels: Type.Array(Type.String()) })
const Whole = Type.Object({
  ...SUMMARY,
  channels: Type.Record(Type.String(), Type.Any()),
  translations: Type.Record(Type.String(), Type.Any()),
  variables: Type.Array(Type.Any()),
  messages: Type.Record(Type.String(), Type.Any()),
  partials: Type.Record(Type.String(), Type.String()),
  layouts: Type.Array(Type.Object({ name: Type.String(), templateId: Id, revision: Type.Integer() }), {
    description: 'The templates that it takes in, and as which revision.',
  }),
})
const Default = Type.Object({
  name: Type.String(),
  description: Type.String(),
  category: Type.String(),
  tags: Type.Array(Type.String()),
  enabled: Type.Boolean(),
  locale: Type.String(),
  channels: Type.Record(Type.String(), Type.Any()),
  translations: Type.Record(Type.String(), Type.Any()),
  variables: Type.Array(Type.Any()),
  messages: Type.Record(Type.String(), Type.Any()),
  schemaVersion: Type.String(),
  partials: Type.Record(Type.String(), Type.String()),
})
const Revision = Type.Object({
  revision: Type.Integer(),
  status: Type.Enum(['published', 'draft', 'earlier']),
  version: Type.String(),
  locale: Type.String(),
  channels: Type.Array(Type.String()),
  locales: Type.Array(Type.String()),
  createdBy: MaybeText,
  createdAt: Time,
})
const Warnings = Type.Array(Type.Object({ field: Type.String(), message: Type.String() }), {
  description: 'What is worth knowing and no mistake.',
})
const Saved = Type.Object({
  ...Whole.properties,
  warnings: Warnings,
  usedBy: Type.Array(Type.Object({ id: Id, name: Type.String(), revision: Type.Integer() }), {
    description:
      'Templates that are still sent with another revision of this one, and which; `republish` makes them anew.',
  }),
})
const Verdict = Type.Object({
  valid: Type.Boolean(),
  warnings: Warnings,
  errors: Type.Array(
    Type.Object({
      field: Type.String({ description: 'JSON pointer to the text.' }),
      message: Type.String(),
      line: Type.Optional(Type.Integer()),
      column: Type.Optional(Type.Integer()),
    }),
  ),
  fields: Type.Array(Type.String(), { description: 'What the texts read, as paths from the root.' }),
})

const RevisionNumber = Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1 })

const read = { role: 'service', scope: 'templates:read' } as const
const write = { role: 'service', scope: 'templates:write' } as const
const tags = ['Templates']
const byId = Type.Object({ id: Id }, closed)

export interface TemplateRoutesDeps {
  db: Db
  /** Addresses of a tenant's pictures, by name; absent: nothing is said of those that are missing. */
  assets?(tenantId: number): Promise<Readonly<Record<string, string>>>
  /** The templates that come as files, to begin with; absent: there are none. */
  defaults?(): Promise<readonly TemplateDefinition[]>
}

/** Templates and their revisions. */
export function templateRoutes(api: Api, { db, assets, defaults }: TemplateRoutesDeps): void {
  const warned = async (tenantId: number, given: Pick<Texts, 'channels' | 'translations'>) =>
    assets ? missingPictures(given, await assets(tenantId)) : []
  const saved = async (template: Template, tenantId: number) => {
    const shared = await tenantMessages(db, tenantId)
    return {
      ...show(template),
      warnings: [...warningsOf(template, shared), ...(await warned(tenantId, template))],
      usedBy: await outdatedUsers(db, tenantId, template),
    }
  }
  const prepared = async (definition: TemplateDefinition, tenantId: number, self?: string) =>
    publishable(definition, layoutsOf(db, tenantId, self), await tenantMessages(db, tenantId))

  api.post(
    '/api/templates',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'createTemplate',
        summary: 'Make a template',
        body: New,
        response: { 201: Saved },
      },
    },
    async (request, reply) => {
      const { caller, traceId } = request
      const { draft, ...body } = request.body
      const definition = await prepared(templateDefinition(body), caller.tenantId)
      const template = await db.tx(async tx => {
        const id = await createTemplate(tx, caller, definition, traceId, draft)
        return findTemplate(tx, caller.tenantId, id)
      })
      reply.code(201).header('location', `/api/templates/${template!.id}`)
      return saved(template!, caller.tenantId)
    },
  )

  api.get(
    '/api/templates',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listTemplates',
        summary: 'List templates, newest first',
        querystring: Type.Object(
          {
            ...pageQuery,
            name: Type.Optional(Type.String({ maxLength: 255 })),
            search: Type.Optional(
              Type.String({ maxLength: 255, description: 'Part of the name, in any case.' }),
            ),
            category: Type.Optional(Type.String({ maxLength: 255 })),
            tag: Type.Optional(Type.String({ maxLength: 100 })),
            enabled: Type.Optional(Type.Boolean()),
          },
          closed,
        ),
        response: { 200: pageOf(Summary) },
      },
    },
    async request => {
      const { limit, cursor, ...filter } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('templates', cursor, ['id']) as string[])
      const rows = await listTemplates(db, request.caller.tenantId, filter, after, limit + 1)
      return toPage(rows.map(withTimes), limit, last => encodeCursor('templates', [last.id]))
    },
  )

  api.get(
    '/api/templates/defaults',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listTemplateDefaults',
        summary: 'The templates that come as files: what a tenant gets that has none of that name',
        querystring: Type.Object({}, closed),
        response: { 200: Type.Object({ items: Type.Array(Default) }) },
      },
    },
    async () => {
      const items = (await defaults?.()) ?? []
      return {
        items: items.map(({ version: _, schemaVersion = '1.0', ...definition }) => ({
          ...definition,
          schemaVersion,
        })),
      }
    },
  )

  api.get(
    '/api/templates/:id',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getTemplate',
        summary: 'One template, at its published or another revision',
        params: byId,
        querystring: Type.Object(
          {
            revision: Type.Optional(
              Type.Union([RevisionNumber, Type.Literal('last')], {
                description: 'A number, or `last` for the newest, be it a draft.',
              }),
            ),
          },
          closed,
        ),
        response: { 200: Whole },
      },
    },
    async request =>
      show(await existing(db, request.caller.tenantId, request.params.id, request.query.revision)),
  )

  api.put(
    '/api/templates/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'updateTemplate',
        summary: 'Replace a template: makes a new revision',
        description:
          'With `draft` the new revision is kept and not sent; name, category, tags and `enabled` then stay as they are.',
        params: byId,
        body: Change,
        response: { 200: Saved },
      },
    },
    async request => {
      const { caller, traceId, params } = request
      const { revision, draft, republish, ...body } = request.body
      const definition = await prepared(templateDefinition(body), caller.tenantId, params.id)
      const write = draft ? draftTemplate : updateTemplate
      const template = await db.tx(async tx => {
        await write(tx, caller, params.id, definition, revision, traceId)
        if (republish && !draft) await republishUsers(tx, caller, params.id, traceId)
        return findTemplate(tx, caller.tenantId, params.id, 'last')
      })
      return saved(template!, caller.tenantId)
    },
  )

  api.delete(
    '/api/templates/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'deleteTemplate',
        summary: 'Take a template out of use; its revisions stay readable for the past',
        params: byId,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => deleteTemplate(tx, request.caller, request.params.id, request.traceId))
      return reply.code(204).send(null)
    },
  )

  api.get(
    '/api/templates/:id/versions',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listTemplateVersions',
        summary: 'List revisions, latest first',
        params: byId,
        querystring: Type.Object(pageQuery, closed),
        response: { 200: pageOf(Revision) },
      },
    },
    async request => {
      const { limit, cursor } = request.query
      const { tenantId } = request.caller
      const { id } = request.params
      const [before = null] =
        cursor === undefined ? [] : (decodeCursor('template_versions', cursor, ['int']) as number[])
      const rows = await listRevisions(db, tenantId, id, before, limit + 1)
      // Every template has a first revision, so an empty first page means that there is no template.
      if (rows.length === 0 && before === null) throw notFound()
      return toPage(
        rows.map(row => ({ ...row, createdAt: row.createdAt.toISOString() })),
        limit,
        last => encodeCursor('template_versions', [last.revision]),
      )
    },
  )

  api.get(
    '/api/templates/:id/diff',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'diffTemplate',
        summary: 'What differs between two revisions',
        params: byId,
        querystring: Type.Object(
          {
            from: Type.Optional(
              Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1, description: 'Default: the one before.' }),
            ),
            to: Type.Optional(
              Type.Union([RevisionNumber, Type.Literal('last')], {
                description: 'Default: the published one; `last` is the newest, be it a draft.',
              }),
            ),
          },
          closed,
        ),
        response: {
          200: Type.Object({
            from: Type.Integer(),
            to: Type.Integer(),
            changes: Type.Array(
              Type.Object({
                field: Type.String({ description: 'JSON pointer.' }),
                before: Type.Optional(Type.Any()),
                after: Type.Optional(Type.Any()),
              }),
            ),
          }),
        },
      },
    },
    async request => {
      const { tenantId } = request.caller
      const after = await existing(db, tenantId, request.params.id, request.query.to)
      const from = request.query.from ?? Math.max(1, after.revision - 1)
      const before = await existing(db, tenantId, request.params.id, from)
      return {
        from: before.revision,
        to: after.revision,
        changes: [...differences(texts(before), texts(after))],
      }
    },
  )

  api.post(
    '/api/templates/:id/publish',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'publishTemplate',
        summary: 'Send with a draft from now on',
        description: 'Answers 409 when there is no draft newer than what is published.',
        params: byId,
        body: Type.Optional(
          Type.Object(
            {
              revision: Type.Optional(
                Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1, description: 'The newest unless stated.' }),
              ),
              republish: Republish,
            },
            closed,
          ),
        ),
        response: { 200: Saved },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      const template = await db.tx(async tx => {
        await publishTemplate(tx, caller, params.id, body?.revision, traceId)
        if (body?.republish) await republishUsers(tx, caller, params.id, traceId)
        return findTemplate(tx, caller.tenantId, params.id)
      })
      return saved(template!, caller.tenantId)
    },
  )

  api.post(
    '/api/templates/:id/rollback',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'rollBackTemplate',
        summary: 'Make the texts of an earlier revision the current ones: a new revision',
        params: byId,
        body: Type.Object(
          {
            revision: Type.Optional(Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1 })),
            version: Type.Optional(Version),
            republish: Republish,
          },
          { ...closed, minProperties: 1 },
        ),
        response: { 200: Saved },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      if ((body.revision === undefined) === (body.version === undefined)) {
        throw new AppError('invalid_request', 'Give either revision or version', { field: '/revision' })
      }
      const template = await db.tx(async tx => {
        const wanted =
          body.revision ?? (await revisionOfVersion(tx, caller.tenantId, params.id, body.version!))
        const earlier =
          wanted === undefined ? undefined : await findTemplate(tx, caller.tenantId, params.id, wanted)
        if (!earlier) throw notFound()
        await updateTemplate(
          tx,
          caller,
          params.id,
          { ...earlier, version: undefined },
          undefined,
          traceId,
          true,
        )
        if (body.republish) await republishUsers(tx, caller, params.id, traceId)
        return findTemplate(tx, caller.tenantId, params.id)
      })
      return saved(template!, caller.tenantId)
    },
  )

  api.post(
    '/api/templates/:id/localize',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'localizeTemplate',
        summary: 'Add or replace one language: a new revision',
        description: 'With `draft` it is added to the newest draft, and not sent until that is published.',
        params: byId,
        body: Type.Object(
          {
            locale: Locale,
            channels: Type.Optional(Channels),
            content: Type.Optional(Type.Object(CONTENT, { ...closed, minProperties: 1 })),
            messages: Type.Optional(MessagesOfOne),
            draft: IsDraft,
            republish: Republish,
          },
          closed,
        ),
        response: { 200: Saved },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      const given = [body.channels, body.content].filter(one => one !== undefined).length
      if (given > 1 || (given === 0 && body.messages === undefined)) {
        throw new AppError('invalid_request', 'Give messages, and channels or one content for all', {
          field: '/channels',
        })
      }
      const locale = canonicalLocale(body.locale)
      if (locale === undefined) {
        throw new AppError('invalid_request', `"${body.locale}" is not a BCP 47 locale`, { field: '/locale' })
      }
      const translation = body.channels ? byName(body.channels) : body.content && contentOf(body.content)
      const current = await existing(db, caller.tenantId, params.id, body.draft ? 'last' : undefined)
      const definition = await prepared(
        {
          ...current,
          version: undefined,
          ...(translation && { translations: { ...current.translations, [locale]: translation } }),
          ...(body.messages && { messages: { ...current.messages, [locale]: body.messages } }),
        },
        caller.tenantId,
        params.id,
      )
      const write = body.draft ? draftTemplate : updateTemplate
      const template = await db.tx(async tx => {
        // The other languages are those that were just read: somebody else's change in between is not undone.
        await write(tx, caller, params.id, definition, current.revision, traceId)
        if (body.republish && !body.draft) await republishUsers(tx, caller, params.id, traceId)
        return findTemplate(tx, caller.tenantId, params.id, 'last')
      })
      return saved(template!, caller.tenantId)
    },
  )

  api.post(
    '/api/templates/:id/validate',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'validateTemplate',
        summary: 'Check the texts of a template, or of a draft of it, without saving',
        params: byId,
        body: Type.Optional(Type.Union([Draft, Type.Null()])),
        response: { 200: Verdict },
      },
    },
    async request => {
      const template = await existing(db, request.caller.tenantId, request.params.id)
      const given = { ...template, ...(request.body && textsOf(request.body)) }
      const { tenantId } = request.caller
      const shared = await tenantMessages(db, tenantId)
      const verdict = await verdictOn(given, layoutsOf(db, tenantId, template.id), shared)
      if (verdict.valid) verdict.warnings.push(...(await warned(request.caller.tenantId, given)))
      return verdict
    },
  )
}

/** What a revision says, without what every revision has of its own. */
const texts = ({
  schemaVersion,
  locale,
  channels,
  translations,
  variables,
  messages,
  partials,
  layouts,
}: Template) => ({
  schemaVersion,
  locale,
  channels,
  translations,
  variables,
  messages,
  partials,
  layouts,
})

/** Leaf by leaf, with a JSON pointer. */
function* differences(
  before: unknown,
  after: unknown,
  field = '',
): Iterable<{ field: string; before?: unknown; after?: unknown }> {
  if (isDeepStrictEqual(before, after)) return
  const nested = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null
  if (!nested(before) || !nested(after) || Array.isArray(before) !== Array.isArray(after)) {
    yield { field, ...(before !== undefined && { before }), ...(after !== undefined && { after }) }
    return
  }
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    yield* differences(before[key], after[key], `${field}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`)
  }
}

const notFound = () => new AppError('not_found', 'There is no template with this id.')

async function existing(db: Db, tenantId: number, id: string, revision?: number | 'last'): Promise<Template> {
  const template = await findTemplate(db, tenantId, id, revision)
  if (!template) throw notFound()
  return template
}

// ------------------------------------------------------------------------------------------------- shapes

type Texts = Pick<
  TemplateDefinition,
  'locale' | 'channels' | 'translations' | 'variables' | 'messages' | 'partials'
>

/** As it is stored, but for what publishing makes of its texts. */
export const templateDefinition = (body: Static<typeof TemplateBody>): TemplateDefinition => ({
  name: body.name.trim(),
  description: body.description ?? '',
  category: body.category ?? '',
  tags: body.tags ?? [],
  enabled: body.enabled ?? true,
  ...(body.version !== undefined && { version: body.version }),
  schemaVersion: body.schemaVersion ?? '1.0',
  ...textsOf(body),
})

/** The schema has checked the shape; what remains is the second name of html. */
export function textsOf(body: Static<typeof Draft>): Texts {
  const translations: Texts['translations'] = {}
  for (const [tag, given] of Object.entries(body.translations ?? {})) {
    translations[tag] = { ...byName(given), ...contentOf(given) }
  }
  return {
    locale: body.locale ?? 'en',
    channels: byName(body.channels),
    translations,
    variables: body.variables ?? [],
    messages: body.messages ?? {},
    partials: body.partials ?? {},
  }
}

type WrittenContent = ChannelContent & { htmlBody?: string }

const CHANNEL_NAMES: readonly string[] = ['default', ...CHANNELS]

const byName = (given: object): TemplateRevision['channels'] =>
  Object.fromEntries(
    Object.entries(given)
      .filter(([name]) => CHANNEL_NAMES.includes(name))
      .map(([name, content]) => [name, contentOf(content as WrittenContent)]),
  )

function contentOf(given: WrittenContent): ChannelContent {
  const { subject, title, body, html, htmlBody, mjml, image, layout, links, actions, data } = given
  return {
    ...(subject !== undefined && { subject }),
    ...(title !== undefined && { title }),
    ...(body !== undefined && { body }),
    ...((html ?? htmlBody) !== undefined && { html: html ?? htmlBody }),
    ...(mjml !== undefined && { mjml }),
    ...(image !== undefined && { image }),
    ...(layout !== undefined && { layout }),
    ...(links !== undefined && { links }),
    ...(actions !== undefined && { actions }),
    ...(data !== undefined && { data }),
  }
}

const withTimes = <T extends { createdAt: Date; updatedAt: Date }>(item: T) => ({
  ...item,
  createdAt: item.createdAt.toISOString(),
  updatedAt: item.updatedAt.toISOString(),
})

const show = (template: Template) => ({
  ...withTimes(template),
  locales: Object.keys(template.translations),
  layouts: Object.entries(template.layouts).map(([name, { templateId, revision }]) => ({
    name,
    templateId,
    revision,
  })),
})

async function verdictOn(
  given: TemplateDefinition,
  layoutsFor: LayoutsFor,
  shared: SharedMessages,
): Promise<Static<typeof Verdict>> {
  let errors: TemplateProblem[]
  let prepared: TemplateDefinition = given
  try {
    prepared = normalizeRevision(await withLayouts(given, layoutsFor))
    errors = checkRevision(prepared, shared)
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== 'invalid_template') throw error
    errors = error.errors ?? [{ field: '', message: error.message }]
  }
  const valid = errors.length === 0
  return {
    valid,
    errors: errors.slice(0, 100),
    fields: valid ? readBy(prepared, shared).fields : [],
    warnings: valid ? warningsOf(prepared, shared) : [],
  }
}
