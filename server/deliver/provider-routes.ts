import { type TSchema, Type } from 'typebox'
import { sql } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { CHANNELS } from '../types.ts'
import { catalog, questionsOf } from './catalog.ts'
import { DELIVERY_CODES } from './provider.ts'
import type { DeliveryError } from './provider.ts'
import type { ListedProvider } from './set-up.ts'

export interface ProviderRoutesDeps {
  db: Db
  listed: readonly ListedProvider[]
  /** Base URL at which vendors reach this installation. */
  publicUrl: string
}

const CHECK_MS = 10_000

const Name = Type.String({ maxLength: 50, pattern: '^[a-z0-9][a-z0-9-]{0,49}$' })
const Maybe = <T extends TSchema>(type: T) => Type.Union([type, Type.Null()])
const NoQuery = Type.Object({}, { additionalProperties: false })
const Limits = Type.Object({
  subjectChars: Type.Optional(Type.Number()),
  bodyChars: Type.Optional(Type.Number()),
  perSecond: Type.Optional(Type.Number()),
  concurrent: Type.Optional(Type.Number()),
})

const openBreakers = sql(
  'open_breakers',
  `select split_part(provider, ' ', 1) as name, count(*)::int as open
   from breakers where state = 'open' group by 1`,
)

/**
 * What is set up, and what could be: for consoles and for whoever looks after the installation. Settings come from files
 * and the environment, and go nowhere from here.
 */
export function providerRoutes(api: Api, { db, listed, publicUrl }: ProviderRoutesDeps): void {
  const tags = ['Providers']
  const read = { role: 'admin', scope: 'admin:read', operator: true } as const
  const write = { role: 'admin', scope: 'admin:write', operator: true } as const

  api.get(
    '/api/providers',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listProviders',
        summary: 'The providers that are set up, in the order in which they are tried',
        querystring: NoQuery,
        response: {
          200: Type.Object({
            items: Type.Array(
              Type.Object({
                name: Type.String(),
                provider: Type.String(),
                title: Type.String(),
                channel: Type.Enum(CHANNELS),
                weight: Maybe(Type.Number()),
                when: Maybe(Type.Record(Type.String(), Type.Array(Type.Unknown()))),
                limits: Limits,
                callbackUrl: Maybe(Type.String({ description: 'Where the vendor reports to.' })),
                openBreakers: Type.Integer({
                  description: 'Of this provider, or of endpoints behind it, in any process.',
                }),
                checkable: Type.Boolean({ description: 'Whether this process can ask the vendor.' }),
              }),
            ),
          }),
        },
      },
    },
    async () => {
      const rows = await db.rows<{ name: string; open: number }>(openBreakers)
      const open = new Map(rows.map(row => [row.name, row.open]))
      return {
        items: CHANNELS.flatMap(channel =>
          listed
            .filter(one => one.provider.channel === channel)
            .map(({ name, provider, weight, when, opened }) => ({
              name,
              provider: provider.id,
              title: provider.title,
              channel,
              weight: weight ?? null,
              when: when === undefined ? null : { ...when },
              limits: { ...provider.limits },
              callbackUrl: provider.callback ? `${publicUrl}/webhooks/${name}` : null,
              openBreakers: open.get(name) ?? 0,
              checkable: provider.check !== undefined && opened !== undefined,
            })),
        ),
      }
    },
  )

  api.get(
    '/api/providers/catalog',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listProviderCatalog',
        summary: 'Every provider there is, with the schema of its settings',
        querystring: NoQuery,
        response: {
          200: Type.Object({
            items: Type.Array(
              Type.Object({
                id: Type.String(),
                title: Type.String(),
                channel: Type.Enum(CHANNELS),
                settings: Type.Unknown({
                  description: 'JSON Schema; secrets bear `secret: true` and `writeOnly: true`.',
                }),
                addressSettings: Maybe(Type.Unknown()),
                limits: Limits,
                callback: Type.Boolean(),
                asked: Type.Array(Type.String(), {
                  description:
                    'What the vendor says without being sent anything: `token`, `topics`, `status`, `code`.',
                }),
                mayRepeat: Type.Boolean(),
              }),
            ),
          }),
        },
      },
    },
    () => ({
      items: [...catalog.values()]
        .sort((a, b) => (a.id < b.id ? -1 : 1))
        .map(provider => ({
          id: provider.id,
          title: provider.title,
          channel: provider.channel,
          settings: provider.settings,
          addressSettings: provider.addressSettings ?? null,
          limits: { ...provider.limits },
          callback: provider.callback !== undefined,
          asked: questionsOf(provider),
          mayRepeat: provider.mayRepeat === true,
        })),
    }),
  )

  api.post(
    '/api/providers/:name/check',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'checkProvider',
        summary: 'Ask the vendor whether it would take a message now; sends none',
        params: Type.Object({ name: Name }, { additionalProperties: false }),
        body: Type.Optional(Type.Object({}, { additionalProperties: false })),
        response: {
          200: Type.Object({
            ok: Type.Boolean(),
            code: Maybe(Type.String({ description: 'As in docs/reference/delivery-codes.md.' })),
            vendorCode: Maybe(Type.String()),
            detail: Maybe(Type.String()),
          }),
        },
      },
    },
    async request => {
      const found = listed.find(one => one.name === request.params.name)
      if (!found) throw new AppError('not_found', 'No such provider is set up here.')
      if (!found.provider.check)
        throw new AppError('conflict', 'This vendor cannot be asked without sending.')
      if (!found.opened)
        throw new AppError('conflict', 'Another process of this installation delivers its channel.')
      try {
        await found.opened.check(AbortSignal.timeout(CHECK_MS))
        return { ok: true, code: null, vendorCode: null, detail: null }
      } catch (error) {
        // Nothing else is thrown, and secrets were taken out of it.
        const { code, vendorCode } = error as DeliveryError
        return { ok: false, code, vendorCode: vendorCode ?? null, detail: DELIVERY_CODES[code] }
      }
    },
  )
}
