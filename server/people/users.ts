import { isDeepStrictEqual } from 'node:util'
import { type Queryable, sql } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import { AppError } from '../errors.ts'
import { checkZone } from '../time/zone.ts'
import type { JsonObject, TenantId, UserId } from '../types.ts'
import {
  type AddressInput,
  type AddressView,
  listAddresses,
  normalizeAddresses,
  replaceAddresses,
} from './addresses.ts'
import { listMemberships, type Memberships, replaceMemberships, type Subscription } from './audiences.ts'
import type { AudienceKind } from './facts.ts'
import { canonicalLocale, checkAttributes } from './fields.ts'

export interface UserInput {
  userId: UserId
  enabled?: boolean
  locale?: string
  timezone?: string
  attributes?: JsonObject
  /** Given, each of these four replaces what was there. */
  addresses?: AddressInput[]
  groups?: string[]
  roles?: string[]
  topics?: Subscription[]
}

export interface UserView {
  userId: UserId
  enabled: boolean
  locale: string
  timezone: string
  attributes: JsonObject
  createdAt: Date
  updatedAt: Date
  erasedAt: Date | null
  addresses: AddressView[]
  groups: string[]
  roles: string[]
  topics: Subscription[]
}

export type UpsertResult =
  | { userId: UserId; status: 'created' | 'updated' }
  | { userId: UserId; status: 'failed'; error: AppError }

export interface PeopleSealer {
  newDataKey: Sealer['newDataKey']
  seal: Sealer['seal']
  open: Sealer['open']
  unwrap: Sealer['unwrap']
}

interface UserRow {
  user_id: UserId
  enabled: boolean
  locale: string
  timezone: string
  attributes: JsonObject
  created_at: Date
  updated_at: Date
  erased_at: Date | null
}

const columns =
  'u.user_id, u.enabled, u.locale, u.timezone, u.attributes, u.created_at, u.updated_at, u.erased_at'

// Whoever writes what belongs to users locks their rows first, in this order: two such writers then wait for each
// other instead of deadlocking, and read what they are about to change. NO KEY: foreign keys are not held up.
const lockRows = sql(
  'lock_users',
  `select ${columns} from users u where u.tenant_id = $1 and u.user_id = any ($2)
   order by u.user_id for no key update`,
)
const insertUsers = sql(
  'insert_users',
  `insert into users (tenant_id, user_id, enabled, locale, timezone, attributes, data_key)
   select $1, i.user_id, i.enabled, i.locale, i.timezone, i.attributes, i.data_key
   from unnest($2::text[], $3::boolean[], $4::text[], $5::text[], $6::jsonb[], $7::bytea[])
     as i (user_id, enabled, locale, timezone, attributes, data_key)
   on conflict do nothing returning user_id`,
)
const updateUsers = sql(
  'update_users',
  `update users u
   set enabled = i.enabled, locale = i.locale, timezone = i.timezone, attributes = i.attributes, updated_at = now()
   from unnest($2::text[], $3::boolean[], $4::text[], $5::text[], $6::jsonb[])
     as i (user_id, enabled, locale, timezone, attributes)
   where u.tenant_id = $1 and u.user_id = i.user_id and u.erased_at is null`,
)
const findUser = sql('find_user', `select ${columns} from users u where u.tenant_id = $1 and u.user_id = $2`)
const listAll = sql(
  'list_users',
  `select ${columns} from users u
   where u.tenant_id = $1 and u.user_id > $2 and ($3::boolean is null or u.enabled = $3)
   order by u.user_id limit $4`,
)
// Walks the first audience, so that a group of ten among a million users is found at once.
const listMembersOf = sql(
  'list_users_of_audiences',
  `select ${columns}
   from memberships m join users u on u.tenant_id = m.tenant_id and u.user_id = m.user_id
   where m.tenant_id = $1 and m.kind = $5 and m.name = $6 and m.user_id > $2
     and ($3::boolean is null or u.enabled = $3)
     and not exists (
       select from unnest($7::text[], $8::text[]) as other (kind, name)
       where not exists (
         select from memberships o
         where o.tenant_id = $1 and o.kind = other.kind and o.name = other.name and o.user_id = m.user_id))
   order by m.user_id limit $4`,
)
const eraseRow = sql(
  'erase_user',
  `update users
   set data_key = null, erased_at = now(), enabled = false, attributes = '{}', locale = 'en', timezone = 'UTC',
       updated_at = now()
   where tenant_id = $1 and user_id = $2`,
)
const eraseBelongings = [
  sql('erase_addresses', 'delete from addresses where tenant_id = $1 and user_id = $2'),
  sql('erase_devices', 'delete from devices where tenant_id = $1 and user_id = $2'),
  sql('erase_memberships', 'delete from memberships where tenant_id = $1 and user_id = $2'),
  sql('erase_preferences', 'delete from preferences where tenant_id = $1 and user_id = $2'),
]

