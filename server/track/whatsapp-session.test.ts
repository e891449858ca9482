import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Loose, eventually, testApp } from '../test/app.ts'

const SECRET = 'the-secret-of-the-app'

/** Meta, which takes everything. */
async function meta() {
  const asked: Loose[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', chunk => chunks.push(chunk))
    request.on('end', () => {
      asked.push(JSON.parse(Buffer.concat(chunks).toString()))
      response.writeHead(200, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ messages: [{ id: `wamid.${asked.length}` }] }))
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    asked,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise(resolve => {
        server.closeAllConnections()
        server.close(resolve)
      }),
  }
}

// covers: AUR-113
test('who writes on WhatsApp is answered freely for a day, and by a template before and after', async () => {
  const vendor = await meta()
  const dir = await mkdtemp(join(tmpdir(), 'carillon-providers-'))
  const file = join(dir, 'providers.yaml')
  await writeFile(
    file,
    `- provider: whatsapp-cloud
  settings:
    phoneNumberId: '106540352242922'
    accessToken: a-token
    appSecret: ${SECRET}
    baseUrl: ${vendor.url}
    fallbackTemplate: { name: news, language: en_US }
`,
  )
  let now = new Date()
  const t = await testApp({ CARILLON_PROVIDERS_FILE: file }, { now: () => now })
  try {
    const as = t.tenant.adminKey
    const address = { channel: 'whatsapp', address: '+15551234567', verified: true }
    await t.call('PUT', '/api/users/wanda', { as, body: { addresses: [address] } })
    const says = async (body: string): Promise<string> => {
      const before = vendor.asked.length
      const sent = await t.call('POST', '/api/notifications', {
        as,
        body: { recipientId: 'wanda', channels: ['whatsapp'], body },
      })
      assert.equal(sent.status, 202, sent.text)
      return (await eventually('the message', async () => vendor.asked[before])).type
    }
    const writes = async (id: string): Promise<void> => {
      const timestamp = String(Math.floor(now.getTime() / 1000))
      const message = { from: '15551234567', id, timestamp, type: 'text', text: { body: 'Where is it?' } }
      const raw = JSON.stringify({
        object: 'whatsapp_business_account',
        entry: [
          {
            id: '1',
            changes: [{ field: 'messages', value: { messaging_product: 'whatsapp', messages: [message] } }],
          },
        ],
      })
      const signature = createHmac('sha256', SECRET).update(raw).digest('hex')
      const { status, text } = await t.call('POST', '/webhooks/whatsapp-cloud', {
        raw,
        headers: { 'content-type': 'application/json', 'x-hub-signature-256': `sha256=${signature}` },
      })
      assert.equal(status < 300, true, text)
    }

    assert.equal(await says('Order 17 is on its way'), 'template')
    await writes('wamid.in.1')
    assert.equal(await says('It comes at noon'), 'text')
    now = new Date(now.getTime() + 25 * 3_600_000)
    assert.equal(await says('It is there'), 'template')

    // What we know of the number is not shown, and goes with it.
    await writes('wamid.in.2')
    assert.equal(await says('You are welcome'), 'text')
    const { body: wanda } = await t.call('GET', '/api/users/wanda', { as })
    assert.equal(JSON.stringify(wanda).includes('wroteAt'), false)
    const path = `/api/users/wanda/addresses/${wanda.addresses[0].id}`
    const patched = await t.call('PATCH', path, { as, body: { address: '+15557654321', verified: true } })
    assert.equal(patched.status, 200, patched.text)
    assert.equal(await says('Hello, new number'), 'template')
  } finally {
    await t.stop()
    await vendor.close()
    await rm(dir, { recursive: true, force: true })
  }
})
