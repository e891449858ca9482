import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from 'typebox'
import { inWords, settingProblems } from './setting-problems.ts'

const closed = { additionalProperties: false }
const Schema = Type.Object(
  {
    key: Type.String(),
    from: Type.Optional(Type.String({ pattern: '^[A-Z]' })),
    proxy: Type.Optional(Type.Object({ host: Type.String() }, closed)),
  },
  closed,
)
const said = (value: unknown) =>
  settingProblems(Schema, value).map(({ field, message }) => `${field} ${message}`)

test('each field is named once, and no value is', () => {
  assert.deepEqual(said({ key: 'k', from: 'A' }), [])
  assert.deepEqual(said({ from: 'secret', kye: 'secret', proxy: { 'a/b': 'secret' } }).sort(), [
    '/from must match pattern "^[A-Z]"',
    '/key is missing',
    '/kye is not known',
    '/proxy/a~1b is not known',
    '/proxy/host is missing',
  ])
  assert.deepEqual(said([]), ['/ must be object'])
})

test('in words they are few', () => {
  const many = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`x${i}`, 1]))
  assert.match(inWords(settingProblems(Schema, { key: 'k', ...many })), /^\/x0 is not known; .*; and 3 more$/)
})
