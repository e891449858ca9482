import { createHash, createHmac } from 'node:crypto'

/** What all that speak to Amazon Web Services, or to what speaks like them, share. */

export interface Unsigned {
  method: string
  /** Absolute; its query is signed as well. */
  url: string
  /** Names in lower case. All of them are signed, so none may be changed on the way. */
  headers: Record<string, string>
  body: string | Uint8Array
  region: string
  /** As AWS names it in credential scopes, which is not always the host: SES signs as `ses`. */
  service: string
  accessKeyId: string
  secretAccessKey: string
  /** Of temporary credentials. */
  sessionToken?: string
  now: Date
}

const ALGORITHM = 'AWS4-HMAC-SHA256'

/**
 * The headers to send: those given, and what Signature Version 4 adds (`x-amz-date`, `x-amz-security-token`,
 * `authorization`). `host` is signed but left to whoever writes the request: it follows from the URL.
 *
 * The path is encoded once more, as every service but S3 expects. S3 has it as it is, and the hash of the body in a header
 * of its own.
 *
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */
export function signV4(request: Unsigned): Record<string, string> {
  const { region, service, sessionToken } = request
  const url = new URL(request.url)
  const time = request.now.toISOString().replaceAll(/[-:]|\.\d{3}/g, '')
  const day = time.slice(0, 8)
  const headers: Record<string, string> = { ...request.headers, 'x-amz-date': time }
  if (sessionToken !== undefined) headers['x-amz-security-token'] = sessionToken
  const s3 = service === 's3'
  const digest = sha256(request.body)
  if (s3) headers['x-amz-content-sha256'] = digest

  const signed = Object.entries({ ...headers, host: url.host })
    .map(([name, value]) => [name.toLowerCase(), value.trim().replaceAll(/ +/g, ' ')] as const)
    .sort(([a], [b]) => compare(a, b))
  const names = signed.map(([name]) => name).join(';')
  const canonical = [
    request.method,
    s3 ? url.pathname : url.pathname.split('/').map(encode).join('/'),
    canonicalQuery(url.searchParams),
    ...signed.map(([name, value]) => `${name}:${value}`),
    '',
    names,
    digest,
  ].join('\n')

  const scope = `${day}/${region}/${service}/aws4_request`
  const toSign = [ALGORITHM, time, scope, sha256(canonical)].join('\n')
  const key = [day, region, service, 'aws4_request'].reduce<string | Buffer>(
    (rest, part) => hmac(rest, part),
    `AWS4${request.secretAccessKey}`,
  )
  const signature = hmac(key, toSign).toString('hex')
  const credential = `${request.accessKeyId}/${scope}`
  headers.authorization = `${ALGORITHM} Credential=${credential}, SignedHeaders=${names}, Signature=${signature}`
  return headers
}

function canonicalQuery(query: URLSearchParams): string {
  return [...query]
    .map(([name, value]) => [encode(name), encode(value)] as const)
    .sort(([a, x], [b, y]) => compare(a, b) || compare(x, y))
    .map(([name, value]) => `${name}=${value}`)
    .join('&')
}

/** By code point, as AWS sorts; every name and value is ASCII by then. */
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** RFC 3986 §2.3: all but the unreserved characters. `encodeURIComponent` leaves five more. */
const encode = (text: string): string =>
  encodeURIComponent(text).replaceAll(/[!'()*]/g, each => `%${each.charCodeAt(0).toString(16).toUpperCase()}`)

const sha256 = (data: string | Uint8Array): string => createHash('sha256').update(data).digest('hex')
const hmac = (key: string | Buffer, data: string): Buffer => createHmac('sha256', key).update(data).digest()