/**
 * Locks a user's row for the rest of the transaction, before changing what belongs to the user.
 *
 * @throws AppError not_found; gone once erased
 */
export async function lockUser(tx: Queryable, tenantId: TenantId, userId: UserId): Promise<UserRow> {
  const row = await tx.one<UserRow>(lockRows, [tenantId, [userId]])
  if (row === undefined) throw noUser()
  if (row.erased_at !== null) throw erased()
  return row
}

const noUser = () => new AppError('not_found', 'There is no such user.')
const erased = () => new AppError('gone', 'The user was erased; the id cannot be used again.')

/**
 * Creates or updates many users, with a fixed number of statements however many there are. What an item leaves
 * out stays as it is. An item that cannot be taken fails alone, whole, and says why.
 */
export async function upsertUsers(
  tx: Queryable,
  sealer: PeopleSealer,
  tenantId: TenantId,
  inputs: readonly UserInput[],
): Promise<UpsertResult[]> {
  const results: UpsertResult[] = []
  results.length = inputs.length
  const fail = (index: number, error: AppError) => {
    results[index] = { userId: inputs[index]!.userId, status: 'failed', error }
  }
  const items: { input: UserInput; index: number }[] = []
  const seen = new Set<UserId>()
  for (const [index, input] of inputs.entries()) {
    try {
      if (seen.has(input.userId)) {
        throw new AppError('conflict', 'The same user id came earlier in this request.', { field: '/userId' })
      }
      seen.add(input.userId)
      items.push({ input: normalizeUser(input), index })
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      fail(index, error)
    }
  }
  if (items.length === 0) return results
  // One order for all writers: see lockRows.
  items.sort((a, b) => (a.input.userId < b.input.userId ? -1 : 1))

  const created = new Set(
    (
      await tx.rows<{ user_id: UserId }>(insertUsers, [
        tenantId,
        items.map(({ input }) => input.userId),
        items.map(({ input }) => input.enabled ?? true),
        items.map(({ input }) => input.locale ?? 'en'),
        items.map(({ input }) => input.timezone ?? 'UTC'),
        items.map(({ input }) => JSON.stringify(input.attributes ?? {})),
        items.map(() => sealer.newDataKey()),
      ])
    ).map(row => row.user_id),
  )
  const others = items.filter(({ input }) => !created.has(input.userId))
  const before = await lockAll(
    tx,
    tenantId,
    others.map(({ input }) => input.userId),
  )
  const changed: UserRow[] = []
  const taken: UserInput[] = []
  for (const { input, index } of items) {
    const row = before.get(input.userId)
    if (row !== undefined && row.erased_at !== null) {
      fail(index, erased())
      continue
    }
    taken.push(input)
    results[index] = { userId: input.userId, status: row === undefined ? 'created' : 'updated' }
    if (row === undefined) continue
    const after = changedRow(row, input)
    // A sync that brings nothing new writes nothing.
    if (!isDeepStrictEqual(row, after)) changed.push(after)
  }
  await writeUsers(tx, tenantId, changed)

  const addresses = new Map<UserId, AddressInput[]>()
  for (const { userId, addresses: given } of taken) if (given !== undefined) addresses.set(userId, given)
  await replaceAddresses(tx, { sealer, tenantId }, addresses)
  await replaceMemberships(
    tx,
    tenantId,
    taken.flatMap(({ userId, groups, roles, topics }): Memberships[] => [
      ...(groups === undefined ? [] : [{ userId, kind: 'group' as const, names: groups.map(plain) }]),
      ...(roles === undefined ? [] : [{ userId, kind: 'role' as const, names: roles.map(plain) }]),
      ...(topics === undefined ? [] : [{ userId, kind: 'topic' as const, names: topics }]),
    ]),
  )
  return results
}

const plain = (name: string): Subscription => ({ name, level: 'ALL' })

function normalizeUser(input: UserInput): UserInput {
  const { locale, timezone, attributes, addresses, topics } = input
  const names = new Set(topics?.map(topic => topic.name))
  if (topics !== undefined && names.size < topics.length) {
    throw new AppError('invalid_request', 'The same topic is given twice.', { field: '/topics' })
  }
  return {
    ...input,
    locale: locale === undefined ? undefined : canonicalLocale(locale, '/locale'),
    timezone: timezone === undefined ? undefined : checkZone(timezone, '/timezone'),
    attributes: attributes === undefined ? undefined : checkAttributes(attributes, '/attributes'),
    addresses: addresses === undefined ? undefined : normalizeAddresses(addresses, '/addresses'),
  }
}

