import { createHash, randomBytes } from 'node:crypto'
import { type Actor, audit } from '../admin/audit.ts'
import { type Db, type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { TenantId } from '../types.ts'
import type { Image, ImageType } from './image.ts'
import type { ObjectStore } from './object-store.ts'

/** A named picture, and the file that it is as of now. */
export interface Asset {
  name: string
  public: boolean
  publicId: string
  contentType: ImageType
  bytes: number
  width: number
  height: number
  /** SHA-256, hex. */
  sha256: string
  createdBy: string | null
  createdAt: Date
  updatedAt: Date
}

/** Their names are in the memory of every process that renders. */
export const MAX_ASSETS = 2_000
/** States of one asset, each with an address of its own: beyond that, delete it and begin anew. */
export const MAX_FILES = 100

interface Row {
  name: string
  public: boolean
  public_id: string
  content_type: ImageType
  bytes: number
  width: number
  height: number
  hash: Buffer
  created_by: string | null
  created_at: Date
  updated_at: Date
}

const assetOf = (row: Row): Asset => ({
  name: row.name,
  public: row.public,
  publicId: row.public_id,
  contentType: row.content_type,
  bytes: row.bytes,
  width: row.width,
  height: row.height,
  sha256: row.hash.toString('hex'),
  createdBy: row.created_by,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

const COLUMNS = `a.name, a.public, a.public_id, f.content_type, b.bytes, f.width, f.height, f.hash, f.created_by,
  a.created_at, a.updated_at`
const JOINED = `assets a
  join asset_files f on f.tenant_id = a.tenant_id and f.public_id = a.public_id
  join asset_blobs b on b.tenant_id = f.tenant_id and b.hash = f.hash`

const find = sql('find_asset', `select ${COLUMNS} from ${JOINED} where a.tenant_id = $1 and a.name = $2`)
const list = sql(
  'list_assets',
  `select ${COLUMNS} from ${JOINED}
   where a.tenant_id = $1 and ($2::text is null or a.name collate "C" > $2) order by a.name collate "C" limit $3`,
)
// Uploads of one tenant one after the other, so that its bounds are exact.
const lockTenant = sql('lock_assets', `select pg_advisory_xact_lock(${0x61737365}, $1)`)
const standing = sql(
  'asset_standing',
  `select
     (select count(*)::int from assets where tenant_id = $1) as assets,
     (select coalesce(sum(bytes), 0)::float8 from asset_blobs where tenant_id = $1 and unused_since is null) as bytes,
     (select count(*)::int from asset_files where tenant_id = $1 and name = $2) as files,
     (select exists (select from asset_blobs where tenant_id = $1 and hash = $3 and unused_since is null)) as known`,
)
// Locks the row: whoever forgets it waits for us, or we for them.
const takeBlob = sql(
  'take_asset_blob',
  `insert into asset_blobs as b (tenant_id, hash, bytes, data) values ($1, $2, $3, $4)
   on conflict (tenant_id, hash) do update set unused_since = null
   returning data is null as outside, xmax = 0 as fresh`,
)
const insertFile = sql(
  'insert_asset_file',
  `insert into asset_files (tenant_id, public_id, name, hash, content_type, width, height, created_by, created_at)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
)
const putAsset = sql(
  'put_asset',
  `insert into assets as a (tenant_id, name, public, public_id, created_at, updated_at) values ($1, $2, $3, $4, $5, $5)
   on conflict (tenant_id, name) do update
     set public = excluded.public, public_id = excluded.public_id, updated_at = excluded.updated_at`,
)
const remove = sql(
  'delete_asset',
  `delete from assets where tenant_id = $1 and name = $2 returning public_id`,
)
const leaveUnused = sql(
  'leave_unused_asset_blobs',
  `update asset_blobs b set unused_since = $3
   where b.tenant_id = $1 and b.hash = any ($2) and b.unused_since is null
     and not exists (select from asset_files f where f.tenant_id = b.tenant_id and f.hash = b.hash)`,
)
const hashesOf = sql(
  'asset_hashes',
  `select distinct hash from asset_files where tenant_id = $1 and name = $2`,
)
const findFile = sql(
  'find_asset_file',
  `select f.name, f.content_type, f.hash, b.bytes, a.public
   from asset_files f
   join assets a on a.tenant_id = f.tenant_id and a.name = f.name
   join asset_blobs b on b.tenant_id = f.tenant_id and b.hash = f.hash
   where f.tenant_id = $1 and f.public_id = $2`,
)
const readData = sql(
  'read_asset_blob',
  `select data, bytes from asset_blobs where tenant_id = $1 and hash = $2`,
)
const unused = sql(
  'find_unused_asset_blobs',
  `select tenant_id, hash from asset_blobs where unused_since < $1 order by unused_since limit $2`,
)
const lockUnused = sql(
  'lock_unused_asset_blob',
  `select data is null as outside from asset_blobs b
   where tenant_id = $1 and hash = $2 and unused_since is not null
     and not exists (select from asset_files f where f.tenant_id = b.tenant_id and f.hash = b.hash)
   for update skip locked`,
)
const deleteBlob = sql('delete_asset_blob', `delete from asset_blobs where tenant_id = $1 and hash = $2`)

// ------------------------------------------------------------------------------------------------ reading

/** @throws AppError not_found */
export async function findAsset(q: Queryable, tenantId: TenantId, name: string): Promise<Asset> {
  const row = await q.one<Row>(find, [tenantId, name])
  if (!row) throw none()
  return assetOf(row)
}

/** By name, after `after`. */
export const listAssets = async (
  q: Queryable,
  tenantId: TenantId,
  after: string | null,
  limit: number,
): Promise<Asset[]> => (await q.rows<Row>(list, [tenantId, after, limit])).map(assetOf)

export interface StoredFile {
  name: string
  contentType: ImageType
  hash: Buffer
  bytes: number
  public: boolean
}

export async function findAssetFile(
  q: Queryable,
  tenantId: TenantId,
  publicId: string,
): Promise<StoredFile | undefined> {
  const row = await q.one<{
    name: string
    content_type: ImageType
    hash: Buffer
    bytes: number
    public: boolean
  }>(findFile, [tenantId, publicId])
  return (
    row && {
      name: row.name,
      contentType: row.content_type,
      hash: row.hash,
      bytes: row.bytes,
      public: row.public,
    }
  )
}

/** @throws AppError external_service_error when it is in an object store that does not give it */
export async function readBlob(
  q: Queryable,
  objects: ObjectStore | undefined,
  tenantId: TenantId,
  hash: Buffer,
): Promise<Buffer> {
  const row = await q.one<{ data: Buffer | null; bytes: number }>(readData, [tenantId, hash])
  if (!row) throw none()
  if (row.data) return row.data
  const data = await objects?.get(objectKey(tenantId, hash), row.bytes)
  if (!data || !sha256(data).equals(hash)) {
    throw new AppError('external_service_error', 'The asset store does not have this file.')
  }
  return data
}

// ------------------------------------------------------------------------------------------------ writing

export interface Upload {
  name: string
  public: boolean
  bytes: Buffer
  image: Image
}

/**
 * Makes an asset, or gives it a new file; links to its files of before go on showing those. The same bytes again
 * change nothing, and are kept once however many assets have them.
 *
 * @returns whether there was none of this name
 * @throws AppError conflict beyond MAX_ASSETS, MAX_FILES or `tenantBytes`; external_service_error from the object store
 */
export function saveAsset(
  db: Db,
  objects: ObjectStore | undefined,
  actor: Actor,
  { name, public: isPublic, bytes, image }: Upload,
  tenantBytes: number,
  now: Date,
  traceId?: string,
): Promise<{ asset: Asset; created: boolean }> {
  const { tenantId } = actor
  const hash = sha256(bytes)
  return db.tx(async tx => {
    await tx.run(lockTenant, [tenantId])
    const before = await tx.one<Row>(find, [tenantId, name])
    if (before?.hash.equals(hash) && before.public === isPublic) {
      return { asset: assetOf(before), created: false }
    }
    const stands = (await tx.one<{ assets: number; bytes: number; files: number; known: boolean }>(standing, [
      tenantId,
      name,
      hash,
    ]))!
    if (!before && stands.assets >= MAX_ASSETS) {
      throw new AppError('conflict', `There are ${MAX_ASSETS} assets already.`)
    }
    if (stands.files >= MAX_FILES) {
      throw new AppError(
        'conflict',
        `This asset had ${MAX_FILES} files already: delete it, or take another name.`,
      )
    }
    if (!stands.known && stands.bytes + bytes.length > tenantBytes) {
      throw new AppError('conflict', `All assets together may have ${tenantBytes} bytes.`)
    }
    let publicId = before?.public_id
    if (!before?.hash.equals(hash)) {
      publicId = randomBytes(16).toString('base64url')
      await keepBlob(tx, objects, tenantId, hash, bytes, image.type)
      // The asset first: a file is of an asset. That the asset is of a file is looked at in the end.
      await tx.run(putAsset, [tenantId, name, isPublic, publicId, now])
      await tx.run(insertFile, [
        tenantId,
        publicId,
        name,
        hash,
        image.type,
        image.width,
        image.height,
        actor.id ?? null,
        now,
      ])
    } else await tx.run(putAsset, [tenantId, name, isPublic, publicId, now])
    await audit(tx, actor, {
      action: before ? 'asset.replaced' : 'asset.created',
      objectKind: 'asset',
      objectId: name,
      details: { sha256: hash.toString('hex'), bytes: bytes.length, public: isPublic },
      traceId,
    })
    return { asset: await findAsset(tx, tenantId, name), created: !before }
  })
}

/**
 * Within the transaction that holds the row: while somebody forgets the same bytes we wait, and bring them again. It
 * takes as long as the object store does, and uploads are rare.
 */
async function keepBlob(
  tx: Tx,
  objects: ObjectStore | undefined,
  tenantId: TenantId,
  hash: Buffer,
  bytes: Buffer,
  type: ImageType,
): Promise<void> {
  const row = (await tx.one<{ outside: boolean; fresh: boolean }>(takeBlob, [
    tenantId,
    hash,
    bytes.length,
    objects ? null : bytes,
  ]))!
  if (row.fresh && objects) await objects.put(objectKey(tenantId, hash), bytes, type)
}

/** With all its files: links to them show nothing any more, but for caches. @throws AppError not_found */
export async function deleteAsset(
  tx: Tx,
  actor: Actor,
  name: string,
  now: Date,
  traceId?: string,
): Promise<void> {
  const { tenantId } = actor
  await tx.run(lockTenant, [tenantId])
  const hashes = await tx.rows<{ hash: Buffer }>(hashesOf, [tenantId, name])
  const row = await tx.one<{ public_id: string }>(remove, [tenantId, name])
  if (!row) throw none()
  await tx.run(leaveUnused, [tenantId, hashes.map(({ hash }) => hash), now])
  await audit(tx, actor, { action: 'asset.deleted', objectKind: 'asset', objectId: name, traceId })
}

/**
 * Forgets bytes that no file has had since `before`, at most `limit` of them.
 *
 * @returns how many are gone
 */
export async function forgetUnused(
  db: Db,
  objects: ObjectStore | undefined,
  before: Date,
  limit: number,
): Promise<number> {
  const rows = await db.rows<{ tenant_id: TenantId; hash: Buffer }>(unused, [before, limit])
  let gone = 0
  for (const { tenant_id, hash } of rows) {
    gone += await db.tx(async tx => {
      const blob = await tx.one<{ outside: boolean }>(lockUnused, [tenant_id, hash])
      // Taken again meanwhile, or being forgotten by somebody else; or its store is not configured any more.
      if (!blob || (blob.outside && !objects)) return 0
      if (blob.outside) await objects!.remove(objectKey(tenant_id, hash))
      return tx.run(deleteBlob, [tenant_id, hash])
    })
  }
  return gone
}

const sha256 = (bytes: Buffer): Buffer => createHash('sha256').update(bytes).digest()
const objectKey = (tenantId: TenantId, hash: Buffer): string => `${tenantId}/${hash.toString('hex')}`
const none = () => new AppError('not_found', 'There is no asset with this name.')
