import { Type } from 'typebox'
import type { Api } from '../../http/api.ts'
import type { Accepted, Acceptor } from '../acceptor.ts'
import { AlertmanagerMessage, alertEvents } from './alertmanager.ts'

export interface SenderDeps {
  acceptor: Acceptor
  now(): Date
  /** Bytes of one body. */
  maxBytes: number
}

const Taken = Type.Object({
  accepted: Type.Integer(),
  duplicates: Type.Integer({ description: 'Repetitions of what was accepted before.' }),
  refused: Type.Integer({ description: 'Outside the schema of their type: kept as dead letters.' }),
})

/** Doors for programs that speak a language of their own and cannot be taught ours. */
export function senderRoutes(api: Api, { acceptor, now, maxBytes }: SenderDeps): void {
  api.post(
    '/webhooks/alertmanager',
    {
      // Alertmanager sends the key itself: http_config.authorization.credentials.
      config: { access: { role: 'service', scope: 'events:write' } },
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
      const { status, body } = await acceptor.accept({
        tenantId,
        events: alertEvents(request.body, { tenantId, now: now(), traceId: request.traceId }),
        answer: results => ({ status: 202, body: taken(results) }),
      })
      return reply.code(status as 202).send(body as ReturnType<typeof taken>)
    },
  )
}

function taken(results: Accepted[]): { accepted: number; duplicates: number; refused: number } {
  const count = (is: (status: Accepted['status']) => boolean) => results.filter(r => is(r.status)).length
  return {
    accepted: count(status => status === 'planned' || status === 'pending'),
    duplicates: count(status => status === 'duplicate'),
    refused: count(status => status === 'refused'),
  }
}
