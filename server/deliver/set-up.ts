import { join } from 'node:path'
import type { Config } from '../config.ts'
import { AppError } from '../errors.ts'
import { CHANNELS } from '../types.ts'
import type { Channel } from '../types.ts'
import { catalog } from './catalog.ts'
import { type Conditions, fitting } from './conditions.ts'
import { openHttp } from './http.ts'
import { openMailbox } from './mailbox.ts'
import type { Mailbox } from './mailbox.ts'
import { openProvider } from './open-provider.ts'
import type { OpenedProvider } from './open-provider.ts'
import type { AnyProvider } from './provider.ts'
import { configuredProviders } from './provider-settings.ts'

/** A provider to be opened beside those that the configuration names. */
export interface ProviderSetting {
  /** Of the catalog, or the provider itself. */
  provider: string | AnyProvider
  settings: unknown
  name?: string
  weight?: number
  when?: Conditions
}

export interface Outside {
  /** By channel, in the order in which they are tried; only of channels that this process delivers. */
  providers: ReadonlyMap<Channel, readonly OpenedProvider[]>
  /** By id: those whose vendor posts back, on a process that serves the API. */
  callbacks: ReadonlyMap<string, OpenedProvider>
  /** Every one that is set up, in the order in which they are tried. */
  listed: readonly ListedProvider[]
  /** Channels that some process of this installation delivers: what may be planned. */
  configured: ReadonlySet<Channel>
  /** Set when mail stays on this machine. */
  mailbox: Mailbox | undefined
  close(): Promise<void>
}

/** A provider as it is set up; its settings stay inside. */
export interface ListedProvider {
  name: string
  provider: AnyProvider
  weight: number | undefined
  when: Conditions | undefined
  /** Absent in processes that neither deliver its channel nor serve its callbacks. */
  opened: OpenedProvider | undefined
}

/** What requests need of a provider, whoever delivers its channel. */
const ASKED_BY_THE_API = [
  'callback',
  'retract',
  'validateDeviceToken',
  'updateTopicSubscription',
  'getDeliveryStatus',
  'confirmCode',
] as const

type TakesCodes = Pick<AnyProvider, 'confirmCode'> | Pick<OpenedProvider, 'confirmCode'>

/** A mistake in settings says whose they are. */
async function withName<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== 'invalid_request') throw error
    throw new AppError('invalid_request', `Provider "${name}": ${error.message}`, {
      ...(error.errors && { errors: error.errors }),
      cause: error,
    })
  }
}

const LOOPBACK = ['127.0.0.1/32', '::1/128']

