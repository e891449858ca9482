import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import {
  type Audience,
  addMembers,
  createAudience,
  deleteAudience,
  describeAudience,
  getAudience,
  listAudiences,
  listMembers,
  removeMembers,
  subscribe,
} from './audiences.ts'
import type { AudienceKind } from './facts.ts'
import { AudienceNameField, LevelField, TimeField, UserIdField } from './fields.ts'
import { getUser, lockUser } from './users.ts'

const MAX_MEMBERS = 10_000
/** So many ids of 255 characters, none of them ASCII. */
const MEMBERS_BODY_BYTES = 12 * 1024 * 1024

const AudienceSchema = Type.Object({
  name: Type.String(),
  description: Type.String(),
  createdAt: TimeField,
})
const Description = Type.String({ maxLength: 2000 })
const Params = Type.Object({ name: AudienceNameField }, { additionalProperties: false })
const UserIds = Type.Array(UserIdField, { minItems: 1, maxItems: MAX_MEMBERS })
const Member = Type.Object({ userId: Type.String(), since: TimeField })
const Subscriber = Type.Object({ userId: Type.String(), level: LevelField, since: TimeField })
const Subscription = Type.Object({ name: Type.String(), level: LevelField })

const read = { role: 'service', scope: 'people:read' } as const
const write = { role: 'service', scope: 'people:write' } as const

/** Groups, roles and topics, which differ in name, and in that a topic's members choose how much they want. */
export function audiencesRoutes(api: Api, { db }: { db: Db }): void {
  audienceRoutes(api, db, 'group', 'Groups')
  audienceRoutes(api, db, 'role', 'Roles')
  audienceRoutes(api, db, 'topic', 'Topics')
  subscriptionRoutes(api, db)
}

