import { signV4 } from '../aws.ts'
import { AppError } from '../errors.ts'

/** Where the bytes of files lie, when not in the database. Keys are ours: letters, digits, `/`. */
export interface ObjectStore {
  put(key: string, bytes: Buffer, contentType: string): Promise<void>
  /** Undefined: there is no such object. */
  get(key: string, maxBytes: number): Promise<Buffer | undefined>
  /** What is not there is removed already. */
  remove(key: string): Promise<void>
}

export interface ObjectStoreOptions {
  bucket: string
  /** Before every key; may be empty. */
  prefix: string
  region: string
  /** Of a store that speaks S3 but is not Amazon's, such as MinIO, Ceph or https://storage.googleapis.com. */
  endpoint?: string | undefined
  accessKeyId: string
  secretAccessKey: string
  sessionToken?: string | undefined
  timeoutMs?: number
  now(): Date
}

/** Once more after a fault of theirs, as Amazon asks its clients to. */
const TRIES = 2

/**
 * A store that speaks S3: PutObject, GetObject and DeleteObject, signed with Signature Version 4.
 *
 * Amazon's own buckets are addressed by host name, others by path, which all of them take.
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 * https://cloud.google.com/storage/docs/interoperability
 */
export function objectStore(options: ObjectStoreOptions): ObjectStore {
  const { bucket, prefix, region, endpoint, accessKeyId, secretAccessKey, sessionToken } = options
  const base =
    endpoint === undefined
      ? `https://${bucket}.s3.${region}.amazonaws.com`
      : `${endpoint.replace(/\/+$/, '')}/${bucket}`
  const folder = prefix === '' ? '' : `${prefix.replace(/^\/+|\/+$/g, '')}/`

  async function call(method: string, key: string, headers: Record<string, string>, body?: Buffer) {
    const url = `${base}/${folder}${key}`
    for (let left = TRIES; ; left--) {
      const signed = signV4({
        method,
        url,
        headers,
        body: body ?? '',
        region,
        service: 's3',
        accessKeyId,
        secretAccessKey,
        ...(sessionToken === undefined ? {} : { sessionToken }),
        now: options.now(),
      })
      try {
        const response = await fetch(url, {
          method,
          headers: signed,
          ...(body && { body: new Uint8Array(body) }),
          // A bucket elsewhere answers with a redirect that must be signed anew: a matter of configuration.
          redirect: 'manual',
          signal: AbortSignal.timeout(options.timeoutMs ?? 10_000),
        })
        if (response.status < 500 || left === 1) return response
        await response.body?.cancel()
      } catch (cause) {
        if (left === 1)
          throw new AppError('external_service_error', 'The asset store cannot be reached.', { cause })
      }
    }
  }

  async function refuse(response: Response, doing: string): Promise<never> {
    // Their answer is XML, with a code such as AccessDenied; the rest may repeat what was signed.
    const text = await response.text().catch(() => '')
    const code = /<Code>(\w{1,60})<\/Code>/.exec(text)?.[1] ?? ''
    throw new AppError(
      'external_service_error',
      `The asset store refused ${doing}: ${response.status} ${code}`.trim(),
    )
  }

  return {
    async put(key, bytes, contentType) {
      const response = await call('PUT', key, { 'content-type': contentType }, bytes)
      if (response.status !== 200) return refuse(response, 'a file')
      await response.body?.cancel()
    },
    async get(key, maxBytes) {
      const response = await call('GET', key, {})
      if (response.status === 404) {
        await response.body?.cancel()
        return undefined
      }
      if (response.status !== 200) return refuse(response, 'to give one')
      const chunks: Uint8Array[] = []
      let size = 0
      try {
        for await (const chunk of response.body ?? []) {
          size += chunk.length
          if (size > maxBytes)
            throw new AppError('external_service_error', 'The asset store gave another file.')
          chunks.push(chunk)
        }
      } catch (cause) {
        if (cause instanceof AppError) throw cause
        throw new AppError('external_service_error', 'The asset store broke off.', { cause })
      }
      return Buffer.concat(chunks, size)
    },
    async remove(key) {
      const response = await call('DELETE', key, {})
      if (response.status !== 204 && response.status !== 200 && response.status !== 404) {
        await refuse(response, 'to remove one')
      }
      await response.body?.cancel()
    },
  }
}
