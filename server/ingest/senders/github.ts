import { createHmac, timingSafeEqual } from 'node:crypto'
import { newId } from '../../db/ids.ts'
import { AppError } from '../../errors.ts'
import type { Event, Id, JsonObject, TenantId } from '../../types.ts'

/**
 * GitHub's webhooks: https://docs.github.com/en/webhooks
 *
 * GitHub cannot send a key of ours, only sign with a secret. That secret is made from the id of an API key, which is
 * also in the address: nothing is stored, and whoever revokes the key closes the door.
 */
export interface GithubSecrets {
  /** What is entered at GitHub as the secret: 64 hex digits. */
  secretOf(keyId: Id): string
  /** Does `X-Hub-Signature-256` belong to exactly these bytes? */
  signed(keyId: Id, body: Buffer, signature: string | string[] | undefined): boolean
}

/**
 * `keys` are of `derivedKeys` (server/db/seal.ts): the last one makes secrets and all are believed, so that a webhook
 * outlives a change of the master key as long as the old one stays in the ring.
 */
export function githubSecrets(keys: readonly Buffer[]): GithubSecrets {
  const newest = keys.at(-1)
  if (newest === undefined) throw new Error('Secrets of webhooks need a key')
  const secret = (key: Buffer, keyId: Id) =>
    createHmac('sha256', key).update(keyId.toLowerCase()).digest('hex')
  return {
    secretOf: keyId => secret(newest, keyId),
    signed: (keyId, body, signature) => keys.some(key => isSignature(signature, body, secret(key, keyId))),
  }
}

const SIGNATURE = /^sha256=([0-9a-f]{64})$/

/** HMAC-SHA-256 of the body as it came, in hex after `sha256=`; compared in constant time. */
export function isSignature(header: string | string[] | undefined, body: Buffer, secret: string): boolean {
  const given = typeof header === 'string' ? SIGNATURE.exec(header)?.[1] : undefined
  if (given === undefined) return false
  return timingSafeEqual(Buffer.from(given, 'hex'), createHmac('sha256', secret).update(body).digest())
}

type Headers = Record<string, string | string[] | undefined>

const NAME = /^[a-z][a-z0-9_-]{0,99}$/
const DELIVERY = /^[0-9A-Za-z-]{1,100}$/
/** Where in a payload the thing is that it is about. A review or comment names its pull request or issue as well. */
const THINGS = [
  'pull_request',
  'issue',
  'discussion',
  'release',
  'check_run',
  'check_suite',
  'workflow_run',
  'deployment',
  'security_advisory',
  'alert',
]
/** Where words of a person may be, the most particular first. */
const REMARKS = ['comment', 'review', 'deployment_status', 'security_advisory', ...THINGS]

/**
 * `github.<event>.<action>`, or `github.<event>` where there is no action. A delivery that GitHub repeats keeps its id,
 * so it is a duplicate. A payload that does not fit into an event is left out; what it says in short stays.
 *
 * @throws AppError invalid_request
 */
export function githubEvent(
  headers: Headers,
  payload: unknown,
  fits: boolean,
  { tenantId, now, traceId }: { tenantId: TenantId; now: Date; traceId: string | undefined },
): Event {
  const event = header(headers, 'x-github-event', NAME)
  const delivery = header(headers, 'x-github-delivery', DELIVERY)
  if (typeof payload !== 'object' || payload === null || Array.isArray(payload)) {
    throw new AppError('invalid_request', 'The payload is a JSON object', { field: '/' })
  }
  const { action } = payload as { action?: unknown }
  if (action !== undefined && !(typeof action === 'string' && NAME.test(action))) {
    throw new AppError('invalid_request', 'It is no action of GitHub', { field: '/action' })
  }
  const repository = text(payload, 'repository', 'full_name')
  const owner = repository ?? text(payload, 'organization', 'login')
  return {
    tenantId,
    id: newId(now.getTime()),
    externalId: delivery,
    source: clip(owner === undefined ? 'github' : `github:${owner}`, 500),
    type: ['github', event, ...(action === undefined ? [] : [action])].join('.'),
    subject: subjectOf(payload),
    time: now,
    receivedAt: now,
    category: 'github',
    data: {
      title: clip(titleOf(event, action, owner, payload), 500),
      message: clip(event === 'push' ? commitsOf(payload) : remarkOf(payload), 5000),
      url: clip(urlOf(payload), 2000),
      event,
      action: action ?? null,
      repository: repository === undefined ? null : clip(repository, 500),
      sender: clip(text(payload, 'sender', 'login') ?? '', 500) || null,
      payload: fits ? (payload as JsonObject) : null,
      truncated: !fits,
    },
    traceId,
  }
}

