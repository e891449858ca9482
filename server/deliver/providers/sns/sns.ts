import { type Static, Type } from 'typebox'
import type { JsonObject, Message, Priority } from '../../../types.ts'
import {
  type Callback,
  type DeliveryCode,
  DeliveryError,
  type FailureKind,
  type HttpResponse,
  judge,
  type Provider,
  rateLimited,
  type Receipt,
  retryAfter,
  secret,
  type SendContext,
  type Sent,
  unknown,
} from '../../provider.ts'
import { readObject, textAt, wordOf } from '../answers.ts'
import { signV4 } from '../../../aws.ts'
import { costOf, inbound, phoneNumber, withoutPerson } from '../phone.ts'
import { fitSegments, smsSettings, smsSize, smsText } from '../sms-text.ts'
import { readSnsMessage, type SnsMessage } from '../sns-message.ts'

const settings = Type.Object(
  {
    region: Type.String({
      title: 'Region',
      description: 'Such as eu-west-1; not every region sends SMS.',
      pattern: '^[a-z]{2}(-[a-z]+){1,3}-\\d$',
      maxLength: 30,
    }),
    accessKeyId: Type.String({
      title: 'Access key',
      description: 'Of a user or role that may call sns:Publish and sns:GetSMSAttributes.',
      pattern: '^[A-Z0-9]{16,128}$',
    }),
    secretAccessKey: secret({ title: 'Secret access key', description: 'Belongs to the access key.' }),
    sessionToken: Type.Optional(
      secret({ title: 'Session token', description: 'Of temporary credentials.', pattern: '^[!-~]+$' }),
    ),
    senderId: Type.Optional(
      Type.String({
        title: 'Sender ID',
        description: 'Up to 11 letters, digits and hyphens; many countries show it instead of a number.',
        pattern: '^(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9-]{0,9}[A-Za-z0-9])?$',
      }),
    ),
    originationNumber: Type.Optional(
      Type.String({
        title: 'Origination number',
        description: 'A number of the account. Default: Amazon picks one.',
        pattern: '^\\+?\\d{3,15}$',
      }),
    ),
    maxPrice: Type.Optional(
      Type.Number({
        title: 'Highest price',
        description: 'In US dollars; a message that would cost more is not sent.',
        exclusiveMinimum: 0,
        maximum: 100,
      }),
    ),
    topicArns: Type.Array(
      Type.String({ pattern: '^arn:aws[a-z-]*:sns:[a-z0-9-]+:\\d{12}:[\\w.-]{1,256}$' }),
      {
        title: 'SNS topics',
        description:
          'ARNs of the topics that answers and delivery events are published to. Others are refused.',
        default: [],
        maxItems: 10,
      },
    ),
    endpoint: Type.Optional(
      Type.String({
        title: 'API address',
        description: 'Instead of the public one of the region: a FIPS or VPC endpoint, or a stand-in.',
        maxLength: 200,
        pattern: '^https?://[^\\s/?#@]+$',
      }),
    ),
    timeoutSeconds: Type.Number({
      title: 'Timeout',
      description: 'Seconds for one request, connection included.',
      default: 10,
      minimum: 0.1,
      maximum: 60,
    }),
    ...smsSettings(10),
  },
  { additionalProperties: false },
)

export type SnsSettings = Static<typeof settings>

/** "The total size quota for a single SMS publish action is 1,600 bytes": sms_publish-to-phone.html */
const MAX_BYTES = 1_600
const VERSION = '2010-03-31'

/** What may be late is sent the cheaper way. */
const SMS_TYPES: Readonly<Record<Priority, 'Transactional' | 'Promotional'>> = {
  CRITICAL: 'Transactional',
  HIGH: 'Transactional',
  NORMAL: 'Promotional',
  LOW: 'Promotional',
}

/**
 * SMS through Amazon SNS. SNS itself reports deliveries to CloudWatch only; answers, and events where they are
 * set up, come back through topics of SNS (AWS End User Messaging).
 *
 * https://docs.aws.amazon.com/sns/latest/dg/sms_publish-to-phone.html
 */
