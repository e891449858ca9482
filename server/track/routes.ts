import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { callbackRefused, DeliveryError } from '../deliver/provider.ts'
import type { OpenedProvider } from '../deliver/open-provider.ts'
import type { CallbackOnce } from './callback-once.ts'
import type { Receipts } from './receipts.ts'

/** Vendors post events in lists; SendGrid's are the longest, some hundred kilobytes. */
const BODY_LIMIT = 2 << 20
/** Certificates may have to be fetched; vendors give up after some ten seconds and repeat. */
const DEADLINE_MS = 8_000

const Params = Type.Object({ provider: Type.String({ maxLength: 50 }) }, { additionalProperties: false })

/**
 * What vendors post about messages they took: the signature is over the bytes and often over the URL, so both go to the
 * provider as they came. Whoever cannot prove to be the vendor is refused, and nothing is kept.
 */
export function callbackRoutes(
  api: Api,
  {
    callbacks,
    receipts,
    once,
    publicUrl,
  }: {
    callbacks: ReadonlyMap<string, OpenedProvider>
    receipts: Receipts
    once: CallbackOnce
    publicUrl(): string
  },
): void {
  const config = { access: { role: 'public' }, rawBody: true } as const
  // For vendors, each in a language of its own: no part of the API.
  const schema = {
    hide: true,
    params: Params,
    querystring: Type.Object({}, { additionalProperties: true }),
  } as const

  const answer = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { provider: id } = request.params as { provider: string }
    const provider = callbacks.get(id)
    if (!provider) throw new AppError('not_found', 'No such provider is set up here.')
    const { rawBody } = request as FastifyRequest & { rawBody?: Buffer }
    try {
      const said = await provider.callback(
        {
          method: request.method,
          // As the vendor called it, whatever a proxy made of it.
          url: `${publicUrl()}${request.raw.url ?? ''}`,
          headers: request.headers,
          body: rawBody ?? Buffer.alloc(0),
        },
        AbortSignal.timeout(DEADLINE_MS),
      )
      if (said.once && !(await once(provider.id, said.once))) {
        throw callbackRefused('The signature was used for another event')
      }
      await receipts.take(provider.id, provider.channel, said.receipts)
      if (!said.reply) return await reply.code(204).send()
      return await reply.code(said.reply.status).type(said.reply.contentType).send(said.reply.body)
    } catch (error) {
      // Something of ours, or a certificate that cannot be fetched: the vendor shall come again.
      if (error instanceof DeliveryError) {
        throw new AppError('external_service_error', 'The callback cannot be checked for now.', {
          retryAfterSeconds: 30,
          cause: error,
        })
      }
      throw error
    }
  }

  api.post('/webhooks/:provider', { config, bodyLimit: BODY_LIMIT, schema }, answer)
  api.get('/webhooks/:provider', { config, schema }, answer)
  // Where products before this one had it, and where vendors may still post.
  api.post('/api/v2/webhooks/:provider', { config, bodyLimit: BODY_LIMIT, schema }, answer)
}