function header(headers: Headers, name: string, pattern: RegExp): string {
  const value = headers[name]
  if (typeof value === 'string' && pattern.test(value)) return value
  throw new AppError('invalid_request', `GitHub sends ${name} with every delivery`, { field: name })
}

/** `[octo/hello] issues opened: It does not start` */
function titleOf(
  event: string,
  action: string | undefined,
  owner: string | undefined,
  payload: object,
): string {
  const what = `${owner === undefined ? '' : `[${owner}] `}${event.replaceAll('_', ' ')}`
  if (event === 'push') {
    const branch = (text(payload, 'ref') ?? '').replace(/^refs\/(heads|tags)\//, '')
    const commits = listOf(payload, 'commits').length
    return `${what} to ${branch}: ${commits} ${commits === 1 ? 'commit' : 'commits'}`
  }
  const name = about(payload, thing => text(thing, 'title') || text(thing, 'name') || text(thing, 'tag_name'))
  const detail =
    name ??
    about(payload, thing => text(thing, 'summary') ?? text(thing, 'security_advisory', 'summary')) ??
    text(payload, 'deployment', 'environment') ??
    text(payload, 'ref')
  const done = action === undefined ? '' : ` ${action.replaceAll('_', ' ')}`
  return `${what}${done}${detail === undefined ? '' : `: ${detail}`}`
}

/** The first line of each commit, as logs show them. */
const commitsOf = (payload: object): string =>
  listOf(payload, 'commits')
    .slice(0, 20)
    .map(commit =>
      `${text(commit, 'id')?.slice(0, 7) ?? ''} ${text(commit, 'message')?.split('\n')[0] ?? ''}`.trim(),
    )
    .join('\n')

function remarkOf(payload: object): string {
  for (const name of REMARKS) {
    const remark = text(payload, name, 'body') ?? text(payload, name, 'description')
    if (remark) return remark
  }
  return text(payload, 'zen') ?? ''
}

const urlOf = (payload: object): string =>
  text(payload, 'comment', 'html_url') ??
  text(payload, 'review', 'html_url') ??
  about(payload, thing => text(thing, 'html_url')) ??
  text(payload, 'compare') ??
  text(payload, 'repository', 'html_url') ??
  ''

/** `#12`, a tag, a branch. */
function subjectOf(payload: object): string | undefined {
  const number = about(payload, thing => {
    const value = member(thing, 'number')
    return typeof value === 'number' ? `#${value}` : text(thing, 'tag_name')
  })
  const subject = number ?? text(payload, 'ref')
  return subject ? clip(subject, 500) : undefined
}

/** The first answer about the things of a payload. */
function about(payload: object, ask: (thing: unknown) => string | undefined): string | undefined {
  for (const name of THINGS) {
    const answer = ask(member(payload, name))
    if (answer) return answer
  }
  return undefined
}

const member = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined

function text(value: unknown, ...path: string[]): string | undefined {
  const found = path.reduce(member, value)
  return typeof found === 'string' ? found : undefined
}

function listOf(value: unknown, name: string): unknown[] {
  const found = member(value, name)
  return Array.isArray(found) ? found : []
}

/** Cut between characters: half a surrogate pair cannot be stored. */
const clip = (whole: string, max: number): string =>
  whole.length <= max ? whole : `${whole.slice(0, max - 1).replace(/[\uD800-\uDBFF]$/, '')}…`
