import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { newId } from '../db/ids.ts'
import { bounceAddresses } from './bounce-address.ts'

const KEY = randomBytes(32)
const open = (keys: Buffer[] = [KEY]) => bounceAddresses({ address: 'bounces@mail.example.org', keys })

test('an address names its notification, in any case of letters, and fits what servers take', () => {
  const addresses = open()
  for (let n = 0; n < 200; n++) {
    const id = newId()
    const address = addresses.addressFor(id)!
    assert.ok(address.split('@')[0]!.length <= 64)
    assert.match(address, /^bounces\+[a-z2-7]{42}@mail\.example\.org$/)
    assert.equal(addresses.read(address), id)
    assert.equal(addresses.read(address.toUpperCase()), id)
    assert.equal(addresses.find(`Return-Path: <${address}>\r\nTo: x`), id)
  }
  assert.equal(addresses.addressFor('not-an-id'), undefined)
  assert.equal(addresses.isBare('Bounces@mail.example.org'), true)
  assert.equal(addresses.isBare('bounces+@mail.example.org'), false)
})

test('no letter of it can be changed, and nobody can make one up', () => {
  const addresses = open()
  const address = addresses.addressFor(newId())!
  const [from, to] = [address.indexOf('+') + 1, address.indexOf('@')]
  for (let at = from; at < to; at++) {
    for (const letter of 'abcdefghijklmnopqrstuvwxyz234567') {
      if (letter === address[at]) continue
      const forged = address.slice(0, at) + letter + address.slice(at + 1)
      assert.equal(addresses.read(forged), undefined, forged)
    }
  }
  for (const other of [
    `x${address}`,
    `${address}.evil.example`,
    address.replace('mail', 'nail'),
    `<${address}>`,
    '',
  ])
    assert.equal(addresses.read(other), undefined, other)
  assert.equal(addresses.find(`x${address}`), undefined)
  assert.equal(open([randomBytes(32)]).read(address), undefined)
  assert.ok(open([KEY, randomBytes(32)]).read(address))
})
