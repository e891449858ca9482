import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AppError } from '../../errors.ts'
import { type CallbackRequest, DeliveryError } from '../provider.ts'
import { readSnsMessage } from './sns-message.ts'
import { CERTIFICATE_URL, forgedSns, snsSigner, TOPIC } from './sns-signer.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const { signal } = new AbortController()

const open = (lifetimeDays?: number) => {
  const sns = snsSigner(NOW, lifetimeDays)
  const http = sns.door()
  const read = (request: CallbackRequest, topics: string[] = [TOPIC], now = NOW) =>
    readSnsMessage(request, topics, { http, signal, now: () => now })
  return { sns, read }
}
const refused = (error: unknown) => error instanceof AppError && error.code === 'unauthenticated'
const CONFIRMATION = {
  Type: 'SubscriptionConfirmation',
  Token: 'a-token',
  SubscribeURL: `https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=${TOPIC}&Token=a-token`,
}

test('both versions of the signature are read, with and without a subject, the certificate once', async () => {
  const { sns, read } = open()
  const variants: { Subject?: string; SignatureVersion?: string }[] = [
    {},
    { Subject: 'News' },
    { SignatureVersion: '1' },
  ]
  for (const more of variants) {
    assert.deepEqual(await read(sns.request(more)), {
      id: '22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324',
      topicArn: TOPIC,
      subject: more.Subject,
      message: 'Hello',
      at: new Date('2026-11-21T11:59:58.000Z'),
    })
  }
  assert.deepEqual(
    sns.asked.map(({ method, url }) => [method, url]),
    [['GET', CERTIFICATE_URL]],
  )
})

test('what SNS did not sign is refused', async () => {
  const { sns, read } = open()
  for (const forged of forgedSns(sns.request({ Subject: 'News' })))
    await assert.rejects(read(forged), refused)
  await assert.rejects(read(sns.request({}, { Subject: 'added' })), refused)
  await assert.rejects(read(sns.request({ Type: 'constructor' })), refused)
  await assert.rejects(read(sns.request({ SignatureVersion: 'constructor' })), refused)
  // Signed by SNS, but for somebody else's topic.
  await assert.rejects(read(sns.request(), []), refused)
  await assert.rejects(read(sns.request(), [`${TOPIC}-2`]), refused)
  // Another customer's key under the right address.
  await assert.rejects(read(open().sns.request()), refused)
})

test('certificates are fetched from SNS only', async () => {
  const path = '/SimpleNotificationService-0.pem'
  const { sns, read } = open()
  for (const SigningCertURL of [
    `http://sns.eu-west-1.amazonaws.com${path}`,
    `https://sns.eu-west-1.amazonaws.com:8443${path}`,
    `https://user:pass@sns.eu-west-1.amazonaws.com${path}`,
    `https://sns.eu-west-1.amazonaws.com${path}?x=1`,
    `https://sns.eu-west-1.amazonaws.com/bucket/evil.pem`,
    `https://evil.amazonaws.com${path}`,
    `https://sns.eu-west-1.amazonaws.com.evil.example${path}`,
    `https://s3.eu-west-1.amazonaws.com${path}`,
    `https://snsxeu-west-1.amazonaws.com${path}`,
    `https://sns.evil.s3.amazonaws.com${path}`,
    'https://169.254.169.254/latest/meta-data',
    'nonsense',
  ]) {
    await assert.rejects(read(sns.request({ SigningCertURL })), refused, SigningCertURL)
  }
  assert.equal(sns.asked.length, 0)
})

test('a certificate out of its time, or none at all, is refused; SNS being away is not a forgery', async () => {
  const expired = open(0.5)
  await assert.rejects(expired.read(expired.sns.request()), refused)
  const { sns, read } = open()
  sns.answer = { status: 404, body: 'no' }
  await assert.rejects(read(sns.request()), refused)
  sns.answer = { status: 200, body: 'no certificate' }
  await assert.rejects(read(sns.request()), refused)
  sns.answer = { status: 503, body: '' }
  await assert.rejects(read(sns.request()), DeliveryError)
  sns.answer = undefined
  assert.ok(await read(sns.request()))
})

test('an old message is a replay; one that SNS repeats for an hour is not', async () => {
  const { sns, read } = open()
  const later = (minutes: number) => new Date(NOW.getTime() + minutes * 60_000)
  assert.ok(await read(sns.request(), [TOPIC], later(61)))
  await assert.rejects(read(sns.request(), [TOPIC], later(90)), refused)
  await assert.rejects(read(sns.request(), [TOPIC], later(-10)), refused)
  await assert.rejects(read(sns.request({ Timestamp: 'yesterday' })), refused)
})

test('a subscription is confirmed at SNS, and only there', async () => {
  const { sns, read } = open()
  assert.equal(await read(sns.request(CONFIRMATION)), undefined)
  assert.deepEqual(
    sns.asked.map(each => each.url),
    [CERTIFICATE_URL, CONFIRMATION.SubscribeURL],
  )
  for (const SubscribeURL of [
    'https://evil.example/?Action=ConfirmSubscription',
    'http://169.254.169.254/latest/meta-data',
    'https://sns.eu-west-1.amazonaws.com.evil.example/?Action=ConfirmSubscription',
    `https://sns.eu-west-1.amazonaws.com/?Action=DeleteTopic&TopicArn=${TOPIC}`,
    'https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=other',
  ]) {
    await assert.rejects(read(sns.request({ ...CONFIRMATION, SubscribeURL })), refused, SubscribeURL)
  }
  assert.equal(sns.asked.length, 2)
  // Unsigned, the link is not visited at all; and what fails is tried again by SNS.
  await assert.rejects(read(sns.request(CONFIRMATION, { Token: 'other' })), refused)
  assert.equal(sns.asked.length, 2)
  sns.answer = { status: 500, body: '' }
  await assert.rejects(read(sns.request(CONFIRMATION)), DeliveryError)
})

test('the end of a subscription is read and changes nothing', async () => {
  const { sns, read } = open()
  assert.equal(await read(sns.request({ ...CONFIRMATION, Type: 'UnsubscribeConfirmation' })), undefined)
  assert.deepEqual(
    sns.asked.map(each => each.url),
    [CERTIFICATE_URL],
  )
})
