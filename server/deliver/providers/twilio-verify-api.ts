import { type Static, Type } from 'typebox'
import type { Channel, Message } from '../../types.ts'
import {
  type CodeVerdict,
  DeliveryError,
  type GivenCode,
  permanent,
  type Provider,
  type SendContext,
  type Sent,
  unknown,
} from '../provider.ts'
import { phoneNumber } from './phone.ts'
import { accountSettings, post } from './twilio-api.ts'

/** What the providers of Twilio Verify share: one service, one request to send a code and one to check it. */

const { accountSid, authToken, apiKeySid, apiKeySecret, baseUrl, timeoutSeconds } = accountSettings

const settings = Type.Object(
  {
    accountSid,
    authToken,
    apiKeySid,
    apiKeySecret,
    baseUrl: Type.String({ ...baseUrl, default: 'https://verify.twilio.com' }),
    timeoutSeconds,
    serviceSid: Type.String({
      title: 'Verify service',
      description: 'On which the channel is switched on.',
      pattern: '^VA[0-9a-fA-F]{32}$',
    }),
    codes: Type.Enum(['carillon', 'twilio'], {
      title: 'Codes',
      description:
        'Who makes and checks the code. carillon: custom codes are switched on for the service; twilio: it makes codes of its own, which are the same for ten minutes, and is asked whether one is right.',
      default: 'carillon',
    }),
  },
  { additionalProperties: false },
)

export type TwilioVerifySettings = Static<typeof settings>
type Context = SendContext<TwilioVerifySettings>

/** What an event that carries a code is called (server/people/verification-routes.ts). */
const CODE_EVENT = 'carillon.address.verification'

/**
 * Codes that verify addresses, through Twilio Verify: it has routes, senders and fraud guards of its own in each country.
 * Nothing else goes this way. https://www.twilio.com/docs/verify/api/verification
 *
 * A code of Twilio's lives ten minutes and is checked at most five times, as ours; after that it has to expire:
 * https://www.twilio.com/docs/verify/api/rate-limits-and-timeouts
 */
export const verifyProvider = (of: {
  id: string
  channel: Channel
  title: string
  /** Twilio's word for the channel. */
  by: 'sms' | 'call' | 'whatsapp' | 'email'
}): Provider<TwilioVerifySettings> => ({
  id: of.id,
  channel: of.channel,
  title: of.title,
  settings,
  limits: { slowsLane: true },
  accepts: ({ eventType, content }) => eventType === CODE_EVENT && codeOf(content) !== undefined,

  async send(message, ctx) {
    const code = codeOf(message.content)
    if (code === undefined) throw permanent('content_refused', 'There is no code in it')
    const { settings: own } = ctx
    const form = new URLSearchParams([
      ['To', of.by === 'email' ? mailbox(message.to) : phoneNumber(message.to)],
      ['Channel', of.by],
    ])
    // 4 to 10 characters: https://www.twilio.com/docs/verify/api/customization-options
    if (own.codes === 'carillon') form.append('CustomCode', code)
    const language = languageOf(message.content)
    if (language !== undefined) form.append('Locale', language)
    const { sid, status } = await post(urlOf(own, 'Verifications'), form, message, ctx)
    if (typeof sid !== 'string' || sid.length > 100) throw unknown('garbled_answer')
    const word = typeof status === 'string' ? status.slice(0, 50) : 'pending'
    const sent: Sent = { outcome: 'sent', providerMessageId: sid, code: word, response: word }
    return sent
  },

  async confirmCode(given, ctx) {
    if (ctx.settings.codes === 'twilio') return check(given, ctx)
    if (!given.ours) return 'wrong'
    await approve(given, ctx)
    return 'right'
  },
})

const VERIFICATION = /^VE[0-9a-fA-F]{32}$/

const urlOf = ({ baseUrl: base, serviceSid }: TwilioVerifySettings, resource: string): string =>
  `${base}/v2/Services/${serviceSid}/${resource}`

const codeOf = ({ data }: Pick<Message['content'], 'data'>): string | undefined =>
  typeof data?.code === 'string' && /^[0-9A-Za-z]{4,10}$/.test(data.code) ? data.code : undefined

/** What Verify has no words in, it says in English: https://www.twilio.com/docs/verify/supported-languages */
function languageOf({ language, data }: Pick<Message['content'], 'language' | 'data'>): string | undefined {
  const found = language ?? data?.language
  return typeof found === 'string' && /^[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}$/.test(found)
    ? found
    : undefined
}

function mailbox(to: string): string {
  if (/^[\x21-\x3f\x41-\x7e]{1,64}@[a-z0-9.-]{1,253}$/i.test(to)) return to
  throw permanent('invalid_address', 'This is no mail address')
}

/** https://www.twilio.com/docs/verify/api/verification-check */
async function check({ to, code, messageId }: GivenCode, ctx: Context): Promise<CodeVerdict> {
  // Without its id, as when no answer came, the address says which one is meant: there is one for ten minutes.
  const target: [string, string] =
    messageId !== undefined && VERIFICATION.test(messageId) ? ['VerificationSid', messageId] : ['To', to]
  const form = new URLSearchParams([['Code', code], target])
  try {
    const url = urlOf(ctx.settings, 'VerificationCheck')
    const { status } = await post(url, form, { to, content: { body: code } }, ctx)
    if (status === 'approved') return 'right'
    if (status === 'pending') return 'wrong'
    if (status === 'max_attempts_reached') return 'spent'
    if (typeof status === 'string') return 'expired'
  } catch (error) {
    // It is forgotten once it expired, was approved, or had too many checks.
    if (error instanceof DeliveryError && error.vendorCode === '20404') return 'expired'
    if (error instanceof DeliveryError && error.vendorCode === '60202') return 'spent'
    throw error
  }
  throw unknown('garbled_answer')
}

/**
 * Twilio asks to be told when a code of ours was the right one: it judges its routes by that, and lets go of the limits
 * on the address. https://www.twilio.com/docs/verify/api/verification#update-a-verification-status
 *
 * That it could not be told is no reason to refuse somebody who typed the right code.
 */
async function approve({ to, code, messageId }: GivenCode, ctx: Context): Promise<void> {
  if (messageId === undefined || !VERIFICATION.test(messageId)) return
  const form = new URLSearchParams([['Status', 'approved']])
  const url = urlOf(ctx.settings, `Verifications/${messageId}`)
  await post(url, form, { to, content: { body: code } }, ctx).catch((error: unknown) => {
    if (!(error instanceof DeliveryError)) throw error
  })
}
