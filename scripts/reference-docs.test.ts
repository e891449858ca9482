import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { listSettings } from '../server/config.ts'
import { catalog } from '../server/deliver/catalog.ts'
import { ERRORS } from '../server/errors.ts'
import { METRICS } from '../server/observe/metrics.ts'
import { REASONS } from '../server/reasons.ts'
import { SOLUTIONS } from '../solutions/index.ts'
import { SCHEMA, consoleTypes } from './console-types.ts'
import { pages, REFERENCE } from './reference-docs.ts'

for (const [name, make] of Object.entries(pages)) {
  test(`docs/reference/${name} says what the code says`, () => {
    const advice = 'Run "node scripts/reference-docs.ts" and commit what it writes'
    assert.equal(readFileSync(join(REFERENCE, name), 'utf8'), make(), advice)
  })
}

test('the console knows the API as it is', async () => {
  const advice = 'Run "node scripts/reference-docs.ts" and commit what it writes'
  assert.equal(readFileSync(SCHEMA, 'utf8'), await consoleTypes(), advice)
})

test('nothing is left out of a page', () => {
  const expected = {
    'configuration.md': listSettings(SOLUTIONS).flatMap(one =>
      one.file ? [one.name, `${one.name}_FILE`] : [one.name],
    ),
    'errors.md': Object.keys(ERRORS),
    'metrics.md': Object.keys(METRICS),
    'providers.md': [...catalog.values()].flatMap(one => [
      one.id,
      ...Object.keys((one.settings as { properties?: object }).properties ?? {}),
    ]),
    'reasons.md': Object.keys(REASONS),
  }
  for (const [name, words] of Object.entries(expected)) {
    const text = pages[name]!()
    for (const word of words) assert.equal(text.split(`\`${word}\``).length > 1, true, `${word} in ${name}`)
  }
})
