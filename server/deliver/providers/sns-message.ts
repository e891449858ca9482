import { verify, X509Certificate } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { JsonObject } from '../../types.ts'
import { type CallbackRequest, callbackRefused, type Http, temporary } from '../provider.ts'
import { readObject, textAt } from './answers.ts'

/**
 * What Amazon SNS posts to an HTTP endpoint: the signed envelope around the events of SES and of SNS itself.
 * https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
 */
export interface SnsMessage {
  /** The same each time SNS repeats it. */
  id: string
  topicArn: string
  subject?: string
  /** What was published: for events of AWS services JSON, but nobody promises that. */
  message: string
  at: Date
}

export interface SnsContext {
  http: Http
  now: () => Date
  signal: AbortSignal
}

/** With a dot in front of the region only; nothing but these two domains is Amazon's SNS. */
const SNS_HOST = /^sns\.[a-z]{2}(?:-[a-z]+){1,3}-\d\.amazonaws\.com(?:\.cn)?$/
const CERTIFICATE_PATH = /^\/SimpleNotificationService-[0-9A-Za-z]{1,100}\.pem$/
const MAX_CERTIFICATE_BYTES = 16_384

// "The total policy retry time for an HTTP/S endpoint can't exceed 3,600 seconds"; repeats keep their timestamp.
// https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html
const MAX_AGE_MS = 75 * 60 * 1000
const MAX_AHEAD_MS = 5 * 60 * 1000

const CONFIRMATION = ['Message', 'MessageId', 'SubscribeURL', 'Timestamp', 'Token', 'TopicArn', 'Type']

/** The signed fields of each type, in the order of their names; one that is absent is left out. */
const SIGNED = new Map([
  ['Notification', ['Message', 'MessageId', 'Subject', 'Timestamp', 'TopicArn', 'Type']],
  ['SubscriptionConfirmation', CONFIRMATION],
  ['UnsubscribeConfirmation', CONFIRMATION],
])

/** `SignatureVersion`, and the hash it stands for. */
const HASHES = new Map([
  ['1', 'sha1'],
  ['2', 'sha256'],
])

// By door: what one door fetched says nothing about what another would have.
const certificates = new WeakMap<Http, LRUCache<string, X509Certificate>>()

/**
 * Reads a request of SNS. Undefined when there is nothing to read: the subscription was confirmed, or ended.
 *
 * `topics`: the ARNs whose messages are ours. SNS signs for every topic of every customer, so a signature alone
 * says nothing about who published; without a topic nothing is accepted.
 *
 * @throws AppError `unauthenticated`; DeliveryError when Amazon cannot be reached for the certificate or the
 * confirmation, upon which SNS repeats the message.
 */
export async function readSnsMessage(
  request: CallbackRequest,
  topics: readonly string[],
  ctx: SnsContext,
): Promise<SnsMessage | undefined> {
  const envelope = readObject(request.body.toString('utf8'))
  if (envelope === undefined) throw callbackRefused('The body is no message of SNS')
  const text = (name: string): string => {
    const value = textAt(envelope, name)
    if (value === undefined) throw callbackRefused(`The message of SNS has no ${name}`)
    return value
  }
  const type = text('Type')
  const topicArn = text('TopicArn')
  if (!topics.includes(topicArn)) throw callbackRefused('The topic is not one of ours')
  const at = new Date(text('Timestamp'))
  const age = ctx.now().getTime() - at.getTime()
  if (!(age <= MAX_AGE_MS && age >= -MAX_AHEAD_MS)) throw callbackRefused('The message of SNS is too old')

  const signed = SIGNED.get(type)
  const hash = HASHES.get(text('SignatureVersion'))
  if (signed === undefined || hash === undefined)
    throw callbackRefused('The message of SNS is of no known kind')
  const certificate = await certificateAt(text('SigningCertURL'), ctx)
  const signature = Buffer.from(text('Signature'), 'base64')
  if (!verify(hash, Buffer.from(signedText(envelope, signed)), certificate.publicKey, signature)) {
    throw callbackRefused('The signature of SNS does not hold')
  }

  if (type === 'SubscriptionConfirmation') await confirm(text('SubscribeURL'), topicArn, ctx)
  if (type !== 'Notification') return undefined
  return {
    id: text('MessageId'),
    topicArn,
    subject: textAt(envelope, 'Subject'),
    message: text('Message'),
    at,
  }
}

function signedText(envelope: JsonObject, names: readonly string[]): string {
  return names
    .flatMap(name => {
      const value = envelope[name]
      return typeof value === 'string' ? [`${name}\n${value}\n`] : []
    })
    .join('')
}

async function certificateAt(address: string, ctx: SnsContext): Promise<X509Certificate> {
  const url = snsUrl(address)
  if (url === undefined || !CERTIFICATE_PATH.test(url.pathname) || url.search !== '') {
    throw callbackRefused('The certificate is not where SNS keeps its own')
  }
  let known = certificates.get(ctx.http)
  if (known === undefined) {
    known = new LRUCache({ max: 100 })
    certificates.set(ctx.http, known)
  }
  const certificate = known.get(url.href) ?? (await fetchCertificate(url.href, ctx))
  const now = ctx.now().getTime()
  if (now < Date.parse(certificate.validFrom) || now > Date.parse(certificate.validTo)) {
    throw callbackRefused('The certificate of SNS is not valid now')
  }
  known.set(url.href, certificate)
  return certificate
}

async function fetchCertificate(url: string, { http, signal }: SnsContext): Promise<X509Certificate> {
  const response = await http.request({
    method: 'GET',
    url,
    signal,
    maxResponseBytes: MAX_CERTIFICATE_BYTES,
  })
  if (response.status >= 500 || response.status === 429) {
    throw temporary('unavailable', `HTTP ${response.status} for the certificate of SNS`)
  }
  try {
    if (response.status === 200) return new X509Certificate(response.body)
  } catch {
    // Said below: there is a page, but no certificate on it.
  }
  throw callbackRefused('There is no certificate of SNS')
}

/** Visits the link of a confirmation whose signature held, if it leads where only SNS can be. */
async function confirm(address: string, topicArn: string, { http, signal }: SnsContext): Promise<void> {
  const url = snsUrl(address)
  const query = url?.searchParams
  if (query?.get('Action') !== 'ConfirmSubscription' || query.get('TopicArn') !== topicArn) {
    throw callbackRefused('The subscription is not confirmed at SNS')
  }
  const response = await http.request({ method: 'GET', url: address, signal, statusIsEnough: true })
  if (response.status !== 200) {
    throw temporary('unavailable', `HTTP ${response.status} for the confirmation of a subscription`)
  }
}

function snsUrl(address: string): URL | undefined {
  if (!URL.canParse(address)) return undefined
  const url = new URL(address)
  const plain = url.username === '' && url.password === '' && url.port === ''
  return url.protocol === 'https:' && plain && SNS_HOST.test(url.hostname) ? url : undefined
}
