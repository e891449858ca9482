import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import { CHANNELS, type Channel } from '../types.ts'
import { normalizeAddress } from './addresses.ts'

const refused = (channel: Channel, address: string) =>
  assert.throws(
    () => normalizeAddress(channel, address),
    (error: unknown) => error instanceof AppError && error.code === 'invalid_address',
    `${channel} ${address}`,
  )

test('e-mail: the domain is lower-cased and made ASCII, the local part is left alone', () => {
  for (const [given, stored] of [
    ['Ann.Lee+news@Example.ORG', 'Ann.Lee+news@example.org'],
    [' a@b.co ', 'a@b.co'],
    ["o'neil@sub.example.co.uk", "o'neil@sub.example.co.uk"],
    ['x@bücher.example', 'x@xn--bcher-kva.example'],
    ['x@xn--bcher-kva.example', 'x@xn--bcher-kva.example'],
    [`${'a'.repeat(64)}@example.org`, `${'a'.repeat(64)}@example.org`],
  ] as const) {
    assert.equal(normalizeAddress('email', given), stored)
  }
  for (const bad of [
    'plain',
    '@example.org',
    'a@',
    'a@b',
    'a@localhost',
    'a@127.0.0.1',
    'a@[127.0.0.1]',
    'a..b@example.org',
    '.a@example.org',
    'a.@example.org',
    'a b@example.org',
    'a@exam ple.org',
    'a@-example.org',
    'a@example-.org',
    'a@example..org',
    'Ann <a@example.org>',
    'a@example.org,b@example.org',
    'a@example.org\r\nRCPT TO:<b@example.org>',
    'a@example.org\nb',
    '"quoted"@example.org',
    'é@example.org',
    'a@b@example.org',
    'a@ex%41mple.org',
    'a@example.org/x',
    `${'a'.repeat(65)}@example.org`,
    `a@${'b'.repeat(64)}.org`,
    `a@${'b.'.repeat(130)}org`,
    `${'a'.repeat(64)}@${'b.'.repeat(95)}org`,
  ]) {
    refused('email', bad)
  }
})

test('phones are E.164, digits only', () => {
  for (const channel of ['sms', 'whatsapp', 'voice'] as const) {
    assert.equal(normalizeAddress(channel, '+41791234567'), '+41791234567')
    for (const bad of [
      '0791234567',
      '0041791234567',
      '+41 79 123 45 67',
      '+0791234567',
      '+1234567890123456',
      '+12',
      '+4179x',
    ])
      refused(channel, bad)
  }
})

test('webhooks are http or https without credentials', () => {
  assert.equal(normalizeAddress('webhook', 'HTTPS://Example.org:443/A?b=c#frag'), 'https://example.org/A?b=c')
  assert.equal(normalizeAddress('webhook', 'http://example.org'), 'http://example.org/')
  for (const bad of [
    'example.org',
    '/path',
    'ftp://example.org',
    'javascript:alert(1)',
    'https://user:pass@example.org',
    'https://user@example.org',
    'https://',
    `https://example.org/${'x'.repeat(1_500)}`,
  ]) {
    refused('webhook', bad)
  }
})

test('the other channels', () => {
  assert.equal(normalizeAddress('slack', 'C024BE91L'), 'C024BE91L')
  assert.equal(normalizeAddress('slack', '#ops-alerts'), '#ops-alerts')
  assert.equal(normalizeAddress('slack', 'Ann@EXAMPLE.org'), 'Ann@example.org')
  const hook = 'https://hooks.slack.com/services/T0/B0/x'
  assert.equal(normalizeAddress('slack', hook.replace('hooks', 'HOOKS')), hook)
  refused('slack', 'ops')
  refused('slack', hook.replace('https', 'http'))
  assert.equal(normalizeAddress('pagerduty', 'a'.repeat(32)), 'a'.repeat(32))
  refused('pagerduty', 'a'.repeat(31))
  for (const channel of ['in_app', 'push', 'web_push'] as const) refused(channel, 'anything')
  for (const channel of ['discord', 'teams'] as const) {
    const url = 'https://example.org/api/webhooks/1/x?sig=y'
    assert.equal(normalizeAddress(channel, `${url}#top`), url)
    refused(channel, url.replace('https', 'http'))
    refused(channel, 'ops')
  }
  for (const chat of ['42', '-1001234567890', '@ops_alerts']) {
    assert.equal(normalizeAddress('telegram', chat), chat)
  }
  for (const chat of ['0', '+41791234567', '@ab', 'ops', '1'.repeat(17)]) refused('telegram', chat)
  assert.equal(normalizeAddress('ntfy', 'ops-alerts'), 'ops-alerts')
  assert.equal(normalizeAddress('ntfy', 'https://NTFY.sh/ops'), 'https://ntfy.sh/ops')
  refused('ntfy', 'ops alerts')
  refused('ntfy', 'a'.repeat(65))
})

test('whatever the text: refused as an address, or one spelling that stays as it is and fits its index', () => {
  const local = fc.stringMatching(/^[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,66}$/)
  const domain = fc.oneof(fc.domain(), fc.stringMatching(/^[\p{L}\p{N}.-]{1,40}$/u), fc.string())
  const text = fc.oneof(
    fc.tuple(local, domain).map(parts => parts.join('@')),
    fc.emailAddress(),
    fc.webUrl({ withFragments: true, withQueryParameters: true }),
    fc.stringMatching(/^\+?[0-9 ()-]{0,18}$/),
    fc.string({ unit: 'binary' }),
  )
  fc.assert(
    fc.property(fc.constantFrom(...CHANNELS), text, (channel, given) => {
      let stored: string
      try {
        stored = normalizeAddress(channel, given)
      } catch (error) {
        assert.ok(error instanceof AppError && error.code === 'invalid_address', String(error))
        return
      }
      assert.equal(normalizeAddress(channel, stored), stored)
      assert.ok(stored.length >= 1 && Buffer.byteLength(stored) <= 1_500)
      assert.ok([...stored].every(c => c > ' ' && c !== '\u007f'))
      if (channel === 'email') {
        assert.equal(
          stored.slice(0, stored.lastIndexOf('@')),
          given.trim().slice(0, given.trim().lastIndexOf('@')),
        )
      }
    }),
    { numRuns: 2_000 },
  )
})
