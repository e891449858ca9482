import { type Static, Type } from 'typebox'
import { newId } from '../db/ids.ts'
import { type Db, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { getUser } from '../people/users.ts'
import { smsSize } from '../sms-size.ts'
import { CHANNEL_SPELLINGS, readChannel } from '../spelling.ts'
import type { Channel, Content, JsonObject, TenantId } from '../types.ts'
import { compileRevision, render } from './content.ts'
import { tenantMessages } from './message-store.ts'
import { type Draft, type PreviewLinks, previewLinks, renderDraft } from './preview.ts'
import { CLIPPED_BYTES } from './publish.ts'
import { Draft as DraftTexts, textsOf } from './routes.ts'
import {
  type Template,
  type TemplateDefinition,
  findTemplate,
  layoutsOf,
  resolveTemplates,
} from './templates.ts'
import { templateView } from './view.ts'
import type { ViewInput } from './view.ts'

const closed = { additionalProperties: false }
const Data = Type.Record(Type.String({ minLength: 1, maxLength: 255 }), Type.Any(), { maxProperties: 1_000 })
const ChannelName = Type.Enum([...CHANNEL_SPELLINGS])
const Named = Type.String({ minLength: 1, maxLength: 255, description: 'Id or unique name.' })
const UserId = Type.String({ minLength: 1, maxLength: 255 })
const Locale = Type.String({ minLength: 2, maxLength: 35 })

const Body = Type.Object(
  {
    templateId: Type.Optional(Named),
    revision: Type.Optional(
      Type.Union([Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1 }), Type.Literal('last')], {
        description: 'Default: the published one; `last` is the newest, be it a draft.',
      }),
    ),
    draft: Type.Optional(DraftTexts),
    userId: Type.Optional(UserId),
    locale: Type.Optional(Locale),
    channel: Type.Optional(ChannelName),
    data: Type.Optional(Data),
  },
  closed,
)
const Rendered = Type.Object({
  templateId: Type.Optional(Type.String()),
  revision: Type.Optional(Type.Integer()),
  channel: Type.String(),
  locale: Type.String(),
  size: Type.Object(
    {
      html: Type.Optional(Type.Integer({ description: 'Bytes; Gmail shows the first 102 KiB.' })),
      sms: Type.Optional(
        Type.Object({
          encoding: Type.Enum(['gsm7', 'ucs2']),
          units: Type.Integer(),
          segments: Type.Integer({ description: 'What is paid for.' }),
        }),
      ),
    },
    { description: 'How large it is where that matters.' },
  ),
  warnings: Type.Array(Type.String()),
  content: Type.Object({
    subject: Type.Optional(Type.String()),
    body: Type.String(),
    html: Type.Optional(Type.String()),
    image: Type.Optional(Type.String()),
    language: Type.Optional(Type.String()),
    actions: Type.Optional(Type.Array(Type.Any())),
    attachments: Type.Optional(Type.Array(Type.Any())),
    data: Type.Optional(Type.Record(Type.String(), Type.Any())),
  }),
})

const tenantFacts = sql('tenant_for_preview', `select name, locale from tenants where id = $1`)

const access = { role: 'service', scope: 'templates:read' } as const
const tags = ['Content']

export interface PreviewRoutesDeps {
  db: Db
  now?: () => Date
  /** Addresses of a tenant's pictures, by name. */
  assets?(tenantId: TenantId): Promise<Readonly<Record<string, string>>>
  /** How links in texts of a channel are made short; undefined: not on this channel. */
  links?(tenantId: TenantId, channel: Channel): Promise<PreviewLinks | undefined>
}

/**
 * What a template, saved or not, would say to somebody. Nothing is sent.
 *
 * A saved template was checked when it was saved, and is rendered here; a draft is rendered in a thread of its own.
 */
export function previewRoutes(
  api: Api,
  { db, now = () => new Date(), assets, links }: PreviewRoutesDeps,
): void {
  const answer = async (tenantId: TenantId, body: Static<typeof Body>, data?: JsonObject) =>
    show(
      db,
      tenantId,
      body,
      data ?? (body.data as JsonObject | undefined) ?? {},
      now(),
      await assets?.(tenantId),
      links,
    )

  for (const [path, operationId, summary] of [
    ['/api/notifications/preview', 'previewNotification', 'Show what a template, saved or not, would say'],
    [
      '/api/notifications/generate',
      'generateContent',
      'Generate the content of a notification, without sending it',
    ],
    [
      '/api/notifications/personalize',
      'personalizeContent',
      'Generate the content for one person: in their language, with what is known of them',
    ],
  ] as const) {
    api.post(
      path,
      { config: { access }, schema: { tags, operationId, summary, body: Body, response: { 200: Rendered } } },
      async request => {
        if (operationId === 'personalizeContent' && request.body.userId === undefined) {
          throw new AppError('invalid_request', 'Say for whom', { field: '/userId' })
        }
        return answer(request.caller.tenantId, request.body)
      },
    )
  }

  api.get(
    '/api/notifications/preview',
    {
      config: { access },
      schema: {
        tags,
        operationId: 'previewNotificationByQuery',
        summary: 'The same by query, for links',
        querystring: Type.Object(
          {
            templateId: Named,
            userId: Type.Optional(UserId),
            locale: Type.Optional(Locale),
            channel: Type.Optional(ChannelName),
            data: Type.Optional(Type.String({ maxLength: 20_000, description: 'A JSON object.' })),
          },
          closed,
        ),
        response: { 200: Rendered },
      },
    },
    async request => {
      const { data, ...query } = request.query
      return answer(request.caller.tenantId, query, data === undefined ? {} : parsed(data))
    },
  )
}

