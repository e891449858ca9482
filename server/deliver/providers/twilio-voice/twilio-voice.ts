import { type Static, Type } from 'typebox'
import { type Callback, fit, type Provider, type Receipt, type Sent } from '../../provider.ts'
import { costOf, phoneNumber } from '../phone.ts'
import { costSettings } from '../sms-text.ts'
import {
  accountSettings,
  checkAccount,
  create,
  failedReceipt,
  receiptBase,
  signedParameters,
} from '../twilio-api.ts'

/**
 * What `<Say>` speaks, from https://www.twilio.com/docs/voice/twiml/say/text-speech as listed in Twilio's own
 * library (twilio-node, SayLanguage). The first of a language serves those who ask for no region or another one.
 */
const LANGUAGES = (
  'af-ZA am-ET arb ar-AE bg-BG bn-IN ca-ES cs-CZ cy-GB da-DK de-DE de-AT el-GR en-US en-AU en-CA ' +
  'en-GB en-IE en-IN en-NZ en-ZA es-ES es-MX es-US fi-FI fil-PH fr-FR fr-BE fr-CA gu-IN he-IL ' +
  'hi-IN hu-HU id-ID is-IS it-IT ja-JP kn-IN ko-KR lv-LV ml-IN mr-IN ms-MY nb-NO nl-NL nl-BE pa-IN ' +
  'pl-PL pt-BR pt-PT ro-RO ru-RU sk-SK sr-RS sv-SE ta-IN te-IN th-TH tr-TR uk-UA vi-VN yue-HK ' +
  'zh-CN zh-HK zh-TW'
).split(' ')
/** BCP 47 names for which Twilio has another. */
const OTHER_NAMES: Readonly<Record<string, string>> = { ar: 'arb', no: 'nb', nn: 'nb', tl: 'fil', iw: 'he' }

const settings = Type.Object(
  {
    ...accountSettings,
    from: Type.String({
      title: 'From',
      description: 'A number of the account, or one that Twilio has verified: +15551234567.',
      pattern: '^\\+[1-9]\\d{6,14}$',
    }),
    language: Type.String({
      title: 'Language',
      description: 'Spoken where the text names none, or one that Twilio does not speak.',
      default: 'en-US',
      enum: LANGUAGES,
    }),
    voice: Type.Optional(
      Type.String({
        title: 'Voice',
        description: "Such as Polly.Amy. Default: Twilio's for the language.",
        pattern: '^[A-Za-z0-9._-]{1,100}$',
      }),
    ),
    ringSeconds: Type.Integer({
      title: 'Ring',
      description: 'Seconds until nobody answers; a mailbox often takes the call after 25 to 30.',
      default: 25,
      minimum: 5,
      maximum: 600,
    }),
    ...costSettings('Per call, where the vendor names no price.'),
  },
  { additionalProperties: false },
)

export type TwilioVoiceSettings = Static<typeof settings>

/** "Twiml … Max 4000 characters": https://www.twilio.com/docs/voice/api/call-resource */
const MAX_TWIML = 4_000

