import { type Static, Type } from 'typebox'
import { permanent, type Provider, type Sent, unknown } from '../../provider.ts'
import { phoneNumber } from '../phone.ts'
import { accountSettings, post } from '../twilio-api.ts'

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
      description: 'With custom codes switched on: the code is made, and checked, here.',
      pattern: '^VA[0-9a-fA-F]{32}$',
    }),
  },
  { additionalProperties: false },
)

export type TwilioVerifySettings = Static<typeof settings>

/** What an event that carries a code is called (server/people/verification-routes.ts). */
const CODE_EVENT = 'carillon.address.verification'

/**
 * Codes that verify a phone number, through Twilio Verify: it has routes, senders and fraud guards of its own in each
 * country. Nothing else goes this way. https://www.twilio.com/docs/verify/api/verification
 */
export const twilioVerify: Provider<TwilioVerifySettings> = {
  id: 'twilio-verify',
  channel: 'sms',
  title: 'Twilio Verify',
  settings,
  limits: { slowsLane: true },
  accepts: ({ eventType, content }) => eventType === CODE_EVENT && codeOf(content.data) !== undefined,

  async send(message, ctx) {
    const code = codeOf(message.content.data)
    if (code === undefined) throw permanent('content_refused', 'There is no code in it')
    const { settings: own } = ctx
    const form = new URLSearchParams([
      ['To', phoneNumber(message.to)],
      ['Channel', 'sms'],
      // 4 to 10 characters: https://www.twilio.com/docs/verify/custom-verification-code
      ['CustomCode', code],
    ])
    const { language } = message.content
    if (language !== undefined) form.append('Locale', language)
    const { sid, status } = await post(
      `${own.baseUrl}/v2/Services/${own.serviceSid}/Verifications`,
      form,
      message,
      ctx,
    )
    if (typeof sid !== 'string' || sid.length > 100) throw unknown('garbled_answer')
    const word = typeof status === 'string' ? status.slice(0, 50) : 'pending'
    const sent: Sent = { outcome: 'sent', providerMessageId: sid, code: word, response: word }
    return sent
  },
}

const codeOf = (data: { code?: unknown } | undefined): string | undefined =>
  typeof data?.code === 'string' && /^[0-9A-Za-z]{4,10}$/.test(data.code) ? data.code : undefined
