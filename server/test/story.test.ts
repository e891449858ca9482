import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type IncomingMessage, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { Webhook } from 'standardwebhooks'
import WebSocket from 'ws'
import { type Loose, eventually, testApp } from './app.ts'

/**
 * The whole of it once, from top to bottom: a shop tells us that a large order was paid. Alice wants a mail and looks
 * at her inbox, Bob's own program gets a signed webhook, and Charlie, who switched the channel off, gets nothing and
 * can see why.
 */
test('Alice, Bob and Charlie', async () => {
  const carillon = await testApp()
  const { tenant } = carillon
  const admin = (method: string, path: string, body?: unknown) =>
    carillon.call(method, path, { as: tenant.adminKey, body })
  const bobsProgram = await receiver()
  const socket = { close() {} }
  try {
    // ---- Three people. Where they can be reached is known, and known to be theirs.
    const secret = `whsec_${randomBytes(24).toString('base64')}`
    const people: [string, object][] = [
      ['alice', { addresses: [{ channel: 'email', address: 'alice@example.org', verified: true }] }],
      [
        'bob',
        {
          addresses: [
            {
              channel: 'webhook',
              address: bobsProgram.url,
              verified: true,
              settings: { secret, headers: {} },
            },
          ],
        },
      ],
      ['charlie', { addresses: [{ channel: 'email', address: 'charlie@example.org', verified: true }] }],
    ]
    for (const [userId, person] of people) {
      const { status, text } = await admin('PUT', `/api/users/${userId}`, { ...person, groups: ['sales'] })
      assert.equal(status, 201, text)
    }

    // ---- Charlie wants no mail, and no inbox either.
    const charlie = await tenant.token('charlie')
    const choice = await carillon.call('PUT', '/api/preferences/charlie', {
      as: charlie,
      body: { channels: { email: { enabled: false }, inApp: { enabled: false } } },
    })
    assert.equal(choice.status, 200, choice.text)

    // ---- One template, one rule: large orders are told to the group sales.
    const template = await admin('POST', '/api/templates', {
      name: 'large-order',
      channels: {
        default: {
          subject: 'Order {{data.number}} is paid',
          body: '{{data.customer}} paid {{data.total}} €.',
        },
        email: {
          subject: 'Order {{data.number}} is paid',
          body: '{{data.customer}} paid {{data.total}} €.',
          html: '<p><b>{{data.customer}}</b> paid {{data.total}} €.</p>',
        },
      },
    })
    assert.equal(template.status, 201, template.text)
    const rule = await admin('POST', '/api/rules', {
      name: 'Large orders',
      eventTypes: ['shop.order.paid'],
      eventPattern: 'event.data.total >= 1000',
      channels: ['email', 'in_app', 'webhook'],
      recipientSelector: { groups: ['sales'] },
      templateId: 'large-order',
    })
    assert.equal(rule.status, 201, rule.text)
    assert.deepEqual(rule.body.warnings, [])

    // ---- Alice has her inbox open.
    const envelopes: Loose[] = []
    const alice = await tenant.token('alice')
    const ws = new WebSocket(`${carillon.url.replace('http', 'ws')}/realtime`, 'carillon.v1', {
      headers: { authorization: `Bearer ${alice}` },
    })
    socket.close = () => ws.terminate()
    ws.on('message', (text: Buffer) => envelopes.push(JSON.parse(text.toString('utf8'))))
    await once(ws, 'open')
    await eventually('the greeting of the stream', () => envelopes.length > 0)

    // ---- The shop tells two things. The first is too small for the rule.
    const publish = (number: string, total: number) =>
      carillon.call('POST', '/api/events/publish', {
        as: tenant.serviceKey,
        body: { type: 'shop.order.paid', data: { number, total, customer: 'Söhne & Co <x>' } },
      })
    assert.equal((await publish('A-1', 20)).status, 202)
    const large = await publish('A-2', 1200)
    assert.equal(large.status, 202, large.text)
    const { eventId } = large.body

    // ---- Alice sees it on her open socket …
    const item = await eventually('the envelope on the socket', () =>
      envelopes.find(one => one.data?.eventId === eventId || one.data?.item?.eventId === eventId),
    )
    assert.match(JSON.stringify(item), /Order A-2 is paid/)

    // ---- … and in her mail, as text and as HTML, with a way out.
    const found = await eventually('the mail', async () =>
      ((await carillon.call('GET', '/dev/mailbox.json')).body.items as Loose[]).find(
        mail => mail.subject === 'Order A-2 is paid',
      ),
    )
    assert.deepEqual(found.recipients, ['alice@example.org'])
    const mail = (await carillon.call('GET', `/dev/mailbox.json/${found.id}`)).body
    assert.match(mail.text, /Söhne & Co <x> paid 1200 €\./)
    assert.match(mail.html, /<b>Söhne &amp; Co &lt;x&gt;<\/b> paid 1200 €\./)
    const header = (name: string): string =>
      mail.headers.find((one: Loose) => one.name.toLowerCase() === name)?.value ?? ''
    assert.match(header('list-unsubscribe'), /^<https?:\/\/[^>]+\/u\/[^>]+>/)
    assert.equal(header('list-unsubscribe-post'), 'List-Unsubscribe=One-Click')

    // ---- Bob's program gets one signed request, and checks it as the Standard Webhooks library does.
    const request = await eventually('the webhook', () => bobsProgram.requests[0])
    const verified = new Webhook(secret).verify(request.body, request.headers) as Loose
    assert.equal(verified.type, 'shop.order.paid')
    assert.equal(verified.data.subject, 'Order A-2 is paid', request.body)
    assert.throws(() => new Webhook(secret).verify(`${request.body} `, request.headers))

    // ---- Charlie got nothing, and the answer to "why" says which choice of his it was.
    const inbox = await carillon.call('GET', '/api/notifications/feed', { as: charlie })
    assert.deepEqual(inbox.body.items, [])
    const why = await carillon.call('GET', `/api/explain?event=${eventId}&user=charlie`, { as: charlie })
    assert.equal(why.status, 200, why.text)
    const decisions = why.body.rules.flatMap((one: Loose) =>
      one.recipients.flatMap((recipient: Loose) => recipient.decisions),
    )
    assert.deepEqual(
      decisions.map(({ channel, decision, reason }: Loose) => [channel, decision, reason]),
      [
        ['email', 'skip', 'preference_channel_off'],
        ['in_app', 'skip', 'preference_channel_off'],
        ['webhook', 'skip', 'missing_address'],
      ],
      why.text,
    )

    // ---- And the first event: the rule looked at it, and let it pass.
    await eventually('both deliveries to be settled', async () => {
      const { deliveries } = (
        await carillon.call('GET', `/api/events/status/${eventId}`, { as: tenant.serviceKey })
      ).body
      return deliveries.every((one: Loose) => ['sent', 'delivered'].includes(one.status))
    })
    assert.equal(bobsProgram.requests.length, 1)
  } finally {
    socket.close()
    await carillon.stop()
    bobsProgram.close()
  }
})

/** Somebody's endpoint: keeps what it is sent and says thank you. */
async function receiver() {
  const requests: { headers: Record<string, string>; body: string }[] = []
  const server = createServer((request: IncomingMessage, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      requests.push({
        headers: request.headers as Record<string, string>,
        body: Buffer.concat(parts).toString('utf8'),
      })
      response.writeHead(204).end()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
    requests,
    close() {
      server.closeAllConnections()
      server.close()
    },
  }
}
