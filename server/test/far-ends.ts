import { existsSync, readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { openHttp } from '../deliver/http.ts'
import { type OpenedProvider, openProvider } from '../deliver/open-provider.ts'
import type {
  AnyProvider,
  DeliveryError,
  Http,
  HttpRequest,
  HttpResponse,
  Sent,
} from '../deliver/provider.ts'
import type { Json, JsonObject, Message } from '../types.ts'

/**
 * Vendors as somebody else understood them: emulators by other authors, and the vendors' own published contracts. Our
 * stand-ins (server/deliver/providers/conformance.ts) fail in every way that we thought of; these judge what we did not
 * think of. All of them live in the process of the test, on a port that the system picks, and end with `close`.
 */
export interface FarEnd {
  /** http://127.0.0.1:port */
  url: string
  close(): Promise<void>
}

const require = createRequire(import.meta.url)
const urlOf = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`

async function closed(server: Server): Promise<void> {
  const gone = once(server, 'close')
  server.close()
  server.closeAllConnections()
  await gone
}

/* ---------------------------------------------------------------- one of our providers before it */

export interface Exchange {
  request: HttpRequest
  response: HttpResponse
}

export interface Caller {
  send(message: Message): Promise<Sent | DeliveryError>
  opened: OpenedProvider
  /** Every exchange so far, in order. */
  exchanges: Exchange[]
  close(): Promise<void>
}

/** Our provider as the product opens it, its guarded door open to this machine, each exchange noted. */
export async function openCaller(provider: AnyProvider, settings: JsonObject): Promise<Caller> {
  const door = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const exchanges: Exchange[] = []
  const http: Http = {
    ...door,
    async request(request) {
      const response = await door.request(request)
      exchanges.push({ request, response })
      return response
    },
  }
  const opened = await openProvider(provider, settings, { http, now: () => new Date() })
  return {
    opened,
    exchanges,
    send: message =>
      opened.send(message, new AbortController().signal).catch((error: unknown) => error as DeliveryError),
    async close() {
      await opened.close()
      await door.close()
    },
  }
}

/* ---------------------------------------------------------------- Amazon SES */

/** A mail as aws-ses-v2-local keeps it. */
export interface StoredMail {
  messageId: string
  from: string
  replyTo: string[]
  destination: { to: string[]; cc: string[]; bcc: string[] }
  subject: string
  body: { html?: string; text?: string }
  /** `content`: base64. */
  attachments: {
    filename: string
    contentType: string
    contentDisposition?: string
    content: string
    size: number
  }[]
  headers: { name: string; value: string }[]
}

/** Amazon SES, API v2: https://github.com/domdomegg/aws-ses-v2-local */
export async function sesFarEnd(): Promise<FarEnd & { mails(): Promise<StoredMail[]> }> {
  const { default: start } = require('aws-ses-v2-local') as {
    default(config: { host: string; port: number }): Promise<Server>
  }
  const server = await start({ host: '127.0.0.1', port: 0 })
  const url = urlOf(server)
  return {
    url,
    async mails() {
      const { emails } = (await (await fetch(`${url}/store`)).json()) as { emails: StoredMail[] }
      return emails
    },
    close: () => closed(server),
  }
}

/* ---------------------------------------------------------------- a push service, and the browsers behind it */

export interface Browser {
  endpoint: string
  keys: { p256dh: string; auth: string }
  /** What the browser has decrypted, in the order in which it came. */
  read(): Promise<string[]>
  /** As if somebody had withdrawn the permission. */
  expire(): Promise<void>
}

/** Web push: https://github.com/marc1706/web-push-testing-server */
export async function pushFarEnd(): Promise<FarEnd & { subscribe(vapidKey?: string): Promise<Browser> }> {
  const { PushApiModel } = require('web-push-testing/src/PushApiModel.js') as {
    PushApiModel: new () => { notifyUrl: string }
  }
  const TestingServer = require('web-push-testing/src/server.js') as new (
    model: object,
    port: number,
  ) => { startServer(): void; _server: Server }
  const model = new PushApiModel()
  const emulator = new TestingServer(model, 0)
  emulator.startServer()
  const { _server: server } = emulator
  if (!server.listening) await once(server, 'listening')
  const url = urlOf(server)
  // It was written down for port 0, before the system had picked one.
  model.notifyUrl = `${url}/notify/`
  const ask = async (path: string, body: JsonObject): Promise<JsonObject> => {
    const response = await fetch(`${url}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${path}: ${text}`)
    return text.startsWith('{') ? ((JSON.parse(text) as { data: JsonObject }).data ?? {}) : {}
  }
  return {
    url,
    async subscribe(applicationServerKey) {
      const { endpoint, keys, clientHash } = (await ask('/subscribe', {
        userVisibleOnly: 'true',
        ...(applicationServerKey !== undefined && { applicationServerKey }),
      })) as { endpoint: string; keys: Browser['keys']; clientHash: string }
      return {
        endpoint,
        keys,
        read: async () => (await ask('/get-notifications', { clientHash })).messages as string[],
        expire: async () => void (await ask(`/expire-subscription/${clientHash}`, {})),
      }
    },
    close: () => closed(server),
  }
}

/* ---------------------------------------------------------------- published contracts */

const CONTRACTS = new URL('../../../shared/contracts/', import.meta.url)

/** Why the contracts cannot be held against anything here, for node:test; false where they can. */
export const noContracts = (...names: string[]): string | false => {
  const missing = names.filter(name => !existsSync(new URL(name, CONTRACTS)))
  return missing.length > 0 && `the published contracts are not beside this checkout: ${missing.join(', ')}`
}

/** What a contract has against one exchange. */
export interface Violation {
  /** Such as `body.To`. */
  at: string
  message: string
}

/**
 * Prism as a validating mock of all these documents together: it answers each request as its contract does, and 4xx
 * with what is wrong where the request breaks it. A field that a contract does not name is wrong as well, though OpenAPI
 * would let it pass: a vendor ignores what it does not know, and the message would lack it. (Of a form Prism reads only
 * what is named; there `againstContract` of server/deliver/providers/twilio-vendor.ts looks for the rest.)
 *
 * `mended`: what is wrong with a document itself, put right before it judges.
 *
 * https://github.com/stoplightio/prism
 */
export async function contractFarEnd(
  contracts: Record<string, ((document: OpenApi) => void) | undefined>,
): Promise<FarEnd> {
  const inPrism = createRequire(require.resolve('@stoplight/prism-cli'))
  const { getHttpOperationsFromSpec } = inPrism('@stoplight/prism-http') as {
    getHttpOperationsFromSpec(document: object): Promise<object[]>
  }
  const { createServer } = inPrism('@stoplight/prism-http-server') as {
    createServer(
      operations: object[],
      options: object,
    ): { listen(port: number, host: string): Promise<string>; close(): Promise<void> }
  }
  const operations: object[] = []
  for (const [name, mended] of Object.entries(contracts)) {
    const document = JSON.parse(readFileSync(new URL(name, CONTRACTS), 'utf8')) as JsonObject
    mended?.(document as unknown as OpenApi)
    operations.push(...(await getHttpOperationsFromSpec(closedSchemas(document) as object)))
  }
  const server = createServer(operations, {
    components: { logger: SILENT },
    config: {
      isProxy: false,
      mock: { dynamic: false },
      checkSecurity: true,
      validateRequest: true,
      // Its own examples are not what is judged here.
      validateResponse: false,
      errors: true,
    },
    cors: false,
  })
  return { url: await server.listen(0, '127.0.0.1'), close: () => server.close() }
}

/** As much of a document as those who mend one look at. */
export interface OpenApi {
  paths: Record<string, Record<string, Operation>>
}

export interface Operation {
  parameters?: {
    in: string
    name: string
    required?: boolean
    schema?: Json
    [more: string]: Json | undefined
  }[]
  consumes?: string[]
  requestBody?: { content: Record<string, { encoding?: JsonObject }> }
  responses: Record<string, { headers?: JsonObject }>
}

const quiet = (): void => {}
/** What Prism asks of a logger: pino's levels and some of its own. */
const SILENT: object = {
  trace: quiet,
  debug: quiet,
  info: quiet,
  warn: quiet,
  error: quiet,
  fatal: quiet,
  start: quiet,
  success: quiet,
  note: quiet,
  child: () => SILENT,
}

/** Schemas that name their members, closed against others. */
function closedSchemas(node: Json): Json {
  if (Array.isArray(node)) return node.map(closedSchemas)
  if (typeof node !== 'object' || node === null) return node
  const copy = Object.fromEntries(Object.entries(node).map(([name, value]) => [name, closedSchemas(value)]))
  const names = copy.type === 'object' && typeof copy.properties === 'object'
  return names && copy.additionalProperties === undefined ? { ...copy, additionalProperties: false } : copy
}

/** What Prism says is wrong with the request, out of its header or, where it refused, out of its answer. */
export function violationsIn({ response: { status, headers, body } }: Exchange): Violation[] {
  type Told = { location: string[]; message: string }
  const named = headers['sl-violations']
  const list =
    typeof named === 'string'
      ? (JSON.parse(named) as Told[])
      : status >= 400
        ? ((JSON.parse(body || '{}') as { validation?: Told[] }).validation ?? [
            { location: ['response'], message: `HTTP ${status}: ${body.slice(0, 500)}` },
          ])
        : []
  return list.map(({ location, message }) => ({
    at: location.filter((part, at) => at > 0 || part !== 'request').join('.'),
    message,
  }))
}
