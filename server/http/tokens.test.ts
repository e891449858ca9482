import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import {
  exportJWK,
  exportPKCS8,
  exportSPKI,
  generateKeyPair,
  type JWTPayload,
  SignJWT,
  UnsecuredJWT,
} from 'jose'
import { AppError } from '../errors.ts'
import { type TokenSettings, tokenVerifier } from './tokens.ts'

const now = new Date('2026-11-21T12:00:00Z')
const SECRET = 'a secret of more than thirty-two bytes'
const seconds = (date: Date) => Math.floor(date.getTime() / 1000)
const claims = (more: JWTPayload = {}): JWTPayload => ({
  sub: 'alice',
  tenant: 'default',
  exp: seconds(now) + 60,
  ...more,
})

const sign = (
  payload: JWTPayload,
  key: Parameters<SignJWT['sign']>[0] = Buffer.from(SECRET),
  alg = 'HS256',
  kid?: string,
) => new SignJWT(payload).setProtectedHeader({ alg, kid }).sign(key)

const verify = (settings: TokenSettings, token: string) => tokenVerifier(settings).verify(token, now)

test('each algorithm is believed with its own kind of key', async () => {
  for (const alg of ['HS256', 'HS384', 'HS512'] as const) {
    const secret = Buffer.alloc(64, 1)
    assert.equal((await verify({ secret }, await sign(claims(), secret, alg)))?.subject, 'alice', alg)
  }
  for (const alg of ['RS256', 'PS384', 'ES256', 'ES384', 'EdDSA'] as const) {
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
    const token = await sign(claims(), privateKey, alg)
    assert.equal((await verify({ publicKey: await exportSPKI(publicKey) }, token))?.subject, 'alice', alg)
    const jwk = JSON.stringify(await exportJWK(publicKey))
    assert.equal((await verify({ publicKey: jwk }, token))?.subject, 'alice', `${alg} as JWK`)
    assert.equal((await verify({ publicKey: `{"keys":[${jwk}]}` }, token))?.subject, 'alice', `${alg} as set`)

    const stranger = await generateKeyPair(alg)
    const forged = await sign(claims(), stranger.privateKey, alg)
    assert.equal(await verify({ publicKey: await exportSPKI(publicKey) }, forged), undefined, `${alg} forged`)
  }
})

test('a key never serves an algorithm of the other kind', async () => {
  const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true })
  const pem = await exportSPKI(publicKey)
  // The classic: the public key, known to all, used as an HMAC secret (RFC 8725 §2.1).
  const confused = await sign(claims(), Buffer.from(pem))
  assert.equal(await verify({ publicKey: pem }, confused), undefined)
  assert.equal(await verify({ publicKey: pem, secret: SECRET }, confused), undefined)
  const rs = await sign(claims(), privateKey, 'RS256')
  assert.equal(await verify({ secret: SECRET }, rs), undefined)
  assert.equal((await verify({ publicKey: pem, secret: SECRET }, rs))?.subject, 'alice')
  assert.equal((await verify({ publicKey: pem, secret: SECRET }, await sign(claims())))?.subject, 'alice')
})

