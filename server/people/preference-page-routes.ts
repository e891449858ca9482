import { Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { pageOf, sendPage } from './page.ts'
import { preferencePage, readPreferenceForm } from './preference-page.ts'
import { changePreferences, readPreferences, TENANT } from './preference-store.ts'
import { getPreferences, putPreferences } from './preferences.ts'
import { TRACK_CLICKS, TRACK_OPENS, trackingShown } from './tracking-consent.ts'
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
    const found = who && (await choices(who))
    if (!found) return sendPage(reply, 404, NOT_VALID)
    const saved = request.query.saved !== undefined
    return sendPage(reply, 200, preferencePage(found.view, { saved, tracked: found.tracked }))
  })

  api.post(
    '/u/:token/preferences',
    { config: { ...config, rawBody: true }, bodyLimit: BODY_LIMIT, schema },
    async (request, reply) => {
      const who = links.read(request.params.token)
      const found = who && (await choices(who))
      if (!who || !found) return sendPage(reply, 404, NOT_VALID)
      const { view, tracked } = found
      const form = new URLSearchParams(request.rawBody?.toString('utf8') ?? '')
      const input = readPreferenceForm(form, view)
      if (!input) return sendPage(reply, 400, preferencePage(view, { tracked }))
      const by = { actor: 'user', origin: 'preference page' }
      const wanted = form.get('tracking') === 'on'
      await db.tx(async tx => {
        await putPreferences(tx, { sealer, tenantId: who.tenantId }, who.userId, by, input)
        if (tracked === undefined || tracked === wanted) return
        await changePreferences(
          tx,
          who.tenantId,
          who.userId,
          by,
          // The row about e-mail, which is asked first.
          [TRACK_OPENS, TRACK_CLICKS].map(scope => ({ scope, channel: 'email', enabled: wanted })),
        )
      })
      // See other: going back or reloading does not send the form again.
      return reply.code(303).header('location', '?saved').send()
    },
  )

  async function choices({ tenantId, userId }: { tenantId: number; userId: string }) {
    try {
      const view = await getPreferences(db, tenantId, userId)
      const own = await readPreferences(db, tenantId, userId)
      return { view, tracked: trackingShown(own, await readPreferences(db, tenantId, TENANT)) }
    } catch (error) {
      // Somebody nobody has created, or who was erased, has nothing to choose.
      if (error instanceof AppError && (error.code === 'not_found' || error.code === 'gone')) return undefined
      throw error
    }
  }
}

const NOT_VALID = pageOf('en', 'This link is not valid', '<p>Use the link in a newer message.</p>')
