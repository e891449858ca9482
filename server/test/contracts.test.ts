import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { inspect } from 'node:util'
import { exampleMessage } from '../deliver/providers/conformance.ts'
import { pagerduty } from '../deliver/providers/pagerduty/pagerduty.ts'
import { sendgrid } from '../deliver/providers/sendgrid/sendgrid.ts'
import { slackBot } from '../deliver/providers/slack-bot/slack-bot.ts'
import { twilio } from '../deliver/providers/twilio/twilio.ts'
import { twilioVerify } from '../deliver/providers/twilio-verify/twilio-verify.ts'
import { twilioVerifyCall } from '../deliver/providers/twilio-verify-call/twilio-verify-call.ts'
import { twilioVerifyEmail } from '../deliver/providers/twilio-verify-email/twilio-verify-email.ts'
import { twilioVerifyWhatsApp } from '../deliver/providers/twilio-verify-whatsapp/twilio-verify-whatsapp.ts'
import { twilioVoice } from '../deliver/providers/twilio-voice/twilio-voice.ts'
import { twilioWhatsApp } from '../deliver/providers/twilio-whatsapp/twilio-whatsapp.ts'
import { type AnyProvider, DeliveryError } from '../deliver/provider.ts'
import type { JsonObject, Message } from '../types.ts'
import {
  type Caller,
  contractFarEnd,
  type FarEnd,
  noContracts,
  type OpenApi,
  openCaller,
  violationsIn,
} from './far-ends.ts'

/**
 * Every shape of request that these providers make, held against the contracts that the vendors publish by a validator
 * that is not ours. Nothing is asked of the answers, which are the contracts' own examples.
 */

/* ---------------------------------------------------------------- what is wrong with the documents themselves */

/** What OpenAPI takes for granted of a list in a form, the validator wants to see written out. */
function twilioMended({ paths }: OpenApi): void {
  const messages = paths['/2010-04-01/Accounts/{AccountSid}/Messages.json']!.post!
  messages.requestBody!.content['application/x-www-form-urlencoded']!.encoding = {
    MediaUrl: { style: 'form', explode: true },
  }
}

/** The id of a message comes in a header that the document does not name. */
function sendgridMended({ paths }: OpenApi): void {
  paths['/v3/mail/send']!.post!.responses['202']!.headers = {
    'X-Message-Id': { schema: { type: 'string' }, example: '14c5d75ce93.dfd.64b469' },
  }
}

/**
 * Slack froze its document in 2021. It says in words that every method takes JSON, with the token as a bearer, but
 * describes forms, in which blocks are a text (https://docs.slack.dev/apis/web-api/#post_bodies). `metadata` came later
 * (https://docs.slack.dev/messaging/message-metadata), and all methods may be posted to.
 */
function slackMended({ paths }: OpenApi): void {
  for (const operations of Object.values(paths)) {
    for (const operation of Object.values(operations)) {
      const named = (operation.parameters ?? []).filter(({ name }) => name !== 'token')
      const fields = named.filter(each => each.in === 'formData')
      operation.parameters = named.filter(each => each.in !== 'formData')
      if (fields.length === 0) continue
      const properties: JsonObject = {
        ...Object.fromEntries(fields.map(({ name, type = 'string' }) => [name, { type }])),
        metadata: { type: 'object' },
      }
      for (const list of ['blocks', 'attachments']) {
        if (list in properties) properties[list] = { type: 'array', items: { type: 'object' } }
      }
      const required = fields.filter(each => each.required === true).map(({ name }) => name)
      const schema = { type: 'object', properties, ...(required.length > 0 && { required }) }
      operation.parameters.push({ in: 'body', name: 'body', required: true, schema })
      operation.consumes = ['application/json']
    }
    operations.post ??= operations.get!
  }
}

const CONTRACTS = {
  'twilio-api-v2010-messages-calls.openapi.json': twilioMended,
  'twilio-verify-v2.openapi.json': undefined,
  'sendgrid-mail-send-v3.openapi.json': sendgridMended,
  'pagerduty-events-v2.openapi.json': undefined,
  'slack-web-api.swagger2.json': slackMended,
}

/* ---------------------------------------------------------------- the shapes */