function parsed(text: string): JsonObject {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject
  throw new AppError('invalid_request', 'data is a JSON object', { field: '/data' })
}

async function show(
  db: Db,
  tenantId: TenantId,
  { templateId, revision, draft, userId, locale, channel: named }: Static<typeof Body>,
  data: JsonObject,
  now: Date,
  assets: ViewInput['assets'],
  links: PreviewRoutesDeps['links'],
): Promise<Static<typeof Rendered>> {
  if ((templateId === undefined) === (draft === undefined)) {
    throw new AppError('invalid_request', 'Give either templateId or draft', { field: '/templateId' })
  }
  const tenant = (await db.one<{ name: string; locale: string | null }>(tenantFacts, [tenantId]))!
  const user = userId === undefined ? undefined : await getUser(db, tenantId, userId)
  const reader = locale ?? user?.locale ?? tenant.locale ?? 'en'
  const view: ViewInput = {
    event: {
      id: newId(now.getTime()),
      type: 'preview',
      source: 'api',
      subject: undefined,
      time: now.toISOString(),
      data,
      priority: undefined,
      category: undefined,
    },
    user: user
      ? { id: user.userId, locale: reader, timezone: user.timezone, attributes: user.attributes }
      : { id: 'preview', locale: reader },
    notification: { id: newId(now.getTime()), priority: 'NORMAL' },
    tenant: { name: tenant.name, ...(tenant.locale !== null && { locale: tenant.locale }) },
    ...(assets && { assets }),
    now,
  }
  const messages = await tenantMessages(db, tenantId)
  const wanted = named === undefined ? undefined : readChannel(named)!
  if (draft) {
    const texts = textsOf(draft)
    const channel = wanted ?? first(texts.channels)
    const definition: TemplateDefinition = {
      name: 'draft',
      description: '',
      category: '',
      tags: [],
      enabled: true,
      ...texts,
    }
    const layouts = await layoutsOf(db, tenantId)(definition)
    const content = await renderDraft({
      definition: { ...definition, layouts },
      channel,
      locale: reader,
      view,
      messages: messages.sources,
      links: await links?.(tenantId, channel),
    } satisfies Draft)
    return { channel, locale: reader, ...sized(channel, content), content: shown(content) }
  }
  const template = await saved(db, tenantId, templateId!, revision)
  const channel = wanted ?? first(template.channels)
  const compiled = compileRevision({ ...template, templateId: template.id })
  const short = await links?.(tenantId, channel)
  const content = render(
    compiled,
    channel,
    reader,
    templateView({ ...view, messages, links: short && previewLinks(short) }),
  )
  return {
    templateId: template.id,
    revision: template.revision,
    channel,
    locale: reader,
    ...sized(channel, content),
    content: shown(content),
  }
}

/** How large a text is, and what follows from it. */
function sized(channel: Channel, { body, html }: Content) {
  const bytes = html === undefined ? undefined : Buffer.byteLength(html)
  const sms = channel === 'sms' ? smsSize(body) : undefined
  const warnings: string[] = []
  if (bytes !== undefined && bytes > CLIPPED_BYTES) {
    warnings.push(`The HTML has ${bytes} bytes; Gmail shows only the first ${CLIPPED_BYTES}`)
  }
  if (sms && sms.segments > 1) warnings.push(`The text takes ${sms.segments} SMS`)
  return { size: { ...(bytes !== undefined && { html: bytes }), ...(sms && { sms }) }, warnings }
}

const first = (channels: object): Channel => {
  const [name] = Object.keys(channels)
  return name === undefined || name === 'default' ? 'in_app' : (name as Channel)
}

async function saved(
  db: Db,
  tenantId: TenantId,
  asked: string,
  revision: number | 'last' | undefined,
): Promise<Template> {
  const id = (await resolveTemplates(db, tenantId, [asked])).get(asked)
  const template = id === undefined ? undefined : await findTemplate(db, tenantId, id, revision)
  if (!template) throw new AppError('not_found', 'There is no template with this id or name.')
  return template
}

const shown = ({ subject, body, html, image, language, actions, attachments, data }: Content) => ({
  body,
  ...(subject !== undefined && { subject }),
  ...(html !== undefined && { html }),
  ...(image !== undefined && { image }),
  ...(language !== undefined && { language }),
  ...(actions !== undefined && { actions }),
  ...(attachments !== undefined && { attachments }),
  ...(data !== undefined && { data }),
})
