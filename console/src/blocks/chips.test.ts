import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { labelOf, partsOf } from './chips.ts'

test('a text cut into words and tags is the same text again', () => {
  const piece = fc.oneof(
    fc.string(),
    fc.constantFrom('{{name}}', '{{#if a}}', '{{', '}}', '{{{x}}}', '{{a}}{{b}}'),
  )
  fc.assert(
    fc.property(fc.array(piece), pieces => {
      const text = pieces.join('')
      const parts = partsOf(text)
      assert.equal(parts.map(part => ('text' in part ? part.text : part.tag)).join(''), text)
      assert.ok(parts.every(part => ('text' in part ? part.text !== '' : part.label !== part.tag)))
    }),
  )
})

test('tags are said in words', () => {
  assert.deepEqual(
    [
      '{{name}}',
      '{{#if total}}',
      '{{#if (gt total 3)}}',
      '{{#unless paid}}',
      '{{else}}',
      '{{/if}}',
      '{{#each lines}}',
      '{{/each}}',
      '{{t "hello"}}',
      '{{date due style="long"}}',
    ].map(labelOf),
    [
      'name',
      'if total',
      'if total > 3',
      'if not paid',
      'otherwise',
      'end',
      'for each of lines',
      'end of list',
      'message: hello',
      'date due style="long"',
    ],
  )
})
