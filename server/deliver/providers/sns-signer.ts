import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import type { JsonObject } from '../../types.ts'
import type { CallbackRequest, Http, HttpRequest } from '../provider.ts'

/** For tests: the part of Amazon SNS that signs what it posts, and the hosts of it that we ask. */

export const TOPIC = 'arn:aws:sns:eu-west-1:123456789012:mail-events'
export const CERTIFICATE_URL =
  'https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem'

type Fields = Record<string, string | undefined>

export interface SnsSigner {
  /** A request as SNS posts it. `more` replaces fields before, `after` fields behind the signing. */
  request(more?: Fields, after?: Fields): CallbackRequest
  /** A door behind which the certificate lies and subscriptions are confirmed; other requests go on to `http`. */
  door(http?: Http): Http
  /** What was asked of SNS. */
  asked: HttpRequest[]
  /** What SNS answers instead, from now on. */
  answer?: { status: number; body: string }
}

export function snsSigner(now: Date, lifetimeDays = 365): SnsSigner {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const dayMs = 24 * 60 * 60 * 1000
  const from = new Date(now.getTime() - dayMs)
  const pem = selfSigned(publicKey, privateKey, from, new Date(from.getTime() + lifetimeDays * dayMs))
  const signer: SnsSigner = {
    asked: [],
    request(more = {}, after = {}) {
      const fields: Fields = {
        Type: 'Notification',
        MessageId: '22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324',
        TopicArn: TOPIC,
        Message: 'Hello',
        Timestamp: new Date(now.getTime() - 2_000).toISOString(),
        SignatureVersion: '2',
        SigningCertURL: CERTIFICATE_URL,
        ...more,
      }
      // Written from the vendor's page, not with the code under test.
      const names =
        fields.Type === 'Notification'
          ? ['Message', 'MessageId', 'Subject', 'Timestamp', 'TopicArn', 'Type']
          : ['Message', 'MessageId', 'SubscribeURL', 'Timestamp', 'Token', 'TopicArn', 'Type']
      let text = ''
      for (const name of names) if (fields[name] !== undefined) text += `${name}\n${fields[name]}\n`
      const hash = fields.SignatureVersion === '1' ? 'sha1' : 'sha256'
      const signature = sign(hash, Buffer.from(text), privateKey).toString('base64')
      return {
        method: 'POST',
        url: 'https://carillon.example/webhooks/ses',
        headers: {
          'content-type': 'text/plain; charset=UTF-8',
          'x-amz-sns-message-type': fields.Type ?? '',
        },
        body: Buffer.from(JSON.stringify({ ...fields, Signature: signature, ...after })),
      }
    },
    door: http => ({
      async request(asked) {
        if (!asked.url.startsWith('https://sns.')) return http!.request(asked)
        signer.asked.push(asked)
        const answer = signer.answer ?? {
          status: 200,
          body: asked.url === CERTIFICATE_URL ? pem : '<ConfirmSubscriptionResponse/>',
        }
        return { ...answer, headers: {}, complete: true }
      },
      connect: asked => http!.connect(asked),
    }),
  }
  return signer
}

/** What a forger might post who has everything but the key. */
export const forgedSns = (request: CallbackRequest): CallbackRequest[] => {
  const body = JSON.parse(request.body.toString()) as JsonObject
  const forge = (more: JsonObject) => ({
    ...request,
    body: Buffer.from(JSON.stringify({ ...body, ...more })),
  })
  return [
    forge({ Message: `${body.Message as string} ` }),
    forge({ MessageId: 'another' }),
    forge({ TopicArn: 'arn:aws:sns:eu-west-1:210987654321:mail-events' }),
    forge({ SigningCertURL: 'https://sns.eu-west-1.amazonaws.com.example/SimpleNotificationService-0.pem' }),
    forge({ Signature: 'AAAA' }),
    forge({ SignatureVersion: '3' }),
    { ...request, body: Buffer.from('null') },
  ]
}

/* ---------------------------------------------------------------- a certificate (RFC 5280 §4.1) */

function selfSigned(publicKey: KeyObject, privateKey: KeyObject, from: Date, to: Date): string {
  // sha256WithRSAEncryption (1.2.840.113549.1.1.11), and commonName (2.5.4.3) in an RDN of one.
  const algorithm = der(0x30, der(0x06, Buffer.from('2a864886f70d01010b', 'hex')), der(0x05))
  const commonName = der(0x06, Buffer.from('550403', 'hex'))
  const name = der(
    0x30,
    der(0x31, der(0x30, commonName, der(0x0c, Buffer.from('sns.eu-west-1.amazonaws.com')))),
  )
  const tbs = der(
    0x30,
    der(0x02, Buffer.from([1])),
    algorithm,
    name,
    der(0x30, time(from), time(to)),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
  )
  const signature = der(0x03, Buffer.from([0]), sign('sha256', tbs, privateKey))
  const lines = der(0x30, tbs, algorithm, signature)
    .toString('base64')
    .match(/.{1,64}/g)!
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

const time = (at: Date) =>
  der(
    0x17,
    Buffer.from(
      `${at
        .toISOString()
        .replaceAll(/[-:T]|\.\d+/g, '')
        .slice(2)}`,
    ),
  )

function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts)
  const { length } = content
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255]
  return Buffer.concat([Buffer.from([tag, ...size]), content])
}
