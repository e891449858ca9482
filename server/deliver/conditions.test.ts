import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AppError } from '../errors.ts'
import { fitting, readConditions } from './conditions.ts'
import { exampleMessage } from './providers/conformance.ts'

const asked = async (when: unknown, message: Parameters<typeof exampleMessage>[0]): Promise<boolean> =>
  (await fitting(readConditions(when)))(exampleMessage(message))

test('a country is that of the number, also where countries share a calling code', async () => {
  for (const [to, country] of [
    ['+12125550123', 'US'],
    ['+14165550123', 'CA'],
    ['+442071838750', 'GB'],
    ['+4915112345678', 'DE'],
  ]) {
    assert.equal(await asked({ countries: [country] }, { to }), true, to)
    assert.equal(await asked({ countries: ['FR', 'AT'] }, { to }), false, to)
  }
  for (const to of ['someone@example.org', '+999123', '']) {
    assert.equal(await asked({ countries: ['US'] }, { to }), false, to)
  }
})

test('a domain is that of the address, with what lies below it and nothing that only ends alike', async () => {
  const when = { domains: ['example.org'] }
  assert.equal(await asked(when, { to: 'a@example.org' }), true)
  assert.equal(await asked(when, { to: 'a@Mail.EXAMPLE.org' }), true)
  assert.equal(await asked(when, { to: 'a@notexample.org' }), false)
  assert.equal(await asked(when, { to: 'example.org@elsewhere.net' }), false)
})

test('all that is named must fit', async () => {
  const when = { tenants: [7], priorities: ['CRITICAL', 'HIGH'] }
  assert.equal(await asked(when, { tenantId: 7, priority: 'HIGH' }), true)
  assert.equal(await asked(when, { tenantId: 7, priority: 'LOW' }), false)
  assert.equal(await asked(when, { tenantId: 8, priority: 'HIGH' }), false)
  assert.equal(await asked({}, {}), true)
})

test('a condition that nobody would understand is refused by its place', () => {
  for (const [when, place] of [
    [{ countries: ['Germany'] }, /countries\/0/],
    [{ countries: [] }, /countries/],
    [{ domains: ['@example.org'] }, /domains\/0/],
    [{ priorities: ['URGENT'] }, /priorities\/0/],
    [{ country: ['DE'] }, /country/],
    ['DE', /./],
  ] as const) {
    assert.throws(
      () => readConditions(when),
      (error: unknown) =>
        error instanceof AppError &&
        error.code === 'invalid_request' &&
        place.test(JSON.stringify(error.errors)),
      JSON.stringify(when),
    )
  }
})
