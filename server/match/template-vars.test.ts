import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Json } from '../types.ts'
import { promises } from './template-vars.ts'

test('a schema promises what it requires and does not let be null', () => {
  const of = (property: Json, required: string[] = ['n']): Json => ({ properties: { n: property }, required })
  for (const [schema, promised] of [
    [of({ type: 'string' }), true],
    [of({ type: ['string', 'number'] }), true],
    [of({ enum: ['a', 'b'] }), true],
    [of({ const: 3 }), true],
    [{ allOf: [{ type: 'object' }, of({ type: 'object' })] }, true],
    [of({ type: 'string' }, []), false],
    [of({ type: ['string', 'null'] }), false],
    [of({ type: 'null' }), false],
    [of({ enum: ['a', null] }), false],
    [of({ const: null }), false],
    [of({}), false],
    [of(true), false],
    [{ required: ['n'] }, false],
    [{ required: ['toString'], properties: {} }, false],
    [true, false],
    [null, false],
    [undefined, false],
  ] as const) {
    assert.equal(promises(schema as Json, 'n'), promised, JSON.stringify(schema))
  }
})