test('only allowed algorithms pass, and none never does', async () => {
  assert.equal(await verify({ secret: SECRET, algorithms: ['HS512'] }, await sign(claims())), undefined)
  assert.equal(await verify({ secret: SECRET }, new UnsecuredJWT(claims()).encode()), undefined)
  const unsigned = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${(await sign(claims())).split('.')[1]}.`
  assert.equal(await verify({ secret: SECRET }, unsigned), undefined)
})

test('issuer, audience and time must fit; the clocks may differ by half a minute', async () => {
  const settings = { secret: SECRET, issuer: 'https://id.example.org', audience: 'carillon' }
  const good = { iss: 'https://id.example.org', aud: ['other', 'carillon'] }
  const outcome = async (more: JWTPayload) =>
    (await verify(settings, await sign(claims({ ...good, ...more }))))?.subject
  assert.equal(await outcome({}), 'alice')
  assert.equal(await outcome({ iss: 'https://evil.example.org' }), undefined)
  assert.equal(await outcome({ iss: undefined }), undefined)
  assert.equal(await outcome({ aud: 'other' }), undefined)
  assert.equal(await outcome({ exp: seconds(now) - 29 }), 'alice')
  assert.equal(await outcome({ exp: seconds(now) - 31 }), undefined)
  assert.equal(await outcome({ nbf: seconds(now) + 29 }), 'alice')
  assert.equal(await outcome({ nbf: seconds(now) + 31 }), undefined)
  assert.equal(await outcome({ exp: undefined }), undefined, 'a token for ever is no token')
})

test('a token must name one user and one tenant', async () => {
  const outcome = async (more: JWTPayload, settings: Partial<TokenSettings> = {}) =>
    verify({ secret: SECRET, ...settings }, await sign(claims(more)))
  assert.equal(await outcome({ sub: undefined }), undefined)
  assert.equal(await outcome({ sub: '' }), undefined)
  assert.equal(await outcome({ sub: 'x'.repeat(256) }), undefined)
  assert.equal(await outcome({ sub: 'nul\0' }), undefined)
  assert.equal(await outcome({ sub: '\ud800' }), undefined)
  assert.equal(await outcome({ tenant: undefined }), undefined)
  assert.equal(await outcome({ tenant: 7 }), undefined)
  assert.equal((await outcome({ tenant: undefined }, { defaultTenant: 'acme' }))?.tenant, 'acme')
  assert.equal((await outcome({ tenant: 'b' }, { defaultTenant: 'acme' }))?.tenant, 'b')
  assert.equal((await outcome({ org: 'c' }, { tenantClaim: 'org' }))?.tenant, 'c')
})

test('roles come from the token, the highest known one; scopes limit when they are ours', async () => {
  const outcome = async (more: JWTPayload) => {
    const token = await verify({ secret: SECRET }, await sign(claims(more)))
    return [token?.role, token?.scopes]
  }
  assert.deepEqual(await outcome({}), ['user', null])
  assert.deepEqual(await outcome({ role: 'authenticated' }), ['user', null])
  assert.deepEqual(await outcome({ role: 'service' }), ['service', null])
  assert.deepEqual(await outcome({ roles: ['user', 'admin', 'service'] }), ['admin', null])
  assert.deepEqual(await outcome({ role: ['ADMIN'] }), ['user', null])
  assert.deepEqual(await outcome({ role: 'service', scope: 'openid events:write rules:read' }), [
    'service',
    ['events:write', 'rules:read'],
  ])
  assert.deepEqual(await outcome({ role: 'service', scp: ['events:read'] }), ['service', ['events:read']])
})

test('whatever is no token is refused', async () => {
  const token = await sign(claims())
  for (const bad of [
    '',
    'x',
    'a.b.c',
    token.slice(0, -2),
    `${token}.${token}`,
    'x'.repeat(10_000),
    '{}.{}.{}',
  ]) {
    assert.equal(await verify({ secret: SECRET }, bad), undefined, bad.slice(0, 40))
  }
})

test('unsafe settings stop the start', async () => {
  const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true })
  const pem = await exportSPKI(publicKey)
  for (const settings of [
    {},
    { secret: 'short' },
    { publicKey: 'not a key' },
    { publicKey: await exportPKCS8(privateKey) },
    { publicKey: pem, jwksUrl: 'https://id.example.org/keys' },
    { secret: SECRET, algorithms: ['RS256'] },
  ] satisfies TokenSettings[]) {
    assert.throws(() => tokenVerifier(settings), Error)
  }
})

test("an issuer's published keys are fetched once, and an outage is not the caller's fault", async t => {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true })
  const jwk = { ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }
  let requests = 0
  let status = 200
  const issuer = createServer((_request, response) => {
    requests++
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ keys: [jwk] }))
  })
  issuer.listen(0, '127.0.0.1')
  await once(issuer, 'listening')
  t.after(() => issuer.close())
  const jwksUrl = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}/keys`

  const verifier = tokenVerifier({ jwksUrl })
  const token = await sign(claims(), privateKey, 'ES256', 'k1')
  assert.equal((await verifier.verify(token, now))?.subject, 'alice')
  assert.equal((await verifier.verify(token, now))?.subject, 'alice')
  assert.equal(requests, 1)
  assert.equal(await verifier.verify(await sign(claims(), privateKey, 'ES256', 'unknown'), now), undefined)
  assert.equal(await verifier.verify('a.b.c', now), undefined)

  status = 500
  const fresh = tokenVerifier({ jwksUrl })
  const away = (error: unknown) => error instanceof AppError && error.code === 'external_service_error'
  await assert.rejects(fresh.verify(token, now), away)
  issuer.close()
  issuer.closeAllConnections()
  await assert.rejects(tokenVerifier({ jwksUrl }).verify(token, now), away)
})
