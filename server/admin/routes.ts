import { type Static, Type } from 'typebox'
import { idFloor } from '../db/ids.ts'
import { type Db, sql } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import { AppError } from '../errors.ts'
import { type Api, SCOPES } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import type { JsonObject } from '../types.ts'
import { createKey, type KeyInfo, listKeys, requireGrantable, revokeKey } from './keys.ts'
import { createTenant, listTenants, type Tenant, updateTenant } from './tenants.ts'

export interface AdminDeps {
  db: Db
  sealer: Pick<Sealer, 'newDataKey'>
  /** Lets this process forget cached credentials at once; the others learn of it by `changes`. */
  auth: { forget(): void }
}

const Time = Type.String({ format: 'date-time' })
const MaybeTime = Type.Union([Time, Type.Null()])
const Id = Type.String({ format: 'uuid' })
const Name = Type.String({ minLength: 1, maxLength: 200 })
const Scopes = Type.Array(Type.Enum(SCOPES), {
  maxItems: SCOPES.length,
  uniqueItems: true,
  description: 'What the key may do; empty: everything its role may.',
})
const KeyRole = Type.Enum(['admin', 'service'])

const Key = Type.Object({
  id: Id,
  name: Name,
  prefix: Type.String({ description: 'The first characters of the key, to recognise it by.' }),
  role: KeyRole,
  scopes: Scopes,
  createdAt: Time,
  expiresAt: MaybeTime,
  revokedAt: MaybeTime,
  lastUsedAt: Type.Union([Time, Type.Null()], { description: 'Exact to about a minute.' }),
})
const NewKey = Type.Object({
  ...Key.properties,
  key: Type.String({ description: 'The key itself. It is shown this once and cannot be shown again.' }),
})

const TenantName = Type.String({ pattern: '^[a-z0-9][a-z0-9_-]{0,62}$' })
const DisplayName = Type.String({ maxLength: 200 })
const TenantShape = Type.Object({
  id: Type.Integer(),
  name: TenantName,
  displayName: DisplayName,
  enabled: Type.Boolean(),
  locale: Type.Union([Type.String(), Type.Null()]),
  createdAt: Time,
})
const NewTenant = Type.Object({
  ...TenantShape.properties,
  adminKey: Type.String({ description: "The tenant's first admin key. It is shown this once." }),
})

const AuditRow = Type.Object({
  id: Id,
  at: Time,
  actor: Type.Object({
    kind: Type.Enum(['system', 'user', 'key']),
    id: Type.Union([Type.String(), Type.Null()]),
  }),
  action: Type.String(),
  objectKind: Type.String(),
  objectId: Type.String(),
  details: Type.Record(Type.String(), Type.Any()),
  traceId: Type.Union([Type.String(), Type.Null()]),
})

interface AuditRecord {
  id: string
  at: Date
  actor_kind: Static<typeof AuditRow>['actor']['kind']
  actor_id: string | null
  action: string
  object_kind: string
  object_id: string
  details: JsonObject
  trace_id: string | null
}

const listAudit = sql(
  'list_audit',
  `select id, at, actor_kind, actor_id, action, object_kind, object_id, details, trace_id
   from audit
   where tenant_id = $1
     and ($2::uuid is null or id < $2) and ($3::uuid is null or id >= $3) and ($4::uuid is null or id < $4)
     and ($5::text is null or object_kind = $5) and ($6::text is null or object_id = $6)
     and ($7::text is null or action = $7) and ($8::text is null or actor_id = $8)
   order by id desc limit $9`,
)

const read = { role: 'admin', scope: 'admin:read' } as const
const write = { role: 'admin', scope: 'admin:write' } as const

