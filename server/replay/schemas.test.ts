import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import { parse } from 'yaml'
import { AppError } from '../errors.ts'
import { rulePolicy } from '../match/policy.ts'
import { PolicySchema } from '../match/policy-schema.ts'
import { SCHEMA_NAMES, type SchemaName, schemaOf } from './schemas.ts'

const ajv = new Ajv2020({ strict: true, strictTypes: false, allowUnionTypes: true })
;(formats as unknown as typeof formats.default)(ajv)
const checkOf = (name: SchemaName) => ajv.compile(schemaOf(name))

test('each kind has a schema of its own that compiles strictly', () => {
  for (const name of SCHEMA_NAMES) {
    const schema = schemaOf(name)
    assert.equal(schema['$schema'], 'https://json-schema.org/draft/2020-12/schema')
    assert.ok(checkOf(name), name)
  }
})

test('the documents of the guide fit their schemas', () => {
  const guide = readFileSync(new URL('../../docs/guides/rules-as-code.md', import.meta.url), 'utf8')
  const blocks = [...guide.matchAll(/^```yaml\n# (\S+)\n([\s\S]*?)^```$/gm)]
  assert.ok(blocks.length >= 3)
  for (const [, file, text] of blocks) {
    const kind = file!.endsWith('.test.yaml') ? 'test' : (file!.split('/')[0] as SchemaName)
    const check = checkOf(kind)
    assert.ok(check(parse(text!)), `${file}: ${JSON.stringify(check.errors)}`)
  }
})

test('what a policy may hold is the same in its schema and where it is read', () => {
  /** The fields that reading knows, out of its refusal of one that it does not. */
  const known = (path: string[]): string[] => {
    const wrong = path.reduceRight<object>((inner, name) => ({ [name]: inner }), { nonsense: 1 })
    try {
      rulePolicy(wrong, 'policy')
    } catch (error) {
      assert.ok(error instanceof AppError)
      return / takes (.*)$/.exec(error.message)![1]!.split(', ').sort()
    }
    throw new Error('nonsense was taken')
  }
  const own = PolicySchema.properties as Record<string, { properties?: object; type?: string }>
  assert.deepEqual(Object.keys(own).sort(), known([]))
  for (const [name, schema] of Object.entries(own)) {
    if (schema.properties) assert.deepEqual(Object.keys(schema.properties).sort(), known([name]), name)
  }
})

test('a policy that fits nothing is told by the schema too', () => {
  const check = checkOf('rules')
  const rule = { name: 'x', channels: ['email'], recipientSelector: { users: ['a'] } }
  assert.equal(check(rule), true)
  for (const policy of [
    { digest: { windowSeconds: -1 } },
    { digest: { retain: 'some' } },
    { escalation: [{ afterSeconds: 5, unless: 'bored', channels: ['email'] }] },
    { state: { key: [] } },
    { quiet: true },
  ]) {
    assert.equal(check({ ...rule, policy }), false, JSON.stringify(policy))
  }
})

test('a text of a template may stand in a file, and nothing else may', () => {
  const check = checkOf('templates')
  const file = { file: 'email/goal.hbs' }
  const whole = {
    name: 'x',
    channels: { email: { subject: 'x', html: file }, default: { body: file } },
    translations: { de: { body: file }, fr: { sms: { body: file } } },
    partials: { a: file, b: 'text' },
  }
  assert.ok(check(whole), JSON.stringify(check.errors))
  for (const wrong of [
    { ...whole, name: file },
    { ...whole, channels: { email: { html: { file: 1 } } } },
    { ...whole, channels: { email: { html: { file: 'a', more: 1 } } } },
    { ...whole, channels: { email: { html: 'x', image: file } } },
    { ...whole, partials: { a: {} } },
  ]) {
    assert.equal(check(wrong), false, JSON.stringify(wrong))
  }
})
