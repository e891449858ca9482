import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A stand-in for FCM and its token endpoint, for stories: what each device answers is said by its name. */
export interface Fcm {
  /** The file of providers that leads here: JSON is YAML, too. */
  providersFile: string
  /** Messages that each device, or `topic <name>`, took. */
  got: ReadonlyMap<string, number>
  /** Who is in which topic. */
  topics: ReadonlyMap<string, ReadonlySet<string>>
  /** Requests that asked about devices without sending. */
  asked: readonly string[]
  /** From now on the device is away (503), gone (UNREGISTERED), held back (429) or there again. */
  make(device: string, state: 'away' | 'gone' | 'slow' | 'there'): void
  close(): Promise<void>
}

/** A token by which the stand-in knows the device. */
export const deviceToken = (name: string): string => `${name}:${'a'.repeat(140)}`
const nameOf = (token: string): string => token.split(':')[0]!

export async function openFcm(): Promise<Fcm> {
  const got = new Map<string, number>()
  const topics = new Map<string, Set<string>>()
  const asked: string[] = []
  const states = new Map<string, string>()
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })

  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const answer = (status: number, body: object, headers = {}) =>
        response
          .writeHead(status, { 'content-type': 'application/json', ...headers })
          .end(JSON.stringify(body))
      const failed = (status: number, errorCode: string, headers = {}) =>
        answer(
          status,
          {
            error: {
              code: status,
              message: 'In words',
              details: [{ '@type': 'type.googleapis.com/google.firebase.fcm.v1.FcmError', errorCode }],
            },
          },
          headers,
        )
      /** Whether the device is not to be reached, and the answer is written. */
      const refuses = (device: string): boolean => {
        const state = states.get(device)
        if (state === 'away') failed(503, 'UNAVAILABLE', { 'retry-after': '1' })
        else if (state === 'gone') failed(404, 'UNREGISTERED')
        else if (state === 'slow') failed(429, 'QUOTA_EXCEEDED', { 'retry-after': '9' })
        return state !== undefined && state !== 'there'
      }
      const url = new URL(request.url!, 'http://fcm')
      if (url.pathname === '/token') return answer(200, { access_token: 'token', expires_in: 3600 })
      if (request.headers.authorization !== 'Bearer token') return answer(401, {})
      const path = url.pathname.replace('/v1/projects/demo-project/', '')
      if (path === 'messages:send' && request.method === 'POST') {
        const { message, validate_only: dry } = JSON.parse(Buffer.concat(chunks).toString())
        const name = message.topic === undefined ? nameOf(message.token) : `topic ${message.topic}`
        if (dry) asked.push(`validate ${name}`)
        if (refuses(name)) return
        if (!dry) got.set(name, (got.get(name) ?? 0) + 1)
        return answer(200, { name: 'projects/demo-project/messages/1' })
      }
      const [, registration = '', rest = ''] =
        /^registrations\/([^/]+)\/topicSubscriptions(.*)$/.exec(path) ?? []
      const device = nameOf(decodeURIComponent(registration))
      const topic =
        request.method === 'POST' ? url.searchParams.get('topicName') : decodeURIComponent(rest.slice(1))
      if (device === '' || !topic) return answer(404, {})
      asked.push(`${request.method} ${topic} ${device}`)
      if (refuses(device)) return
      const members = topics.get(topic) ?? new Set()
      topics.set(topic, members)
      if (request.method === 'DELETE') {
        members.delete(device)
        return answer(200, {})
      }
      if (members.has(device)) return answer(409, { error: { code: 409, status: 'ALREADY_EXISTS' } })
      members.add(device)
      return answer(200, { topic_name: topic })
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const account = {
    type: 'service_account',
    project_id: 'demo-project',
    client_email: 'push@demo.iam.gserviceaccount.com',
    private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    token_uri: `${url}/token`,
  }
  return {
    providersFile: JSON.stringify([
      { provider: 'fcm', settings: { baseUrl: url, serviceAccount: JSON.stringify(account) } },
    ]),
    got,
    topics,
    asked,
    make: (device, state) => void states.set(device, state),
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
