import { createHash, createHmac } from 'node:crypto'
import { once } from 'node:events'
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A bucket in memory that takes what S3 takes and refuses what S3 refuses. */
export interface TestStore {
  url: string
  objects: Map<string, { bytes: Buffer; type: string }>
  /** What it was asked, such as `PUT /bucket/key`. */
  asked: string[]
  /** How it answers the next requests in place of doing anything. */
  answers: ((response: ServerResponse) => void)[]
  close(): Promise<void>
}

export const KEY = { accessKeyId: 'AKIDTEST', secretAccessKey: 'test/secret+of=the store' }

/**
 * Checks signatures on its own, step by step as AWS describes it, from what came over the wire:
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */
export async function testStore({ bucket, region }: { bucket: string; region: string }): Promise<TestStore> {
  const store: Pick<TestStore, 'objects' | 'asked' | 'answers'> = {
    objects: new Map(),
    asked: [],
    answers: [],
  }

  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', chunk => chunks.push(chunk as Buffer))
    request.on('end', () => {
      const body = Buffer.concat(chunks)
      store.asked.push(`${request.method} ${request.url}`)
      const answer = store.answers.shift()
      if (answer) return answer(response)
      const wrong = refusal(request, body, region)
      if (wrong) return fail(response, 403, wrong)
      const path = request.url!.split('?', 1)[0]!
      if (!path.startsWith(`/${bucket}/`)) return fail(response, 404, 'NoSuchBucket')
      const key = path.slice(bucket.length + 2)
      const found = store.objects.get(key)
      switch (request.method) {
        case 'PUT':
          store.objects.set(key, { bytes: body, type: request.headers['content-type'] ?? '' })
          return response.writeHead(200).end()
        case 'GET':
          if (!found) return fail(response, 404, 'NoSuchKey')
          return response.writeHead(200, { 'content-type': found.type }).end(found.bytes)
        case 'DELETE':
          store.objects.delete(key)
          return response.writeHead(204).end()
        default:
          return fail(response, 405, 'MethodNotAllowed')
      }
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    ...store,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

const fail = (response: ServerResponse, status: number, code: string) =>
  response
    .writeHead(status, { 'content-type': 'application/xml' })
    .end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>no</Message></Error>`)

const sha = (data: string | Buffer) => createHash('sha256').update(data).digest('hex')
const mac = (key: string | Buffer, data: string) => createHmac('sha256', key).update(data).digest()

function refusal(
  { method, url, headers }: IncomingMessage,
  body: Buffer,
  region: string,
): string | undefined {
  const parts =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$/.exec(
      headers.authorization ?? '',
    )
  if (!parts) return 'AccessDenied'
  const [, id, day, where, names, signature] = parts as unknown as string[]
  if (id !== KEY.accessKeyId) return 'InvalidAccessKeyId'
  if (where !== region) return 'AuthorizationHeaderMalformed'
  const time = String(headers['x-amz-date'])
  const [, y, mo, d, h, mi, s] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(time) ?? []
  const at = Date.parse(`${y}-${mo}-${d}T${h}:${mi}:${s}Z`)
  if (!time.startsWith(day!) || Math.abs(Date.now() - at) > 15 * 60_000) return 'RequestTimeTooSkewed'
  if (headers['x-amz-content-sha256'] !== sha(body)) return 'XAmzContentSHA256Mismatch'
  const signed = names!.split(';')
  // host, and every x-amz- header that was sent, must be among them.
  const must = ['host', ...Object.keys(headers).filter(name => name.startsWith('x-amz-'))]
  if (must.some(name => !signed.includes(name)) || signed.join() !== [...signed].sort().join())
    return 'AccessDenied'
  const canonical = [
    method,
    url,
    '',
    ...signed.map(name => `${name}:${String(headers[name]).trim()}`),
    '',
    names,
    headers['x-amz-content-sha256'],
  ].join('\n')
  const text = ['AWS4-HMAC-SHA256', time, `${day}/${region}/s3/aws4_request`, sha(canonical)].join('\n')
  const key = mac(mac(mac(mac(`AWS4${KEY.secretAccessKey}`, day!), region), 's3'), 'aws4_request')
  return mac(key, text).toString('hex') === signature ? undefined : 'SignatureDoesNotMatch'
}
