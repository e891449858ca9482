import { LRUCache } from 'lru-cache'
import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import { IMAGE_TYPES, readImage } from './image.ts'
import type { AssetLinks } from './links.ts'
import { fileName } from './links.ts'
import type { ObjectStore } from './object-store.ts'
import {
  type Asset,
  type StoredFile,
  deleteAsset,
  findAsset,
  findAssetFile,
  listAssets,
  readBlob,
  saveAsset,
} from './store.ts'

export interface AssetRoutesDeps {
  db: Db
  /** Absent: bytes are in the database. */
  objects: ObjectStore | undefined
  links: AssetLinks
  now(): Date
  /** Of one file. */
  maxBytes: number
  /** Of all files of a tenant. */
  tenantBytes: number
}

const closed = { additionalProperties: false }
const Name = Type.String({
  pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$',
  description: 'What templates call it: {{asset "logo"}}.',
})
const byName = Type.Object({ name: Name }, closed)
const Time = Type.String({ format: 'date-time' })
const Shown = Type.Object({
  name: Type.String(),
  url: Type.String({ description: 'Where the file is; of a private one only with a signature.' }),
  public: Type.Boolean(),
  contentType: Type.Enum([...IMAGE_TYPES]),
  bytes: Type.Integer(),
  width: Type.Integer(),
  height: Type.Integer(),
  sha256: Type.String(),
  createdBy: Type.Union([Type.String(), Type.Null()]),
  createdAt: Time,
  updatedAt: Time,
})

const read = { role: 'service', scope: 'templates:read' } as const
const write = { role: 'service', scope: 'templates:write' } as const
const tags = ['Assets']

/** A mail to a million people is a million requests for one logo. */
const CACHE_BYTES = 32 * 1024 ** 2
/** Mail services fetch pictures for all their users from a few addresses. */
const REQUESTS_A_MINUTE = 60_000
const MAX_LINK_SECONDS = 366 * 86_400
const YEAR_SECONDS = 31_536_000

/** Pictures that messages show: kept here, served to whoever has the link. */
export function assetRoutes(api: Api, deps: AssetRoutesDeps): void {
  const { db, objects, links, now, maxBytes, tenantBytes } = deps
  const shown = (tenantId: number) => (asset: Asset) => show(asset, tenantId, links)

  api.put(
    '/api/assets/:name',
    {
      config: { access: write, rawBody: true },
      bodyLimit: maxBytes,
      schema: {
        tags,
        operationId: 'putAsset',
        summary: 'Upload a picture, or give it a new file',
        description:
          'The body is the file: PNG, JPEG, GIF or WebP, told by its bytes. Links to an earlier file go on showing that.',
        params: byName,
        querystring: Type.Object(
          {
            public: Type.Optional(
              Type.Boolean({ description: 'Default true. False: only signed links show it.' }),
            ),
          },
          closed,
        ),
        response: { 200: Shown, 201: Shown },
      },
    },
    async (request, reply) => {
      const { caller, params, query, rawBody, traceId } = request
      const bytes = rawBody ?? Buffer.alloc(0)
      const image = readImage(bytes)
      declared(request.headers['content-type'], image.type)
      const upload = { name: params.name, public: query.public ?? true, bytes, image }
      const { asset, created } = await saveAsset(db, objects, caller, upload, tenantBytes, now(), traceId)
      if (created) reply.code(201).header('location', `/api/assets/${asset.name}`)
      return shown(caller.tenantId)(asset)
    },
  )

  api.get(
    '/api/assets',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listAssets',
        summary: 'List assets by name',
        querystring: Type.Object(pageQuery, closed),
        response: { 200: pageOf(Shown) },
      },
    },
    async request => {
      const { tenantId } = request.caller
      const { limit, cursor } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('assets', cursor, ['text']) as string[])
      const rows = await listAssets(db, tenantId, after, limit + 1)
      return toPage(rows.map(shown(tenantId)), limit, last => encodeCursor('assets', [last.name]))
    },
  )

  api.get(
    '/api/assets/:name',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getAsset',
        summary: 'One asset',
        params: byName,
        response: { 200: Shown },
      },
    },
    async ({ caller, params }) => shown(caller.tenantId)(await findAsset(db, caller.tenantId, params.name)),
  )

  api.delete(
    '/api/assets/:name',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'deleteAsset',
        summary: 'Delete an asset and all its files; messages show a gap in its place',
        params: byName,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => deleteAsset(tx, request.caller, request.params.name, now(), request.traceId))
      return reply.code(204).send(null)
    },
  )

  api.post(
    '/api/assets/:name/link',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'linkAsset',
        summary: 'A signed link to the file, for a while',
        params: byName,
        body: Type.Optional(
          Type.Object(
            {
              seconds: Type.Optional(
                Type.Integer({ minimum: 1, maximum: MAX_LINK_SECONDS, description: 'Default: an hour.' }),
              ),
            },
            closed,
          ),
        ),
        response: { 200: Type.Object({ url: Type.String(), expiresAt: Time }) },
      },
    },
    async ({ caller, params, body }) => {
      const { tenantId } = caller
      const { name, publicId, contentType } = await findAsset(db, tenantId, params.name)
      const seconds = Math.floor(now().getTime() / 1000) + (body?.seconds ?? 3_600)
      const expires = new Date(seconds * 1000)
      return {
        url: links.signedUrl({ tenantId, publicId, name, type: contentType }, expires),
        expiresAt: expires.toISOString(),
      }
    },
  )

  // ---- for whoever reads a message; no part of the API

  const bytesOf = cachedBytes(db, objects)
  api.get(
    '/media/:key/:name',
    {
      config: { access: { role: 'public' }, limit: REQUESTS_A_MINUTE },
      schema: {
        hide: true,
        params: Type.Object(
          { key: Type.String({ maxLength: 50 }), name: Type.String({ maxLength: 200 }) },
          closed,
        ),
        // Trackers and gateways add parameters of their own.
        querystring: Type.Object(
          {
            expires: Type.Optional(Type.String({ maxLength: 20 })),
            signature: Type.Optional(Type.String({ maxLength: 50 })),
          },
          { additionalProperties: true },
        ),
      },
    },
    async (request, reply) => {
      const key = links.read(request.params.key)
      const file = key && (await findAssetFile(db, key.tenantId, key.publicId))
      const at = now()
      const until = key && file && !file.public ? links.check(key, request.query, at) : undefined
      // Whoever has no right to see it is not told that it is there.
      if (!key || !file || (!file.public && !until))
        throw new AppError('not_found', 'Nothing is at this path.')
      reply.headers(headersOf(file, until, at))
      if (matches(request.headers['if-none-match'], etagOf(file))) return reply.code(304).send()
      return reply.type(file.contentType).send(await bytesOf(key.tenantId, file))
    },
  )
}