/** Keys, tenants and the audit trail. */
export function adminRoutes(api: Api, { db, sealer, auth }: AdminDeps): void {
  api.post(
    '/api/keys',
    {
      config: { access: write },
      schema: {
        tags: ['Access'],
        operationId: 'createKey',
        summary: 'Make an API key',
        body: Type.Object(
          { name: Name, role: KeyRole, scopes: Type.Optional(Scopes), expiresAt: Type.Optional(Time) },
          { additionalProperties: false },
        ),
        response: { 201: NewKey },
      },
    },
    async (request, reply) => {
      const { name, role, scopes = [], expiresAt } = request.body
      requireGrantable(request.caller, scopes)
      const expires = expiresAt === undefined ? undefined : new Date(expiresAt)
      if (expires !== undefined && expires <= new Date()) {
        throw new AppError('invalid_request', 'expiresAt lies in the past.', { field: '/expiresAt' })
      }
      const { key, ...info } = await db.tx(tx =>
        createKey(tx, request.caller, { name, role, scopes, expiresAt: expires }, request.traceId),
      )
      reply.code(201).header('location', `/api/keys/${info.id}`).header('cache-control', 'no-store')
      return { ...showKey(info), key }
    },
  )

  api.get(
    '/api/keys',
    {
      config: { access: read },
      schema: {
        tags: ['Access'],
        operationId: 'listKeys',
        summary: 'List API keys, newest first',
        querystring: Type.Object(pageQuery, { additionalProperties: false }),
        response: { 200: pageOf(Key) },
      },
    },
    async request => {
      const { limit, cursor } = request.query
      const [after = null] = cursor === undefined ? [] : (decodeCursor('keys', cursor, ['id']) as string[])
      const rows = await listKeys(db, request.caller.tenantId, after, limit + 1)
      return toPage(rows.map(showKey), limit, last => encodeCursor('keys', [last.id]))
    },
  )

  api.delete(
    '/api/keys/:id',
    {
      config: { access: write },
      schema: {
        tags: ['Access'],
        operationId: 'revokeKey',
        summary: 'Revoke an API key, for good',
        params: Type.Object({ id: Id }, { additionalProperties: false }),
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => revokeKey(tx, request.caller, request.params.id, request.traceId))
      auth.forget()
      return reply.code(204).send(null)
    },
  )

  api.get(
    '/api/audit',
    {
      config: { access: read },
      schema: {
        tags: ['Audit'],
        operationId: 'listAudit',
        summary: 'Who changed what, newest first',
        querystring: Type.Object(
          {
            ...pageQuery,
            objectKind: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
            objectId: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
            action: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
            actorId: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
            from: Type.Optional(Type.String({ format: 'date-time', description: 'Not before.' })),
            to: Type.Optional(Type.String({ format: 'date-time', description: 'Before.' })),
          },
          { additionalProperties: false },
        ),
        response: { 200: pageOf(AuditRow) },
      },
    },
    async request => {
      const { limit, cursor, objectKind, objectId, action, actorId, from, to } = request.query
      const [after = null] = cursor === undefined ? [] : decodeCursor('audit', cursor, ['id'])
      const rows = await db.rows<AuditRecord>(listAudit, [
        request.caller.tenantId,
        after,
        from === undefined ? null : idFloor(Date.parse(from)),
        to === undefined ? null : idFloor(Date.parse(to)),
        objectKind ?? null,
        objectId ?? null,
        action ?? null,
        actorId ?? null,
        limit + 1,
      ])
      return toPage(rows.map(showAudit), limit, last => encodeCursor('audit', [last.id]))
    },
  )

  api.post(
    '/api/tenants',
    {
      config: { access: { ...write, operator: true } },
      schema: {
        tags: ['Tenants'],
        operationId: 'createTenant',
        summary: 'Make a tenant, with its first admin key',
        body: Type.Object(
          { name: TenantName, displayName: Type.Optional(DisplayName) },
          { additionalProperties: false },
        ),
        response: { 201: NewTenant },
      },
    },
    async (request, reply) => {
      const { caller, traceId } = request
      // The new key holds every scope of its tenant, so a scoped creator would hand on more than it has.
      requireGrantable(caller, [])
      const { tenant, adminKey } = await db.tx(async tx => {
        const tenant = await createTenant(tx, sealer, caller, request.body, traceId)
        const actor = { tenantId: tenant.id, kind: 'system' } as const
        const { key } = await createKey(tx, actor, { name: 'first admin', role: 'admin' }, traceId)
        return { tenant, adminKey: key }
      })
      auth.forget()
      reply.code(201).header('location', `/api/tenants/${tenant.name}`).header('cache-control', 'no-store')
      return { ...showTenant(tenant), adminKey }
    },
  )

  api.get(
    '/api/tenants',
    {
      config: { access: { ...read, operator: true } },
      schema: {
        tags: ['Tenants'],
        operationId: 'listTenants',
        summary: 'List tenants, oldest first',
        querystring: Type.Object(pageQuery, { additionalProperties: false }),
        response: { 200: pageOf(TenantShape) },
      },
    },
    async request => {
      const { limit, cursor } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('tenants', cursor, ['int']) as number[])
      const rows = await listTenants(db, after, limit + 1)
      return toPage(rows.map(showTenant), limit, last => encodeCursor('tenants', [last.id]))
    },
  )

  api.patch(
    '/api/tenants/:name',
    {
      config: { access: { ...write, operator: true } },
      schema: {
        tags: ['Tenants'],
        operationId: 'updateTenant',
        summary: 'Rename, disable or enable a tenant, or say in which language it writes',
        params: Type.Object({ name: TenantName }, { additionalProperties: false }),
        body: Type.Object(
          {
            displayName: Type.Optional(DisplayName),
            enabled: Type.Optional(Type.Boolean()),
            locale: Type.Optional(
              Type.Union([Type.String({ minLength: 2, maxLength: 35 }), Type.Null()], {
                description:
                  'BCP 47: what texts are in where the language of the reader is missing. Null: as each template is written.',
              }),
            ),
          },
          { additionalProperties: false, minProperties: 1 },
        ),
        response: { 200: TenantShape },
      },
    },
    async request => {
      const { caller, body, params, traceId } = request
      const tenant = await db.tx(tx => updateTenant(tx, caller, params.name, body, traceId))
      auth.forget()
      return showTenant(tenant)
    },
  )
}

const iso = (time: Date | null): string | null => time?.toISOString() ?? null

function showKey(key: KeyInfo): Static<typeof Key> {
  const { id, name, prefix, role, scopes, createdAt, expiresAt, revokedAt, lastUsedAt } = key
  return {
    id,
    name,
    prefix,
    role,
    scopes,
    createdAt: createdAt.toISOString(),
    expiresAt: iso(expiresAt),
    revokedAt: iso(revokedAt),
    lastUsedAt: iso(lastUsedAt),
  }
}

const showTenant = (tenant: Tenant): Static<typeof TenantShape> => ({
  ...tenant,
  createdAt: tenant.createdAt.toISOString(),
})

const showAudit = (row: AuditRecord): Static<typeof AuditRow> => ({
  id: row.id,
  at: row.at.toISOString(),
  actor: { kind: row.actor_kind, id: row.actor_id },
  action: row.action,
  objectKind: row.object_kind,
  objectId: row.object_id,
  details: row.details,
  traceId: row.trace_id,
})
