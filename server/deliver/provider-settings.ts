import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import type { Config } from '../config.ts'
import { AppError } from '../errors.ts'
import { type Conditions, readConditions } from './conditions.ts'

/** One provider to be opened. Of one channel they are tried in the order in which they stand. */
export interface ProviderSetting {
  provider: string
  settings: Record<string, unknown>
  /** To have a provider twice. Stands with attempts and in the address of callbacks. */
  name?: string
  /** Its share of the messages, among neighbours of its channel that have one too. */
  weight?: number
  /** Which messages it is for. */
  when?: Conditions
}

type Source = Config['providers']

/**
 * What the environment and the providers' file name, file first: who writes a file means an order. Secrets are revealed
 * here, on their way into the provider, and nowhere else.
 *
 * @throws AppError invalid_request for a file that cannot be read as such a list
 */
export function configuredProviders(
  from: Source,
  publicUrl: string,
  env: NodeJS.ProcessEnv = process.env,
): ProviderSetting[] {
  const listed = from.file === undefined ? [] : readProvidersFile(from.file, env)
  return [...listed, ...named(from)].map(one => withCallback(one, publicUrl))
}

/** Those that are named by settings of their own in the environment. */
function named(from: Source): ProviderSetting[] {
  const found: ProviderSetting[] = []
  const add = (provider: string, wanted: unknown, settings: Record<string, unknown>) => {
    if (wanted === undefined || wanted === false) return
    found.push({
      provider,
      settings: Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)),
    })
  }
  const aws = {
    region: from.awsRegion,
    accessKeyId: from.awsKeyId,
    secretAccessKey: from.awsSecret?.reveal(),
    sessionToken: from.awsToken?.reveal(),
  }
  const twilio = { accountSid: from.twilioSid, authToken: from.twilioToken?.reveal() }

  add('sendgrid', from.sendgridKey, {
    apiKey: from.sendgridKey?.reveal(),
    from: from.sendgridFromName ? `${from.sendgridFromName} <${from.sendgridFrom}>` : from.sendgridFrom,
    webhookPublicKey: from.sendgridPublicKey,
  })
  add('mailgun', from.mailgunKey, {
    apiKey: from.mailgunKey?.reveal(),
    domain: from.mailgunDomain,
    from: from.mailgunFrom,
    webhookSigningKey: from.mailgunSigningKey?.reveal(),
  })
  add('ses', from.sesFrom, { ...aws, from: from.sesFrom })
  // First: it takes codes only, and leaves the rest to the next one.
  add('twilio-verify', from.twilioSid && from.twilioVerify, { ...twilio, serviceSid: from.twilioVerify })
  add('twilio', from.twilioSid && (from.twilioFrom ?? from.twilioService), {
    ...twilio,
    from: from.twilioFrom,
    messagingServiceSid: from.twilioService,
  })
  add('messagebird', from.messagebirdKey, {
    accessKey: from.messagebirdKey?.reveal(),
    originator: from.messagebirdOriginator,
    signingKey: from.messagebirdSigningKey?.reveal(),
  })
  add('sns', from.snsSms, aws)
  add('twilio-voice', from.twilioSid && from.twilioVoiceFrom, { ...twilio, from: from.twilioVoiceFrom })
  add('whatsapp-cloud', from.whatsappPhoneId, {
    phoneNumberId: from.whatsappPhoneId,
    accessToken: from.whatsappToken?.reveal(),
    appSecret: from.whatsappSecret?.reveal(),
    verifyToken: from.whatsappVerify?.reveal(),
  })
  add('twilio-whatsapp', from.twilioSid && from.twilioWhatsappFrom, {
    ...twilio,
    from: from.twilioWhatsappFrom,
  })
  add('fcm', from.fcmCredentials, { serviceAccount: from.fcmCredentials?.reveal() })
  add('apns', from.apnsKey, {
    key: from.apnsKey?.reveal(),
    keyId: from.apnsKeyId,
    teamId: from.apnsTeamId,
    topic: from.apnsTopic,
  })
  add('web-push', from.vapidPublic, {
    publicKey: from.vapidPublic,
    privateKey: from.vapidPrivate?.reveal(),
    subject: from.vapidSubject,
  })
  // The bot first: it knows which addresses are its own.
  add('slack-bot', from.slackToken, {
    token: from.slackToken?.reveal(),
    signingSecret: from.slackSecret?.reveal(),
    defaultChannel: from.slackChannel,
  })
  add('slack-webhook', from.slackWebhook, { url: from.slackWebhook?.reveal() })
  add('pagerduty', from.pagerdutyKey, { routingKey: from.pagerdutyKey?.reveal() })
  add('discord', from.discordWebhook, { url: from.discordWebhook?.reveal() })
  add('telegram', from.telegramToken, { token: from.telegramToken?.reveal() })
  add('teams', from.teamsWebhook, { url: from.teamsWebhook?.reveal() })
  add('ntfy', from.ntfyServer, {
    server: from.ntfyServer,
    topic: from.ntfyTopic,
    token: from.ntfyToken?.reveal(),
  })
  return found
}