function audienceRoutes(api: Api, db: Db, kind: AudienceKind, tag: 'Groups' | 'Roles' | 'Topics'): void {
  const base = `/api/${kind}s` as const
  const one = tag.slice(0, -1)
  const tags = [tag]
  const path = (name: string) => `${base}/${encodeURIComponent(name)}`

  api.post(
    base,
    {
      config: { access: write },
      schema: {
        tags,
        operationId: `create${one}`,
        summary: `Make a ${kind}`,
        body: Type.Object(
          { name: AudienceNameField, description: Type.Optional(Description) },
          { additionalProperties: false },
        ),
        response: { 201: AudienceSchema },
      },
    },
    async (request, reply) => {
      const { caller, traceId, body } = request
      const audience = await db.tx(async tx => {
        const made = await createAudience(tx, caller.tenantId, kind, body)
        const entry = { action: `${kind}.created`, objectKind: kind, objectId: body.name, traceId }
        await audit(tx, caller, { ...entry, details: { description: made.description } })
        return made
      })
      reply.code(201).header('location', path(audience.name))
      return show(audience)
    },
  )

  api.get(
    base,
    {
      config: { access: read },
      schema: {
        tags,
        operationId: `list${tag}`,
        summary: `List ${kind}s by name`,
        querystring: Type.Object(pageQuery, { additionalProperties: false }),
        response: { 200: pageOf(AudienceSchema) },
      },
    },
    async request => {
      const { limit, cursor } = request.query
      const [after] = cursor === undefined ? [] : (decodeCursor(`${kind}s`, cursor, ['text']) as string[])
      const rows = await listAudiences(db, request.caller.tenantId, kind, after, limit + 1)
      return toPage(rows.map(show), limit, last => encodeCursor(`${kind}s`, [last.name]))
    },
  )

  api.get(
    `${base}/:name`,
    {
      config: { access: read },
      schema: {
        tags,
        operationId: `get${one}`,
        summary: `One ${kind}`,
        params: Params,
        response: { 200: AudienceSchema },
      },
    },
    async request => show(await getAudience(db, request.caller.tenantId, kind, request.params.name)),
  )

  api.patch(
    `${base}/:name`,
    {
      config: { access: write },
      schema: {
        tags,
        operationId: `change${one}`,
        summary: `Describe a ${kind}`,
        params: Params,
        body: Type.Object({ description: Description }, { additionalProperties: false }),
        response: { 200: AudienceSchema },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      return show(
        await db.tx(async tx => {
          const changed = await describeAudience(tx, caller.tenantId, kind, params.name, body.description)
          const entry = { action: `${kind}.updated`, objectKind: kind, objectId: params.name, traceId }
          await audit(tx, caller, { ...entry, details: { description: body.description } })
          return changed
        }),
      )
    },
  )

  api.delete(
    `${base}/:name`,
    {
      config: { access: write },
      schema: {
        tags,
        operationId: `delete${one}`,
        summary: `Delete a ${kind} and all memberships in it`,
        description: 'A large one is emptied first, in steps; interrupted, the same request goes on.',
        params: Params,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params } = request
      const entry = { action: `${kind}.deleted`, objectKind: kind, objectId: params.name, traceId }
      await deleteAudience(db, caller.tenantId, kind, params.name, tx => audit(tx, caller, entry))
      return reply.code(204).send(null)
    },
  )

  api.get(
    `${base}/:name/members`,
    {
      config: { access: read },
      schema: {
        tags,
        operationId: `list${one}Members`,
        summary: `The members of a ${kind}, by user id`,
        params: Params,
        querystring: Type.Object(pageQuery, { additionalProperties: false }),
        response: { 200: pageOf(kind === 'topic' ? Subscriber : Member) },
      },
    },
    async request => {
      const { limit, cursor } = request.query
      const { name } = request.params
      const list = `${kind}_members`
      const [after] = cursor === undefined ? [] : (decodeCursor(list, cursor, ['text']) as string[])
      const rows = await listMembers(db, request.caller.tenantId, kind, name, after, limit + 1)
      const members = rows.map(row => ({ ...row, since: row.since.toISOString() }))
      return toPage(members, limit, last => encodeCursor(list, [last.userId]))
    },
  )

  const Members =
    kind === 'topic'
      ? Type.Object({ userIds: UserIds, level: Type.Optional(LevelField) }, { additionalProperties: false })
      : Type.Object({ userIds: UserIds }, { additionalProperties: false })
  api.post(
    `${base}/:name/members`,
    {
      config: { access: write },
      bodyLimit: MEMBERS_BODY_BYTES,
      schema: {
        tags,
        operationId: `add${one}Members`,
        summary: `Add up to 10,000 members to a ${kind}`,
        params: Params,
        body: Members,
        response: {
          200: Type.Object({
            changed: Type.Integer({ description: 'How many are new, or have another level now.' }),
            unknown: Type.Array(Type.String(), { description: 'Ids that are no users; they were left out.' }),
          }),
        },
      },
    },
    async request => {
      const { caller, traceId, params } = request
      const body = request.body as { userIds: string[]; level?: Static<typeof LevelField> }
      return db.tx(async tx => {
        const done = await addMembers(tx, caller.tenantId, kind, params.name, body.userIds, body.level)
        if (done.changed > 0) {
          const entry = { action: `${kind}.members_added`, objectKind: kind, objectId: params.name, traceId }
          await audit(tx, caller, { ...entry, details: { count: done.changed, level: body.level ?? 'ALL' } })
        }
        return done
      })
    },
  )

  api.post(
    `${base}/:name/members/remove`,
    {
      config: { access: write },
      bodyLimit: MEMBERS_BODY_BYTES,
      schema: {
        tags,
        operationId: `remove${one}Members`,
        summary: `Remove up to 10,000 members from a ${kind}`,
        params: Params,
        body: Type.Object({ userIds: UserIds }, { additionalProperties: false }),
        response: { 200: Type.Object({ removed: Type.Integer() }) },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      return db.tx(async tx => {
        const removed = await removeMembers(tx, caller.tenantId, kind, params.name, body.userIds)
        if (removed > 0) {
          const entry = {
            action: `${kind}.members_removed`,
            objectKind: kind,
            objectId: params.name,
            traceId,
          }
          await audit(tx, caller, { ...entry, details: { count: removed } })
        }
        return { removed }
      })
    },
  )
}

function subscriptionRoutes(api: Api, db: Db): void {
  const Own = Type.Object({ userId: UserIdField }, { additionalProperties: false })
  const OneOwn = Type.Object(
    { userId: UserIdField, name: AudienceNameField },
    { additionalProperties: false },
  )
  const readSelf = { role: 'user', scope: 'people:read' } as const
  const writeSelf = { role: 'user', scope: 'people:write' } as const

  api.get(
    '/api/users/:userId/topics',
    {
      config: { access: readSelf },
      schema: {
        tags: ['Topics'],
        operationId: 'listSubscriptions',
        summary: 'The topics a user has subscribed to or refused',
        params: Own,
        response: { 200: Type.Object({ items: Type.Array(Subscription) }) },
      },
    },
    async request => {
      requireSelf(request, request.params.userId)
      return { items: (await getUser(db, request.caller.tenantId, request.params.userId)).topics }
    },
  )

  api.put(
    '/api/users/:userId/topics/:name',
    {
      config: { access: writeSelf },
      schema: {
        tags: ['Topics'],
        operationId: 'subscribe',
        summary: 'Subscribe a user to a topic, or refuse it',
        params: OneOwn,
        body: Type.Object({ level: LevelField }, { additionalProperties: false }),
        response: { 200: Subscription },
      },
    },
    async request => {
      const { caller, params, body } = request
      requireSelf(request, params.userId)
      await db.tx(async tx => {
        await lockUser(tx, caller.tenantId, params.userId)
        await subscribe(tx, caller.tenantId, params.userId, new Map([[params.name, body.level]]))
      })
      return { name: params.name, level: body.level }
    },
  )

  api.delete(
    '/api/users/:userId/topics/:name',
    {
      config: { access: writeSelf },
      schema: {
        tags: ['Topics'],
        operationId: 'unsubscribe',
        summary: 'End a subscription, or take a refusal back',
        params: OneOwn,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { caller, params } = request
      requireSelf(request, params.userId)
      await db.tx(async tx => {
        await lockUser(tx, caller.tenantId, params.userId)
        await subscribe(tx, caller.tenantId, params.userId, new Map([[params.name, null]]))
      })
      return reply.code(204).send(null)
    },
  )
}

const show = ({ createdAt, ...audience }: Audience): Static<typeof AudienceSchema> => ({
  ...audience,
  createdAt: createdAt.toISOString(),
})