const ACCOUNT_SID = `AC${'0123456789abcdef'.repeat(2)}`
const CONTENT_SID = `HX${'0123456789abcdef'.repeat(2)}`
const SERVICE_SID = `MG${'0123456789abcdef'.repeat(2)}`
const ROUTING_KEY = 'e93facc04764012d7bfb002500d5d1a6'
const account = {
  accountSid: ACCOUNT_SID,
  authToken: 'the-auth-token',
  statusCallback: 'https://carillon.example/webhooks/twilio?tenant=1',
}
const verify = { accountSid: ACCOUNT_SID, authToken: 'x', serviceSid: ACCOUNT_SID.replace('AC', 'VA') }
const phone = { to: '+15551234567' } as const
const UNICODE = 'Grüße, 你好, مرحبا, 👩‍👩‍👧‍👦 — „quoted“ & <tagged> 100 % a+b=c'
const LONG = 'Lorem ipsum dolor sit amet. '.repeat(2_000)

const codes = (to: Partial<Message>): Record<string, Partial<Message>> =>
  Object.fromEntries(
    [undefined, 'de'].map(language => [
      `a code in ${language}`,
      {
        ...to,
        eventType: 'carillon.address.verification',
        content: { body: 'x', data: { code: '123456' }, ...(language !== undefined && { language }) },
      },
    ]),
  )

interface Shapes {
  provider: AnyProvider
  /** Each of them with each of the messages. */
  settings: JsonObject[]
  /** Where the API's own path begins, below the address of the far end. */
  under: 'baseUrl' | 'apiUrl'
  messages: Record<string, Partial<Message>>
}

const texts = (to: object): Record<string, Partial<Message>> => ({
  plain: { ...to },
  unicode: { ...to, content: { subject: UNICODE, body: UNICODE } },
  long: { ...to, content: { subject: LONG, body: LONG } },
})

