import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { PAGE_POLICY, preferencePage, readPreferenceForm } from './preference-page.ts'
import { getPreferences, putPreferences } from './preferences.ts'
import type { PeopleSealer } from './users.ts'
import type { UnsubscribeLinks } from './unsubscribe.ts'

/** The fields of the form, and no more. */
const BODY_LIMIT = 8192

const Params = Type.Object({ token: Type.String({ maxLength: 3000 }) }, { additionalProperties: false })
// Link trackers add parameters of their own.
const Query = Type.Object(
  { saved: Type.Optional(Type.String({ maxLength: 10 })) },
  { additionalProperties: true },
)

/**
 * The preference page behind the signed link that every message carries. The link is the credential, as with
 * unsubscribing: it shows and changes choices, never an address.
 */
export function preferencePageRoutes(
  api: Api,
  { db, sealer, links }: { db: Db; sealer: PeopleSealer; links: Pick<UnsubscribeLinks, 'read'> },
): void {
  const config = { access: { role: 'public' } } as const
  const schema = { hide: true, params: Params, querystring: Query } as const

  api.get('/u/:token/preferences', { config, schema }, async (request, reply) => {
    const who = links.read(request.params.token)
    const view = who && (await choices(who))
    if (!view) return answer(reply, 404, NOT_VALID)
    return answer(reply, 200, preferencePage(view, request.query.saved !== undefined))
  })

  api.post(
    '/u/:token/preferences',
    { config: { ...config, rawBody: true }, bodyLimit: BODY_LIMIT, schema },
    async (request, reply) => {
      const who = links.read(request.params.token)
      const view = who && (await choices(who))
      if (!who || !view) return answer(reply, 404, NOT_VALID)
      const input = readPreferenceForm(new URLSearchParams(request.rawBody?.toString('utf8') ?? ''), view)
      if (!input) return answer(reply, 400, preferencePage(view, false))
      await db.tx(tx =>
        putPreferences(
          tx,
          { sealer, tenantId: who.tenantId },
          who.userId,
          { actor: 'user', origin: 'preference page' },
          input,
        ),
      )
      // See other: going back or reloading does not send the form again.
      return reply.code(303).header('location', '?saved').send()
    },
  )

  async function choices({ tenantId, userId }: { tenantId: number; userId: string }) {
    try {
      return await getPreferences(db, tenantId, userId)
    } catch (error) {
      // Somebody nobody has created, or who was erased, has nothing to choose.
      if (error instanceof AppError && (error.code === 'not_found' || error.code === 'gone')) return undefined
      throw error
    }
  }
}

const NOT_VALID =
  '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>This link is not valid</title></head>' +
  '<body><main><h1>This link is not valid</h1><p>Use the link in a newer message.</p></main></body></html>\n'

const answer = (reply: FastifyReply, status: number, html: string): FastifyReply =>
  reply
    .code(status)
    .type('text/html; charset=utf-8')
    .headers({
      'content-security-policy': PAGE_POLICY,
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
      'x-robots-tag': 'noindex, nofollow',
    })
    .send(html)
