import { Type } from 'typebox'
import { audit } from '../../admin/audit.ts'
import { type Db, sql } from '../../db/pool.ts'
import { AppError } from '../../errors.ts'
import type { Api, Caller, Role, Scope } from '../../http/api.ts'
import { requireAccess } from '../../http/auth.ts'
import type { Id, TenantId } from '../../types.ts'
import type { Accepted, Acceptor } from '../acceptor.ts'
import { MAX_DATA_BYTES, dataOf } from '../event-input.ts'
import { AlertmanagerMessage, alertEvents } from './alertmanager.ts'
import { type GithubSecrets, githubEvent } from './github.ts'

export interface SenderDeps {
  db: Db
  acceptor: Acceptor
  now(): Date
  /** Bytes of one body. */
  maxBytes: number
  github: GithubSecrets
  /** Ours, as GitHub reaches it; without a slash at the end. */
  publicUrl: string
}

const Taken = Type.Object({
  accepted: Type.Integer(),
  duplicates: Type.Integer({ description: 'Repetitions of what was accepted before.' }),
  refused: Type.Integer({ description: 'Outside the schema of their type: kept as dead letters.' }),
})

const KeyParams = Type.Object({ id: Type.String({ format: 'uuid' }) }, { additionalProperties: false })
/** What a key, or whoever hands it on, must be allowed to do. */
const publishing = { role: 'service', scope: 'events:write' } as const

/**
 * GitHub's own bound is 25 MB; the largest real ones, pushes of 2,048 commits, take about two. These bytes are read
 * before anybody knows who sends them.
 */
const MAX_GITHUB_BYTES = 4 * 1024 * 1024
/** Room for what stands in an event's data beside the payload. */
const MAX_PAYLOAD_BYTES = MAX_DATA_BYTES - 32 * 1024
/** A minute, from one of GitHub's few addresses: an organisation's whole traffic comes from there. */
const GITHUB_PER_MINUTE = 3000

// Called only with the id of a key that signed: the signature says whose tenant it is. Uses are noted once a minute.
const useKey = sql(
  'use_sender_key',
  `with used as (
     update api_keys set last_used_at = $2
     where id = $1 and revoked_at is null and (last_used_at is null or last_used_at < $2::timestamptz - interval '1 minute')
   )
   select k.tenant_id, k.role, k.scopes, k.expires_at, t.enabled as tenant_enabled
   from api_keys k join tenants t on t.id = k.tenant_id
   where k.id = $1 and k.revoked_at is null`,
)
const findKey = sql(
  'find_sender_key',
  `select 1 from api_keys
   where tenant_id = $1 and id = $2 and revoked_at is null and (expires_at is null or expires_at > $3)`,
)

interface KeyRow {
  tenant_id: TenantId
  role: Role
  scopes: Scope[]
  expires_at: Date | null
  tenant_enabled: boolean
}