const MAX_PROVIDERS = 100
const NAME = /^[a-z0-9][a-z0-9-]{0,49}$/

/** @throws AppError invalid_request naming what is wrong, never a value */
export function readProvidersFile(file: string, env: NodeJS.ProcessEnv): ProviderSetting[] {
  const refuse = (message: string): never => {
    throw new AppError('invalid_request', `CARILLON_PROVIDERS_FILE ${file}: ${message}`)
  }
  let given: unknown
  try {
    given = parse(readFileSync(file, 'utf8'))
  } catch (error) {
    return refuse((error as Error).message.split('\n')[0]!)
  }
  if (!Array.isArray(given) || given.length > MAX_PROVIDERS)
    return refuse(`it is a list of at most ${MAX_PROVIDERS}`)
  return given.map((one: unknown, i): ProviderSetting => {
    const { provider, settings = {}, name, weight, when, ...more } = (one ?? {}) as Record<string, unknown>
    if (typeof provider !== 'string') return refuse(`entry ${i + 1} names no provider`)
    if (Object.keys(more).length > 0)
      return refuse(
        `entry ${i + 1} has ${Object.keys(more).join(', ')} besides provider, name, weight, when and settings`,
      )
    if (typeof settings !== 'object' || settings === null || Array.isArray(settings)) {
      return refuse(`the settings of entry ${i + 1} are a mapping`)
    }
    if (name !== undefined && !(typeof name === 'string' && NAME.test(name))) {
      return refuse(`the name of entry ${i + 1} is 1 to 50 of a–z, 0–9 and hyphens`)
    }
    if (weight !== undefined && !(typeof weight === 'number' && weight > 0 && weight <= 1000)) {
      return refuse(`the weight of entry ${i + 1} is a number above 0, at most 1000`)
    }
    return {
      provider,
      ...(name !== undefined && { name }),
      ...(weight !== undefined && { weight }),
      ...(when !== undefined && { when: conditionsOf(when, i, refuse) }),
      settings: filled(settings, env, name =>
        refuse(`entry ${i + 1} wants ${name}, which is not set`),
      ) as Record<string, unknown>,
    }
  })
}

function conditionsOf(when: unknown, i: number, refuse: (message: string) => never): Conditions {
  try {
    return readConditions(when)
  } catch (error) {
    return refuse(`entry ${i + 1}: ${(error as Error).message}`)
  }
}

/** `${NAME}` by what the environment says. */
function filled(value: unknown, env: NodeJS.ProcessEnv, missing: (name: string) => never): unknown {
  if (typeof value === 'string') {
    return value.replaceAll(/\$\{([A-Z_][A-Z0-9_]*)\}/g, (_, name: string) => env[name] ?? missing(name))
  }
  if (Array.isArray(value)) return value.map(item => filled(item, env, missing))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, filled(item, env, missing)]))
}

/** Where vendors are told in each request whom to call back, they are told: the address is ours to know. */
const CALLBACK_FIELD: Record<string, string> = {
  twilio: 'statusCallback',
  'twilio-voice': 'statusCallback',
  'twilio-whatsapp': 'statusCallback',
  messagebird: 'reportUrl',
}

function withCallback(one: ProviderSetting, publicUrl: string): ProviderSetting {
  const { provider, name, settings } = one
  const field = CALLBACK_FIELD[provider]
  // A vendor cannot call this machine by its own name.
  if (field === undefined || settings[field] !== undefined || !publicUrl.startsWith('https://')) return one
  return { ...one, settings: { ...settings, [field]: `${publicUrl}/webhooks/${name ?? provider}` } }
}