/** Calls a number and reads the text out, twice. https://www.twilio.com/docs/voice/api/call-resource */
export const twilioVoice: Provider<TwilioVoiceSettings> = {
  id: 'twilio-voice',
  channel: 'voice',
  title: 'Twilio voice',
  settings,
  limits: { bodyChars: MAX_TWIML, slowsLane: true },

  async send(message, ctx) {
    const { settings: own } = ctx
    const { body, language } = message.content
    const created = await create(
      'Calls',
      [
        ['To', phoneNumber(message.to)],
        ['From', own.from],
        ['Twiml', twiml(body, { language: spoken(language) ?? own.language, voice: own.voice })],
        ['Timeout', String(own.ringSeconds)],
      ],
      message,
      ctx,
    )
    const sent: Sent = {
      outcome: 'sent',
      providerMessageId: created.sid,
      code: created.status,
      response: created.status,
    }
    const cost = created.cost ?? costOf(1, own)
    return cost === undefined ? sent : { ...sent, cost }
  },

  callback(request, ctx): Callback {
    const params = signedParameters(request, ctx.settings.authToken)
    const sid = params.get('CallSid')
    const status = params.get('CallStatus')
    if (sid === null || status === null) return { receipts: [] }
    const outcome = outcomeOf(status, params)
    if (outcome === undefined) return { receipts: [] }
    // RFC 2822, of the event itself.
    const told = Date.parse(params.get('Timestamp') ?? '')
    const at = Number.isNaN(told) ? ctx.now() : new Date(Math.min(told, ctx.now().getTime()))
    const receipt: Receipt = { ...receiptBase(request, { sid, status, at }), ...outcome }
    const address = params.get('To')
    return { receipts: [address === null ? receipt : { ...receipt, address }] }
  },

  check: checkAccount,
}

/** What SIP says of a number that does not exist (RFC 3261 §21.4, §21.6). */
const NO_SUCH_NUMBER = new Set(['404', '410', '484', '604'])

/** https://www.twilio.com/docs/voice/api/call-resource#call-status-values */
function outcomeOf(
  status: string,
  params: URLSearchParams,
): Pick<Receipt, 'kind' | 'code' | 'vendorCode'> | undefined {
  switch (status) {
    case 'completed':
      return { kind: 'delivered' }
    case 'busy':
    case 'no-answer':
      return { kind: 'failed', code: 'unavailable', vendorCode: status }
    case 'canceled':
      return { kind: 'failed', code: 'aborted', vendorCode: status }
    case 'failed': {
      if (params.has('ErrorCode')) return failedReceipt(params.get('ErrorCode'))
      const sip = params.get('SipResponseCode') ?? ''
      return NO_SUCH_NUMBER.has(sip)
        ? { kind: 'bounced', code: 'unknown_address', vendorCode: `SIP ${sip}` }
        : { kind: 'failed', code: 'connection_failed', vendorCode: status }
    }
    default:
      // queued, initiated, ringing, in-progress.
      return undefined
  }
}

/** The language as Twilio names it, undefined when Twilio does not speak it. */
export function spoken(tag: string | undefined): string | undefined {
  let locale: Intl.Locale
  try {
    locale = new Intl.Locale(tag ?? '')
  } catch {
    return undefined
  }
  const language = OTHER_NAMES[locale.language] ?? locale.language
  const region = locale.region ?? (locale.script === 'Hant' ? 'TW' : undefined)
  const exact = region === undefined ? undefined : LANGUAGES.find(each => each === `${language}-${region}`)
  return exact ?? LANGUAGES.find(each => each === language || each.startsWith(`${language}-`))
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
}
/** What XML 1.0 §2.2 has no place for, not even escaped. */
// oxlint-disable-next-line no-control-regex
const NOT_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g

const escaped = (text: string): string =>
  text
    .toWellFormed()
    .replaceAll(NOT_XML, '')
    .replaceAll(/[&<>"']/g, each => ENTITIES[each] ?? each)

/** Says the text, waits a second and says it again: who picks up misses the first words. */
function twiml(text: string, { language, voice }: { language: string; voice?: string }): string {
  const attributes = `language="${language}"${voice === undefined ? '' : ` voice="${escaped(voice)}"`}`
  const wrap = (inner: string): string => {
    const say = `<Say ${attributes}>${inner}</Say>`
    return `<Response>${say}<Pause length="1"/>${say}</Response>`
  }
  const room = Math.floor((MAX_TWIML - wrap('').length) / 2)
  let max = text.length
  let inner = escaped(text)
  while (inner.length > room) {
    // A character grows to six at most (`&quot;`), so no try takes away more than has to go.
    max -= Math.max(1, Math.floor((inner.length - room) / 6))
    inner = escaped(fit(text, max))
  }
  return wrap(inner)
}
