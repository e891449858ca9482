import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { trackingLinks } from './links.ts'

const KEY = randomBytes(32)
const PUBLIC = 'https://carillon.example'
const links = trackingLinks({ publicUrl: PUBLIC, keys: [KEY] })
const to = { tenantId: 7, notificationId: newId(), channel: 'email' } as const
const tokenOf = (url: string) => /\/[li]\/([\w-]+)$/.exec(url)![1]!

test('a link says where it goes and what it was in, whatever the target', () => {
  fc.assert(
    fc.property(fc.webUrl({ withQueryParameters: true, withFragments: true }), target => {
      const link = links.linkFor(to, target)
      assert.deepEqual(links.readLink(tokenOf(link!)), { ...to, target: new URL(target).href })
    }),
  )
  const idn = links.readLink(tokenOf(links.linkFor(to, 'https://exämple.org/ü?q=“x”')!))
  assert.equal(idn!.target, 'https://xn--exmple-cua.org/%C3%BC?q=%E2%80%9Cx%E2%80%9D')
})

test('only http and https become links: a redirect is never a script, a file or a place of ours', () => {
  for (const target of [
    'javascript:alert(1)',
    'data:text/html,x',
    'file:///etc/passwd',
    'ftp://example.org/',
    'mailto:a@example.org',
    'tel:+15551234567',
    '//example.org/',
    '/relative',
    '#part',
    '',
    'https://',
    `https://example.org/${'x'.repeat(2_000)}`,
  ]) {
    assert.equal(links.linkFor(to, target), undefined, target)
  }
  assert.equal(links.own(`${PUBLIC}/u/token`), true)
  assert.equal(links.own(`${PUBLIC}/u/token/preferences`), true)
  assert.equal(links.own(`${PUBLIC}/l/token`), true)
  assert.equal(links.own(`${PUBLIC}/about`), false)
  assert.equal(links.own(`${PUBLIC}.evil.example/u/token`), false)
})

test('no bit of a token can be changed, nor one kind taken for the other', () => {
  const token = tokenOf(links.linkFor(to, 'https://example.org/a')!)
  const bytes = Buffer.from(token, 'base64url')
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const forged = Buffer.from(bytes)
    forged[bit >> 3]! ^= 1 << (bit & 7)
    assert.equal(links.readLink(forged.toString('base64url')), undefined, `bit ${bit}`)
  }
  assert.equal(links.readPicture(token), undefined)
  assert.equal(links.readLink(tokenOf(links.pictureFor(to))), undefined)
  assert.deepEqual(links.readPicture(tokenOf(links.pictureFor(to))), to)
  for (const other of ['', `${token}A`, `${token}=`, token.slice(0, -1), ` ${token}`, 'x'.repeat(5_000)])
    assert.equal(links.readLink(other), undefined)
})

test('links outlive a change of the key, while the old one is in the ring', () => {
  const token = tokenOf(links.linkFor(to, 'https://example.org/')!)
  const next = randomBytes(32)
  assert.ok(trackingLinks({ publicUrl: PUBLIC, keys: [KEY, next] }).readLink(token))
  assert.equal(trackingLinks({ publicUrl: PUBLIC, keys: [next] }).readLink(token), undefined)
})