const SHAPES: Shapes[] = [
  {
    provider: twilio,
    under: 'baseUrl',
    settings: [
      { ...account, from: '+15557654321' },
      { ...account, messagingServiceSid: SERVICE_SID, maxSegments: 10 },
      { accountSid: ACCOUNT_SID, authToken: 'x', from: 'Carillon', transliterate: true },
    ],
    messages: texts(phone),
  },
  {
    provider: twilioWhatsApp,
    under: 'baseUrl',
    settings: [
      { ...account, from: '+15557654321' },
      { ...account, messagingServiceSid: SERVICE_SID, fallbackTemplate: { contentSid: CONTENT_SID } },
    ],
    messages: {
      ...texts(phone),
      'in an open session': { ...phone, addressSettings: { wroteAt: Date.now() } },
      picture: { ...phone, content: { body: 'Look', image: 'https://carillon.example/parcel.png' } },
      document: {
        ...phone,
        content: {
          body: '',
          data: { media: { type: 'document', link: 'https://carillon.example/a.pdf', filename: 'a.pdf' } },
        },
      },
      template: {
        ...phone,
        content: {
          body: 'x',
          data: { template: { contentSid: CONTENT_SID, variables: { 1: 'Alice', 2: 17 } } },
        },
      },
    },
  },
  {
    provider: twilioVoice,
    under: 'baseUrl',
    settings: [
      { ...account, from: '+15557654321' },
      { ...account, from: '+15557654321', voice: 'Polly.Amy', language: 'en-GB', ringSeconds: 60 },
    ],
    messages: {
      ...texts(phone),
      'in a language': { ...phone, content: { body: 'Guten Tag', language: 'de-AT' } },
    },
  },
  {
    provider: twilioVerify,
    under: 'baseUrl',
    settings: [
      verify,
      { ...verify, codes: 'twilio' },
      { ...verify, apiKeySid: ACCOUNT_SID.replace('AC', 'SK'), apiKeySecret: 'y' },
    ],
    messages: codes(phone),
  },
  ...[twilioVerifyCall, twilioVerifyWhatsApp].map(provider => ({
    provider,
    under: 'baseUrl' as const,
    settings: [verify, { ...verify, codes: 'twilio' }],
    messages: codes(phone),
  })),
  {
    provider: twilioVerifyEmail,
    under: 'baseUrl',
    settings: [verify, { ...verify, codes: 'twilio' }],
    messages: codes({ to: 'ann@example.org' }),
  },
  {
    provider: sendgrid,
    under: 'baseUrl',
    settings: [
      { apiKey: 'SG.key', from: 'noreply@carillon.example' },
      {
        apiKey: 'SG.key',
        from: 'Grüße <noreply@carillon.example>',
        replyTo: 'Help <help@carillon.example>',
      },
    ],
    messages: {
      ...texts({ to: 'alice@example.com' }),
      'without a subject': { to: 'alice@example.com', content: { body: 'Only a text' } },
      'HTML alone': { to: 'alice@example.com', content: { subject: 'x', body: '', html: '<p>x</p>' } },
      'everything at once': {
        to: 'alice@example.com',
        unsubscribeUrl: 'https://carillon.example/u/abc',
        content: {
          subject: UNICODE,
          body: UNICODE,
          html: `<p>${UNICODE}</p>`,
          attachments: [{ filename: 'größe.txt', contentType: 'text/plain', content: 'aGVsbG8=' }],
          data: {
            email: {
              cc: ['bob@example.com'],
              bcc: 'carol@example.com',
              replyTo: 'desk@carillon.example',
              attachments: [{ filename: 'a.bin', content: 'aGVsbG8=' }],
            },
          },
        },
      },
    },
  },
  {
    provider: pagerduty,
    under: 'apiUrl',
    settings: [{}, { client: 'Carillon', clientUrl: 'https://carillon.example', source: 'eu-1' }],
    messages: {
      ...texts({ to: ROUTING_KEY }),
      ...Object.fromEntries(
        ['acknowledge', 'resolve'].map(action => [
          action,
          { to: ROUTING_KEY, content: { body: 'x', data: { event_action: action, dedup_key: 'db-1' } } },
        ]),
      ),
      ...Object.fromEntries(
        (['CRITICAL', 'HIGH', 'NORMAL', 'LOW'] as const).map(priority => [
          priority,
          { to: ROUTING_KEY, priority },
        ]),
      ),
      'everything at once': {
        to: ROUTING_KEY,
        content: {
          subject: UNICODE,
          body: UNICODE,
          image: 'https://carillon.example/graph.png',
          actions: [
            { id: 'd', label: 'Dashboard', url: 'https://carillon.example/d' },
            { id: 'x', label: 'No link' },
          ],
          data: {
            severity: 'info',
            source: 'db-7',
            component: 'pool',
            group: 'databases',
            class: 'saturation',
            links: [{ href: 'https://carillon.example/r', text: 'Runbook' }],
            images: [{ src: 'https://carillon.example/i.png', href: 'https://carillon.example', alt: 'i' }],
            custom_details: { free: 0, nested: { deep: [1, null, 'x'] } },
            further: true,
          },
        },
      },
    },
  },
  {
    provider: slackBot,
    under: 'apiUrl',
    settings: [{ token: 'xoxb-token', defaultChannel: '#alerts' }],
    messages: {
      ...texts({ to: 'C0123456789' }),
      'to the default channel': { to: '' },
      'to a person': { to: 'U0123456789' },
      'to an e-mail address': { to: 'alice@example.com' },
      'in a thread': {
        to: 'C0123456789',
        content: {
          body: 'x',
          data: {
            thread_ts: '1503435956.000247',
            reply_broadcast: true,
            unfurl_links: false,
            unfurl_media: true,
          },
        },
      },
      'with everything': {
        to: '#alerts',
        content: {
          subject: UNICODE,
          body: UNICODE,
          image: 'https://carillon.example/graph.png',
          actions: [
            { id: 'ack', label: 'Acknowledge' },
            { id: 'open', label: 'Open', url: 'https://carillon.example/o' },
          ],
          data: { fields: { Service: 'db', Region: 'eu-1' }, context: ['since 12:00'] },
        },
      },
      'with blocks of its own': {
        to: 'C0123456789',
        content: {
          body: 'x',
          data: { blocks: [{ type: 'section', text: { type: 'mrkdwn', text: '*Hi*' } }] },
        },
      },
    },
  },
]

/* ---------------------------------------------------------------- the judge */