export const sns: Provider<SnsSettings> = {
  id: 'sns',
  channel: 'sms',
  title: 'Amazon SNS',
  settings,
  limits: {
    slowsLane: true,
    bodyChars: MAX_BYTES,
    // https://docs.aws.amazon.com/general/latest/gr/sns.html: 20 messages per second of an account, by default.
    perSecond: 20,
  },

  async send(message, ctx): Promise<Sent> {
    const { settings: own } = ctx
    const text = withinBytes(message.content.body, own)
    const form = new URLSearchParams({
      Action: 'Publish',
      Version: VERSION,
      PhoneNumber: phoneNumber(message.to),
      Message: text,
    })
    attributesOf(message, own).forEach(([name, type, value], at) => {
      const entry = `MessageAttributes.entry.${at + 1}`
      form.append(`${entry}.Name`, name)
      form.append(`${entry}.Value.DataType`, type)
      form.append(`${entry}.Value.StringValue`, value)
    })
    const response = await call('POST', '/', form.toString(), ctx)
    const failure = verdict(response, ctx.now(), message)
    if (failure !== undefined) throw failure
    const id = /<MessageId>([A-Za-z0-9-]{1,100})<\/MessageId>/.exec(response.body)?.[1]
    if (id === undefined) throw unknown('garbled_answer', 'SNS named no message')
    const sent: Sent = { outcome: 'sent', providerMessageId: id, code: String(response.status) }
    const cost = costOf(smsSize(text).segments, own)
    return cost === undefined ? sent : { ...sent, cost }
  },

  async callback(request, ctx): Promise<Callback> {
    const message = await readSnsMessage(request, ctx.settings.topicArns, ctx)
    return { receipts: message === undefined ? [] : receiptsIn(message) }
  },

  async check(ctx) {
    const response = await call('GET', `/?Action=GetSMSAttributes&Version=${VERSION}`, '', ctx)
    const failure = verdict(response, ctx.now())
    if (failure !== undefined) throw failure
  },
}

function withinBytes(body: string, own: SnsSettings): string {
  let { text } = smsText(body, own)
  // 2,010 bytes of UTF-8 fit into ten segments of Chinese: there the quota of the request comes first.
  for (let segments = own.maxSegments - 1; Buffer.byteLength(text) > MAX_BYTES; segments--) {
    text = fitSegments(text, segments)
  }
  return text
}

/** https://docs.aws.amazon.com/sns/latest/dg/sms_publish-to-phone.html#sms_publish_sdk */
function attributesOf(
  { priority }: Message,
  { senderId, originationNumber, maxPrice }: SnsSettings,
): [name: string, type: 'String' | 'Number', value: string][] {
  const attributes: [string, 'String' | 'Number', string][] = [
    ['AWS.SNS.SMS.SMSType', 'String', SMS_TYPES[priority]],
  ]
  if (senderId !== undefined) attributes.push(['AWS.SNS.SMS.SenderID', 'String', senderId])
  if (originationNumber !== undefined) {
    attributes.push(['AWS.MM.SMS.OriginationNumber', 'String', originationNumber])
  }
  if (maxPrice !== undefined) attributes.push(['AWS.SNS.SMS.MaxPrice', 'Number', maxPrice.toFixed(5)])
  return attributes
}

