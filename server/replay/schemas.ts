import { type TSchema, Type } from 'typebox'
import { InhibitionBody, SilenceBody } from '../alerts/routes.ts'
import { LimitBody } from '../limits/routes.ts'
import { PolicySchema } from '../match/policy-schema.ts'
import { RuleBody } from '../match/routes.ts'
import { FILE_FIELDS } from '../render/file-texts.ts'
import { MessagesBody } from '../render/messages-routes.ts'
import { TemplateBody } from '../render/routes.ts'

/** What each kind of document is: exactly the body that the API takes, but that a silence starts when it is pushed. */
export const BODIES = {
  messages: MessagesBody,
  templates: TemplateBody,
  rules: RuleBody,
  limits: LimitBody,
  silences: SilenceBody,
  inhibitions: InhibitionBody,
} as const

export const SCHEMA_NAMES = [...(Object.keys(BODIES) as (keyof typeof BODIES)[]), 'test'] as const
export type SchemaName = (typeof SCHEMA_NAMES)[number]

const closed = { additionalProperties: false }
const Text = Type.String()
const Instant = Type.String({
  description: 'ISO 8601 with a zone (2026-11-21T07:00:00Z), or +90s, +10m, +2h, +1d after the start.',
})
const Channel = Type.String({ description: 'email, in_app, sms … (docs/guides/providers.md)' })
const Opinion = Type.Object(
  { scope: Type.Optional(Text), channel: Type.Optional(Channel), enabled: Type.Optional(Type.Boolean()) },
  {
    description:
      'A row as PUT /api/preferences/{userId}/opinions takes it; without a scope about everything.',
  },
)

/** One document of a `*.test.yaml` (server/replay/story.ts reads it). */
const Story = Type.Object(
  {
    name: Type.Optional(Text),
    start: Type.Optional(Instant),
    users: Type.Optional(
      Type.Record(
        Type.String(),
        Type.Union([
          Type.Null(),
          Type.Object(
            {
              timezone: Type.Optional(Text),
              locale: Type.Optional(Text),
              attributes: Type.Optional(Type.Record(Type.String(), Type.Any())),
              enabled: Type.Optional(Type.Boolean()),
              addresses: Type.Optional(Type.Record(Type.String(), Text)),
              groups: Type.Optional(Type.Array(Text)),
              roles: Type.Optional(Type.Array(Text)),
              topics: Type.Optional(Type.Record(Type.String(), Type.Enum(['ALL', 'IMPORTANT', 'NONE']))),
              preferences: Type.Optional(Type.Array(Opinion)),
            },
            closed,
          ),
        ]),
      ),
    ),
    defaults: Type.Optional(Type.Array(Opinion)),
    events: Type.Optional(
      Type.Array(
        Type.Object(
          {
            at: Type.Optional(Instant),
            type: Text,
            source: Type.Optional(Text),
            subject: Type.Optional(Text),
            data: Type.Optional(Type.Record(Type.String(), Type.Any())),
            priority: Type.Optional(Text),
            category: Type.Optional(Text),
            scheduledAt: Type.Optional(Instant),
            expiresAt: Type.Optional(Instant),
          },
          closed,
        ),
      ),
    ),
    expect: Type.Optional(
      Type.Array(
        Type.Object(
          {
            to: Text,
            channel: Type.Optional(Channel),
            at: Type.Optional(Instant),
            subject: Type.Optional(Type.String({ description: 'A part of it, or /an expression/.' })),
            body: Type.Optional(Type.String({ description: 'A part of it, or /an expression/.' })),
            rule: Type.Optional(Text),
            items: Type.Optional(Type.Integer({ minimum: 1 })),
            not: Type.Optional(
              Type.Union([Type.Literal(true), Text], {
                description: 'true: not at all. A reason: for this one.',
              }),
            ),
          },
          closed,
        ),
      ),
    ),
    others: Type.Optional(Type.Enum(['fail', 'allow'], { description: 'Messages that nobody expected.' })),
  },
  closed,
)

/** JSON Schema 2020-12 of one kind of document, for editors and other tools. */
export function schemaOf(name: SchemaName): Record<string, unknown> {
  const schema: TSchema =
    name === 'test'
      ? Story
      : name === 'rules'
        ? Type.Object({ ...RuleBody.properties, policy: Type.Optional(PolicySchema) }, closed)
        : BODIES[name]
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: name === 'test' ? 'A story of Carillon' : `One of the ${name} of Carillon`,
    ...(name === 'templates' ? withFiles(schema) : plain(schema)),
  }
}

type Plain = Record<string, unknown>

const plain = (schema: TSchema): Plain => JSON.parse(JSON.stringify(schema)) as Plain

/** In a folder a text of a template may stand in a file of its own (file-texts.ts). */
function withFiles(schema: TSchema): Plain {
  const orFile = (text: unknown) => ({ anyOf: [text, { $ref: '#/$defs/file' }] })
  const walk = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(walk)
    if (typeof value !== 'object' || value === null) return value
    const walked = Object.fromEntries(Object.entries(value).map(([key, member]) => [key, walk(member)]))
    const { properties } = walked as { properties?: Plain }
    if (!properties || !('html' in properties)) return walked
    for (const field of FILE_FIELDS) if (field in properties) properties[field] = orFile(properties[field])
    return walked
  }
  const walked = walk(plain(schema)) as Plain & { properties: Record<string, Plain> }
  const partials = walked.properties['partials']!
  for (const [pattern, text] of Object.entries(partials['patternProperties'] as Plain)) {
    partials['patternProperties'] = { [pattern]: orFile(text) }
  }
  const file = {
    type: 'object',
    required: ['file'],
    properties: { file: { type: 'string', description: 'Below the folder of this file: email/goal.hbs' } },
    ...closed,
  }
  return { ...walked, $defs: { file } }
}