/**
 * An address is of one file for ever, so caches may keep it: for a year as RFC 9111 §5.2.2 has it, and without asking
 * again (RFC 8246). A private one stays in the reader's own cache, no longer than its link holds.
 *
 * A browser takes it for what we say it is and nothing else, and runs nothing in it; pages of others may show it.
 */
const headersOf = (file: StoredFile, until: Date | undefined, now: Date): Record<string, string> => ({
  etag: etagOf(file),
  'cache-control': until
    ? `private, max-age=${Math.max(0, Math.min(86_400, Math.floor((until.getTime() - now.getTime()) / 1000)))}`
    : `public, max-age=${YEAR_SECONDS}, immutable`,
  'content-disposition': `inline; filename="${fileName(file.name, file.contentType)}"`,
  'content-security-policy': "default-src 'none'; sandbox",
  'cross-origin-resource-policy': 'cross-origin',
  'x-content-type-options': 'nosniff',
})

const etagOf = ({ hash }: StoredFile): string => `"${hash.toString('base64url')}"`

/** RFC 9110 §13.1.2: a list of tags, weak or not, or anything at all. */
const matches = (header: string | undefined, etag: string): boolean =>
  header !== undefined &&
  (header.trim() === '*' || header.split(',').some(one => one.trim().replace(/^W\//, '') === etag))

/** Those asked for most, by tenant and hash; what several ask for at once is read once. */
function cachedBytes(db: Db, objects: ObjectStore | undefined) {
  const cache = new LRUCache<string, Buffer>({
    maxSize: CACHE_BYTES,
    sizeCalculation: bytes => bytes.length,
  })
  const reading = new Map<string, Promise<Buffer>>()
  return (tenantId: number, { hash }: StoredFile): Promise<Buffer> | Buffer => {
    const key = `${tenantId} ${hash.toString('base64url')}`
    const known = cache.get(key)
    if (known) return known
    let bytes = reading.get(key)
    if (!bytes) {
      bytes = readBlob(db, objects, tenantId, hash)
        .then(read => {
          cache.set(key, read)
          return read
        })
        .finally(() => reading.delete(key))
      reading.set(key, bytes)
    }
    return bytes
  }
}

/** A header that says something else than the bytes is a mistake somewhere; one that says nothing is none. */
function declared(header: string | undefined, type: string): void {
  const said = header?.split(';', 1)[0]!.trim().toLowerCase()
  if (said === undefined || said === '' || said === 'application/octet-stream') return
  if (said === type || (said === 'image/jpg' && type === 'image/jpeg')) return
  throw new AppError(
    'unsupported_media_type',
    `The header says ${said.slice(0, 100)}, the bytes are ${type}.`,
    {
      field: 'content-type',
    },
  )
}

function show(
  { publicId, createdAt, updatedAt, ...asset }: Asset,
  tenantId: number,
  links: AssetLinks,
): Static<typeof Shown> {
  return {
    ...asset,
    url: links.url({ tenantId, publicId, name: asset.name, type: asset.contentType }),
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
  }
}
