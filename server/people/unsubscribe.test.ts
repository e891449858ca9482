import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { derivedKeys, parseMasterKeys } from '../db/seal.ts'
import { CHANNELS } from '../types.ts'
import { unsubscribeLinks } from './unsubscribe.ts'

const links = unsubscribeLinks({ publicUrl: 'https://n.example', key: randomBytes(32) })
const tokenOf = (url: string) => url.slice('https://n.example/u/'.length)

const person = fc.record({
  tenantId: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  userId: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 }).filter(id => id.isWellFormed()),
  channel: fc.constantFrom(...CHANNELS),
  id: fc.option(
    fc.constant(0).map(() => newId()),
    { nil: undefined },
  ),
})

test('a link names the person, the channel and the notification it was made for', () => {
  fc.assert(
    fc.property(person, ({ tenantId, userId, channel, id }) => {
      const url = links.urlFor(tenantId, userId, channel, id)
      assert.match(url, /^https:\/\/n\.example\/u\/[A-Za-z0-9_-]+$/)
      const expected = { tenantId, userId, channel, ...(id !== undefined && { notificationId: id }) }
      assert.deepEqual(links.read(tokenOf(url)), expected)
    }),
  )
})

test('a user id of 255 characters of four bytes fits', () => {
  const userId = '\u{1f514}'.repeat(255)
  assert.equal(links.read(tokenOf(links.urlFor(1, userId, 'email', newId())))?.userId, userId)
})

test('one bit changed anywhere, cut off, lengthened or spelled otherwise, and it is no link', () => {
  const token = tokenOf(links.urlFor(7, 'alice', 'email', newId()))
  const bytes = Buffer.from(token, 'base64url')
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const other = Buffer.from(bytes)
    other[bit >> 3]! ^= 1 << (bit & 7)
    assert.equal(links.read(other.toString('base64url')), undefined, `bit ${bit}`)
  }
  for (let end = 0; end < bytes.length; end++) {
    assert.equal(links.read(bytes.subarray(0, end).toString('base64url')), undefined)
  }
  for (const other of [`${token}A`, `${token}=`, ` ${token}`, `${token}.`, 'x'.repeat(100_000), '']) {
    assert.equal(links.read(other), undefined)
  }
})

test('links outlive a change of the master key while the old one is in the ring, and no longer', () => {
  const [old, young] = [randomBytes(32).toString('hex'), randomBytes(32).toString('hex')]
  const withRing = (ring: string) =>
    unsubscribeLinks({ publicUrl: 'https://n.example', key: derivedKeys(ring, 'unsubscribe') })
  const url = withRing(old).urlFor(1, 'alice', 'email')
  const rotated = withRing(`0:${old},1:${young}`)
  assert.equal(rotated.read(tokenOf(url))?.userId, 'alice')
  assert.equal(withRing(`1:${young}`).read(tokenOf(url)), undefined)
  // New ones are signed by the newest.
  assert.equal(withRing(`1:${young}`).read(tokenOf(rotated.urlFor(1, 'bob', 'email')))?.userId, 'bob')
})

test('derived keys differ by master key and label, are none of the ring, and are always the same', () => {
  const ring = parseMasterKeys(`0:${'11'.repeat(32)},1:${'22'.repeat(32)}`)
  const all = [
    ...derivedKeys(ring, 'unsubscribe'),
    ...derivedKeys(ring, 'other'),
    ...ring.map(({ key }) => key),
  ]
  assert.equal(new Set(all.map(key => key.toString('hex'))).size, 6)
  // Links in people's mailboxes depend on these bytes: computed with `openssl kdf … HKDF`.
  assert.equal(
    derivedKeys(ring, 'unsubscribe')[0]!.toString('hex'),
    '86b86be6f5849e1ef9ae8c0de3808371c3fe9030c68ce894ddeeee2c47592c66',
  )
})

test('links without a key are refused at start', () => {
  assert.throws(() => unsubscribeLinks({ publicUrl: 'https://n.example', key: [] }), /need a key/)
})