/** Doors for programs that speak a language of their own and cannot be taught ours. */
export function senderRoutes(api: Api, deps: SenderDeps): void {
  const { db, acceptor, now, maxBytes, github } = deps

  api.post(
    '/webhooks/alertmanager',
    {
      // Alertmanager sends the key itself: http_config.authorization.credentials.
      config: { access: publishing },
      bodyLimit: maxBytes,
      schema: {
        tags: ['Senders'],
        operationId: 'receiveAlertmanager',
        summary: 'Take the webhook of a Prometheus Alertmanager: each alert becomes one event',
        body: AlertmanagerMessage,
        response: { 202: Taken },
      },
    },
    async (request, reply) => {
      const { tenantId } = request.caller
      const events = alertEvents(request.body, { tenantId, now: now(), traceId: request.traceId })
      // Labels and annotations may each be long; all of them together are bounded like any event's data.
      for (const { data } of events) dataOf(data)
      const { status, body } = await acceptor.accept({
        tenantId,
        events,
        answer: results => ({ status: 202, body: taken(results) }),
      })
      return reply.code(status as 202).send(body as ReturnType<typeof taken>)
    },
  )

  api.post(
    '/webhooks/github/:id',
    {
      // The signature is the credential.
      config: { access: { role: 'public' }, rawBody: true, limit: GITHUB_PER_MINUTE },
      bodyLimit: Math.min(maxBytes, MAX_GITHUB_BYTES),
      schema: {
        tags: ['Senders'],
        operationId: 'receiveGithub',
        summary: 'Take a webhook of GitHub, signed with the secret of the API key named in the address',
        params: KeyParams,
        response: { 202: Taken },
      },
    },
    async (request, reply) => {
      const { headers, params, rawBody = Buffer.alloc(0) } = request
      // Before anything is looked up: what is not signed costs no query.
      if (!github.signed(params.id, rawBody, headers['x-hub-signature-256'])) throw unsigned()
      const at = now()
      const { tenantId } = await signer(db, params.id, at)
      if (Buffer.isBuffer(request.body)) {
        throw new AppError('unsupported_media_type', 'Choose the content type application/json at GitHub', {
          field: 'content-type',
        })
      }
      const event = githubEvent(headers, request.body, rawBody.length <= MAX_PAYLOAD_BYTES, {
        tenantId,
        now: at,
        traceId: request.traceId,
      })
      const { status, body } = await acceptor.accept({
        tenantId,
        events: [event],
        answer: results => ({ status: 202, body: taken(results) }),
      })
      return reply.code(status as 202).send(body as ReturnType<typeof taken>)
    },
  )

  api.post(
    '/api/keys/:id/github',
    {
      config: { access: { role: 'admin', scope: 'admin:write' } },
      schema: {
        tags: ['Senders'],
        operationId: 'showGithubWebhook',
        summary: 'Show the address and secret with which GitHub publishes under this API key',
        params: KeyParams,
        response: { 200: Type.Object({ url: Type.String(), secret: Type.String() }) },
      },
    },
    async (request, reply) => {
      const { caller, params, traceId } = request
      // Nobody hands on what they may not do themselves.
      requireAccess(caller, publishing)
      const id = params.id.toLowerCase()
      await db.tx(async tx => {
        if (!(await tx.one(findKey, [caller.tenantId, id, now()]))) {
          throw new AppError('not_found', 'There is no such key, or it is no longer valid.')
        }
        await audit(tx, caller, { action: 'key.github_shown', objectKind: 'key', objectId: id, traceId })
      })
      reply.header('cache-control', 'no-store')
      return { url: `${deps.publicUrl}/webhooks/github/${id}`, secret: github.secretOf(id) }
    },
  )
}

/** Says not what is wrong: a wrong signature, no such key and a revoked one look the same. */
const unsigned = () =>
  new AppError('unauthenticated', 'The request is not signed with the secret of a valid key.')

/** @throws AppError unauthenticated; forbidden for a key that may not publish, or a disabled tenant */
async function signer(db: Db, id: Id, at: Date): Promise<Caller> {
  const key = await db.one<KeyRow>(useKey, [id, at])
  if (key === undefined || (key.expires_at !== null && key.expires_at <= at)) throw unsigned()
  if (!key.tenant_enabled) throw new AppError('forbidden', 'The tenant is disabled.')
  const caller: Caller = {
    tenantId: key.tenant_id,
    kind: 'key',
    role: key.role,
    id,
    scopes: key.scopes.length === 0 ? null : key.scopes,
  }
  requireAccess(caller, publishing)
  return caller
}

function taken(results: Accepted[]): { accepted: number; duplicates: number; refused: number } {
  const count = (is: (status: Accepted['status']) => boolean) => results.filter(r => is(r.status)).length
  return {
    accepted: count(status => status === 'planned' || status === 'pending'),
    duplicates: count(status => status === 'duplicate'),
    refused: count(status => status === 'refused'),
  }
}