function call(
  method: 'GET' | 'POST',
  path: string,
  body: string,
  { http, settings: own, signal, now }: SendContext<SnsSettings>,
): Promise<HttpResponse> {
  const domain = own.region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com'
  const url = `${own.endpoint ?? `https://sns.${own.region}.${domain}`}${path}`
  const headers = signV4({
    method,
    url,
    headers: body === '' ? {} : { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' },
    body,
    region: own.region,
    service: 'sns',
    accessKeyId: own.accessKeyId,
    secretAccessKey: own.secretAccessKey.reveal(),
    sessionToken: own.sessionToken?.reveal(),
    now: now(),
  })
  const timeoutMs = own.timeoutSeconds * 1000
  return http.request({ method, url, headers, body: body === '' ? undefined : body, signal, timeoutMs })
}

/* ---------------------------------------------------------------- errors */

type Verdict = readonly [FailureKind, DeliveryCode]

const ACCOUNT: Verdict = ['temporary', 'auth']
const SET_UP: Verdict = ['temporary', 'invalid_settings']
const SLOWER: Verdict = ['temporary', 'rate_limited']
const INVALID: Verdict = ['permanent', 'invalid_request']

/**
 * https://docs.aws.amazon.com/sns/latest/api/API_Publish.html#API_Publish_Errors and
 * https://docs.aws.amazon.com/sns/latest/api/CommonErrors.html
 */
const ERRORS: ReadonlyMap<string, Verdict> = new Map(
  Object.entries<Verdict>({
    OptedOut: ['rejected', 'opted_out'],
    InvalidParameter: INVALID,
    InvalidParameterValue: INVALID,
    ParameterValueInvalid: INVALID,
    ValidationError: INVALID,
    ValidationException: INVALID,
    MissingParameter: INVALID,
    Throttled: SLOWER,
    Throttling: SLOWER,
    ThrottlingException: SLOWER,
    RequestThrottled: SLOWER,
    AccessDenied: ACCOUNT,
    AccessDeniedException: ACCOUNT,
    AuthorizationError: ACCOUNT,
    ExpiredToken: ACCOUNT,
    IncompleteSignature: ACCOUNT,
    InvalidClientTokenId: ACCOUNT,
    InvalidSecurity: ACCOUNT,
    MissingAuthenticationToken: ACCOUNT,
    NotAuthorized: ACCOUNT,
    OptInRequired: ACCOUNT,
    RequestExpired: ACCOUNT, // our clock
    SignatureDoesNotMatch: ACCOUNT,
    UnrecognizedClientException: ACCOUNT,
    InvalidAction: SET_UP,
    NotFound: SET_UP,
    KMSAccessDenied: SET_UP,
    KMSDisabled: SET_UP,
    KMSInvalidState: SET_UP,
    KMSNotFound: SET_UP,
    KMSOptInRequired: SET_UP,
    KMSThrottling: SLOWER,
    InternalError: ['temporary', 'server_error'],
    InternalFailure: ['temporary', 'server_error'],
    ServiceUnavailable: ['temporary', 'unavailable'],
  }),
)

function verdict(response: HttpResponse, now: Date, message?: Message): DeliveryError | undefined {
  const plain = judge(response.status, response.headers, now)
  if (plain === undefined) return response.complete ? undefined : unknown('garbled_answer')
  const code = wordOf(elementIn(response.body, 'Code'))
  if (code === undefined) return plain
  const said = elementIn(response.body, 'Message')
  const words = said === undefined || message === undefined ? said : withoutPerson(said, message)
  const facts = { vendorCode: code, response: words }
  const detail = `HTTP ${response.status}, SNS ${code}`
  // "Invalid parameter: PhoneNumber Reason: … is not valid to publish to": the code alone does not tell whose fault.
  const known = ERRORS.get(code.replace(/Exception$/, '')) ?? ERRORS.get(code)
  if (known === INVALID && /phone ?number/i.test(said ?? '')) {
    return new DeliveryError('bounced', 'invalid_address', detail, facts)
  }
  if (known === INVALID && /sender ?id|origination|maxprice/i.test(said ?? '')) {
    return new DeliveryError(...SET_UP, detail, facts)
  }
  const until = retryAfter(response.headers['retry-after'], now)
  if (until !== undefined && (known === SLOWER || plain.kind === 'rate_limited'))
    return rateLimited(until, facts)
  const [kind, word] = known ?? [plain.kind, plain.code]
  return new DeliveryError(kind, word, detail, facts)
}

/** The text of the first such element: the answers of the query API are XML of two levels without attributes. */
const elementIn = (xml: string, name: string): string | undefined =>
  new RegExp(`<${name}>([^<]{1,1000})</${name}>`).exec(xml)?.[1]

/* ---------------------------------------------------------------- callbacks */

function receiptsIn({ id, message, at }: SnsMessage): Receipt[] {
  const event = readObject(message)
  if (event === undefined) return []
  const from = textAt(event, 'originationNumber')
  if (from !== undefined) {
    // https://docs.aws.amazon.com/sms-voice/latest/userguide/two-way-sms-payload.html
    return [
      inbound({
        from,
        text: textAt(event, 'messageBody') ?? '',
        at,
        id: textAt(event, 'inboundMessageId') ?? id,
        about: textAt(event, 'previousPublishedMessageId'),
      }),
    ]
  }
  return eventReceipt(event, at)
}

/** https://docs.aws.amazon.com/sms-voice/latest/userguide/configuration-sets-event-types.html */
const EVENTS: ReadonlyMap<string, Pick<Receipt, 'kind' | 'code'>> = new Map(
  Object.entries<Pick<Receipt, 'kind' | 'code'>>({
    TEXT_DELIVERED: { kind: 'delivered' },
    // Taken by the carrier, which reports no further: TEXT_SUCCESSFUL says no more than the answer did.
    TEXT_INVALID: { kind: 'bounced', code: 'invalid_address' },
    TEXT_INVALID_MESSAGE: { kind: 'failed', code: 'content_refused' },
    TEXT_UNREACHABLE: { kind: 'failed', code: 'unavailable' },
    TEXT_CARRIER_UNREACHABLE: { kind: 'failed', code: 'unavailable' },
    TEXT_BLOCKED: { kind: 'failed', code: 'refused' },
    TEXT_CARRIER_BLOCKED: { kind: 'failed', code: 'refused' },
    TEXT_PROTECT_BLOCKED: { kind: 'failed', code: 'refused' },
    TEXT_SPAM: { kind: 'failed', code: 'content_refused' },
    TEXT_TTL_EXPIRED: { kind: 'failed', code: 'unavailable' },
    TEXT_UNKNOWN: { kind: 'failed', code: 'server_error' },
  }),
)

function eventReceipt(event: JsonObject, at: Date): Receipt[] {
  const type = textAt(event, 'eventType') ?? ''
  const outcome = EVENTS.get(type)
  const messageId = textAt(event, 'messageId')
  if (outcome === undefined || messageId === undefined) return []
  const told = event.eventTimestamp
  const receipt: Receipt = {
    ...outcome,
    at: typeof told === 'number' && told > 0 && told < at.getTime() ? new Date(told) : at,
    providerMessageId: messageId,
    receiptId: `${messageId}:${type}`,
  }
  if (outcome.kind !== 'delivered') receipt.vendorCode = type
  const address = textAt(event, 'destinationPhoneNumber')
  if (address !== undefined) receipt.address = address
  const price = event.totalMessagePrice
  if (typeof price === 'number' && price > 0) receipt.cost = { amount: price, currency: 'USD' }
  return [receipt]
}