/** Opens the doors to the outside, and every provider that is configured. */
export async function openProviders({
  config,
  now,
  more,
}: {
  config: Config
  now: () => Date
  more: readonly ProviderSetting[]
}): Promise<Outside> {
  const http = openHttp({
    allowPrivate: config.outbound.allow,
    httpsOnly: config.outbound.httpsOnly,
    connections: config.outbound.connections,
    waiting: config.outbound.waiting,
    maxTimeoutMs: config.outbound.timeoutMs,
    ca: config.outbound.certificates,
  })
  // The operator names the mail server, and it often stands in the same private network; no tenant can.
  const mailHttp = openHttp({ allowPrivate: ['0.0.0.0/0', '::/0'], ca: config.outbound.certificates })

  const opened: OpenedProvider[] = []
  const all: OpenedProvider[] = []
  const configured = new Set<Channel>()
  const callbacks = new Map<string, OpenedProvider>()
  const { roles } = config.process
  const listed: ListedProvider[] = []
  const open = async (
    provider: AnyProvider,
    settings: unknown,
    door = http,
    { name = provider.id, weight, when }: Partial<ProviderSetting> = {},
  ) => {
    if (listed.some(one => one.name === name)) {
      throw new AppError('invalid_request', `There are two providers "${name}": give one of them a name`)
    }
    const entry: ListedProvider = { name, provider, weight, when, opened: undefined }
    listed.push(entry)
    configured.add(provider.channel)
    const delivers = roles.deliver.includes(provider.channel)
    const listens = roles.api && ASKED_BY_THE_API.some(name => provider[name] !== undefined)
    if (!delivers && !listens) return
    const fits = when && (await fitting(when))
    const one = await withName(name, () =>
      openProvider(provider, settings, { http: door, now }, { name, weight, fits }),
    )
    entry.opened = one
    all.push(one)
    if (delivers) opened.push(one)
    if (listens && provider.callback) callbacks.set(one.id, one)
  }

  let mailbox: Mailbox | undefined
  const smtp = catalog.get('smtp')!
  const named = configuredProviders(config.providers, config.http.publicUrl)
  // Who takes nothing but codes is no sender of mail.
  const senders = [...named, ...more].filter(
    ({ provider }) => channelOf(provider) === 'email' && !providerOf(provider).confirmCode,
  )
  if (config.smtp.host) {
    await open(
      smtp,
      {
        host: config.smtp.host,
        port: config.smtp.port,
        ...SECURITY[config.smtp.security],
        user: config.smtp.username,
        password: config.smtp.password?.reveal(),
        from: config.smtp.from,
        ...(config.smtp.dkimSelector !== undefined && {
          dkim: {
            selector: config.smtp.dkimSelector,
            ...(config.smtp.dkimDomain !== undefined && { domain: config.smtp.dkimDomain }),
            privateKey: config.smtp.dkimKey?.reveal(),
          },
        }),
        connections: config.smtp.connections,
      },
      mailHttp,
    )
  } else if (config.mode === 'embedded' && senders.length === 0) {
    configured.add('email')
    if (config.process.roles.deliver.includes('email')) {
      mailbox = await openMailbox({
        dir: join(config.data.dir, 'mailbox'),
        port: config.mailbox.port,
        keep: config.mailbox.keep,
      })
      await open(
        smtp,
        {
          host: '127.0.0.1',
          port: mailbox.port,
          tls: 'off',
          from: config.smtp.from ?? 'Carillon <carillon@localhost.localdomain>',
        },
        openHttp({ allowPrivate: LOOPBACK }),
      )
    }
  }
  if (![...named, ...more].some(({ provider }) => channelOf(provider) === 'webhook')) {
    await open(catalog.get('webhook')!, {})
  }
  for (const one of [...named, ...more]) await open(providerOf(one.provider), one.settings, http, one)

  // Who takes codes only leaves everything else to the next one, so it comes first wherever it stands.
  const codesFirst = (a: TakesCodes, b: TakesCodes) => Number(!a.confirmCode) - Number(!b.confirmCode)
  const inOrder = opened.toSorted(codesFirst)
  const providers = new Map(
    CHANNELS.map(channel => [channel, inOrder.filter(provider => provider.channel === channel)] as const),
  )
  return {
    providers,
    callbacks,
    listed: listed.toSorted((a, b) => codesFirst(a.provider, b.provider)),
    configured,
    mailbox,
    async close() {
      await Promise.all(all.map(provider => provider.close()))
      await mailbox?.close()
      await Promise.all([http.close(), mailHttp.close()])
    },
  }
}

/** @throws AppError invalid_request for a provider that there is not */
function providerOf(provider: string | AnyProvider): AnyProvider {
  if (typeof provider !== 'string') return provider
  const found = catalog.get(provider)
  if (found) return found
  const known = [...catalog.keys()].sort().join(', ')
  throw new AppError('invalid_request', `There is no provider "${provider}"; there are ${known}`)
}

const channelOf = (provider: string | AnyProvider): Channel => providerOf(provider).channel

/** The words of SMTP_SECURE in those of the provider. */
const SECURITY = {
  tls: { secure: true, tls: 'required' },
  starttls: { secure: false, tls: 'required' },
  opportunistic: { secure: false, tls: 'opportunistic' },
  none: { secure: false, tls: 'off' },
  auto: { tls: 'auto' },
} as const