describe('what providers ask of vendors fits the contracts that these publish', {
  skip: noContracts(...Object.keys(CONTRACTS)),
}, () => {
  let vendors: FarEnd
  before(async () => {
    vendors = await contractFarEnd(CONTRACTS)
  })
  after(() => vendors?.close())

  const caller = async (
    { provider, under }: Pick<Shapes, 'provider' | 'under'>,
    settings: JsonObject,
    work: (caller: Caller) => Promise<void>,
  ) => {
    const opened = await openCaller(provider, { ...settings, [under]: vendors.url, timeoutSeconds: 60 })
    try {
      await work(opened)
    } finally {
      await opened.close()
    }
  }

  const fits = ({ exchanges }: Caller, what: string): void => {
    assert.ok(exchanges.length > 0, `${what}: nobody was asked`)
    for (const exchange of exchanges) {
      const { method = 'POST', url } = exchange.request
      assert.deepEqual(violationsIn(exchange), [], `${what}: ${method} ${url.slice(vendors.url.length)}`)
      assert.ok(exchange.response.status < 300, `${what}: HTTP ${exchange.response.status}`)
    }
  }

  test('the judge sees a field that is missing, one too many, one of another type, and no credentials', async () => {
    const ask = async (path: string, type: string, body: string, authorization: string | null) => {
      const response = await fetch(`${vendors.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': type, ...(authorization !== null && { authorization }) },
        body,
      })
      const text = await response.text()
      const headers = Object.fromEntries(response.headers)
      const answer = { status: response.status, headers, body: text, complete: true }
      const found = violationsIn({ request: { url: path }, response: answer })
      return [...new Set(found.map(({ at }) => at))]
    }
    const form = 'application/x-www-form-urlencoded'
    const messages = `/2010-04-01/Accounts/${ACCOUNT_SID}/Messages.json`
    const basic = 'Basic eDp5'
    assert.deepEqual(await ask(messages, form, 'To=%2B15551234567&Body=x', basic), [])
    assert.deepEqual(await ask(messages, form, 'Body=x', basic), ['body'])
    assert.deepEqual(await ask(messages, form, 'To=%2B1555&ContentSid=HX1', basic), ['body.ContentSid'])
    assert.deepEqual(await ask(messages, 'text/plain', 'To=%2B1555', basic), ['response'])
    assert.ok((await ask(messages, form, 'To=%2B15551234567&Body=x', null)).length > 0)
    assert.ok((await ask('/nowhere', form, 'To=%2B15551234567&Body=x', basic)).length > 0)
    const slack = (body: JsonObject) =>
      ask('/chat.postMessage', 'application/json', JSON.stringify(body), 'Bearer xoxb')
    assert.deepEqual(await slack({ channel: 'C1', text: 'x' }), [])
    assert.deepEqual(await slack({ text: 'x' }), ['body'])
    assert.deepEqual(await slack({ channel: 'C1', blocks: '[]' }), ['body.blocks'])
    assert.deepEqual(await slack({ channel: 'C1', txt: 'x' }), ['body'])
  })

  // covers: DIC-107, DIC-115, DIC-127, DIC-129
  for (const shapes of SHAPES) {
    const { provider, messages } = shapes
    test(`${provider.id}: ${Object.keys(messages).join(', ')}`, async () => {
      for (const settings of shapes.settings) {
        for (const [name, message] of Object.entries(messages)) {
          await caller(shapes, settings, async it => {
            const outcome = await it.send(exampleMessage({ channel: provider.channel, ...message }))
            fits(it, name)
            assert.ok(!(outcome instanceof DeliveryError), `${name}: ${inspect(outcome)}`)
          })
        }
      }
    })
  }

  test('twilio-verify: a code that is checked, and one of ours that was right', async () => {
    const { signal } = new AbortController()
    const given = { to: phone.to, code: '123456', ours: true }
    const messageId = `VE${'0'.repeat(32)}`
    for (const [codes, about, path] of [
      ['twilio', { messageId }, 'VerificationCheck'],
      ['twilio', {}, 'VerificationCheck'],
      ['carillon', { messageId }, `Verifications/${messageId}`],
    ] as const) {
      await caller({ provider: twilioVerify, under: 'baseUrl' }, { ...verify, codes }, async it => {
        // What the contract's example says of the code is no matter here.
        await it.opened.confirmCode!({ ...given, ...about }, signal).catch(() => {})
        fits(it, path)
        assert.ok(new URL(it.exchanges[0]!.request.url).pathname.endsWith(path))
      })
    }
  })

  test('twilio: what became of a message', async () => {
    const settings = { ...account, from: '+15557654321' }
    await caller({ provider: twilio, under: 'baseUrl' }, settings, async it => {
      await it.opened.getDeliveryStatus!(`SM${'0123456789abcdef'.repeat(2)}`, new AbortController().signal)
      fits(it, 'status')
      assert.equal(it.exchanges[0]!.request.method, 'GET')
    })
  })

  test('slack-bot: a message that takes the place of another, and the check of the token', async () => {
    await caller({ provider: slackBot, under: 'apiUrl' }, { token: 'xoxb-token' }, async it => {
      const message = exampleMessage({ channel: 'slack', to: 'C0123456789' })
      await it.opened.update!(message, 'C0123456789/1503435956.000247', new AbortController().signal)
      await it.opened.check(new AbortController().signal)
      fits(it, 'update and check')
      assert.deepEqual(
        it.exchanges.map(({ request }) => new URL(request.url).pathname),
        ['/chat.update', '/auth.test'],
      )
    })
  })
})