const changedRow = (row: UserRow, input: Omit<UserInput, 'userId'>): UserRow => ({
  ...row,
  enabled: input.enabled ?? row.enabled,
  locale: input.locale ?? row.locale,
  timezone: input.timezone ?? row.timezone,
  attributes: input.attributes ?? row.attributes,
})

async function lockAll(tx: Queryable, tenantId: TenantId, userIds: UserId[]): Promise<Map<UserId, UserRow>> {
  if (userIds.length === 0) return new Map()
  const rows = await tx.rows<UserRow>(lockRows, [tenantId, userIds])
  return new Map(rows.map(row => [row.user_id, row]))
}

async function writeUsers(tx: Queryable, tenantId: TenantId, rows: UserRow[]): Promise<void> {
  if (rows.length === 0) return
  await tx.run(updateUsers, [
    tenantId,
    rows.map(row => row.user_id),
    rows.map(row => row.enabled),
    rows.map(row => row.locale),
    rows.map(row => row.timezone),
    rows.map(row => JSON.stringify(row.attributes)),
  ])
}

export type UserPatch = Pick<UserInput, 'enabled' | 'locale' | 'timezone'> & {
  /** Merged one level deep; null takes an attribute away (as in RFC 7396). */
  attributes?: JsonObject
}

/** @throws AppError not_found; gone; invalid_request */
export async function patchUser(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  patch: UserPatch,
): Promise<void> {
  const row = await lockUser(tx, tenantId, userId)
  const after = changedRow(row, normalizeUser({ ...patch, userId, attributes: undefined }))
  if (patch.attributes !== undefined) {
    const merged = Object.entries({ ...row.attributes, ...patch.attributes }).filter(
      ([, value]) => value !== null,
    )
    after.attributes = checkAttributes(Object.fromEntries(merged), '/attributes')
  }
  if (!isDeepStrictEqual(row, after)) await writeUsers(tx, tenantId, [after])
}

/** @throws AppError not_found */
export async function getUser(q: Queryable, tenantId: TenantId, userId: UserId): Promise<UserView> {
  const row = await q.one<UserRow>(findUser, [tenantId, userId])
  if (row === undefined) throw noUser()
  return (await withBelongings(q, tenantId, [row]))[0]!
}

export interface UserFilter {
  enabled?: boolean
  /** Members of all of these. */
  audiences: { kind: AudienceKind; name: string }[]
}

/** By user id, after `after`. A disabled or erased user is still in the list. */
export async function listUsers(
  q: Queryable,
  tenantId: TenantId,
  { enabled, audiences }: UserFilter,
  after: UserId | undefined,
  limit: number,
): Promise<UserView[]> {
  const [first, ...rest] = audiences
  const values = [tenantId, after ?? '', enabled ?? null, limit]
  const rows =
    first === undefined
      ? await q.rows<UserRow>(listAll, values)
      : await q.rows<UserRow>(listMembersOf, [
          ...values,
          first.kind,
          first.name,
          rest.map(audience => audience.kind),
          rest.map(audience => audience.name),
        ])
  return withBelongings(q, tenantId, rows)
}

/** Two more statements, however many rows. */
async function withBelongings(q: Queryable, tenantId: TenantId, rows: UserRow[]): Promise<UserView[]> {
  if (rows.length === 0) return []
  const userIds = rows.map(row => row.user_id)
  const addresses = await listAddresses(q, tenantId, userIds)
  const memberships = await listMemberships(q, tenantId, userIds)
  return rows.map(row => {
    const of = (kind: AudienceKind) => memberships.get(row.user_id)?.[kind] ?? []
    return {
      userId: row.user_id,
      enabled: row.enabled,
      locale: row.locale,
      timezone: row.timezone,
      attributes: row.attributes,
      createdAt: row.created_at,
      updatedAt: row.updated_at,
      erasedAt: row.erased_at,
      addresses: addresses.get(row.user_id) ?? [],
      groups: of('group').map(({ name }) => name),
      roles: of('role').map(({ name }) => name),
      topics: of('topic'),
    }
  })
}

/**
 * Destroys the person's key, which makes everything ever sealed for them unreadable, backups included, and
 * removes what was stored of them in the clear. The row stays, so that the id is not taken for a new person; so
 * does the suppression list, which is the promise not to write to an address again. Erasing twice changes nothing.
 *
 * @returns whether there was anything to erase
 * @throws AppError not_found
 */
export async function eraseUser(tx: Queryable, tenantId: TenantId, userId: UserId): Promise<boolean> {
  const row = await tx.one<UserRow>(lockRows, [tenantId, [userId]])
  if (row === undefined) throw noUser()
  if (row.erased_at !== null) return false
  for (const statement of eraseBelongings) await tx.run(statement, [tenantId, userId])
  await tx.run(eraseRow, [tenantId, userId])
  return true
}
