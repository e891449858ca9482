import assert from 'node:assert/strict'
import { test } from 'node:test'
import { documentOf } from './document.ts'
import { insertionsFor, itemFields } from './insertions.ts'

const document = documentOf({
  name: 'x',
  description: '',
  category: '',
  tags: [],
  enabled: true,
  locale: 'en',
  channels: {},
  translations: {},
  variables: [
    { name: 'total', type: 'number' },
    { name: 'due', type: 'date' },
    { name: 'first name' },
    { name: 'lines', type: 'array', default: [{ what: 'Tea', price: 3 }] },
    { name: '' },
  ],
  messages: { en: { hello: 'Hello' } },
  partials: {},
  schemaVersion: '1.0',
})

test('each variable goes in as its type is best read', () => {
  const entries = insertionsFor(document).flatMap(group => group.entries)
  const textOf = (label: string) => entries.find(one => one.label === label)?.text
  assert.equal(textOf('total'), '{{number total}}')
  assert.equal(textOf('due'), '{{date due}}')
  assert.equal(textOf('first name'), '{{data.[first name]}}')
  assert.equal(textOf('hello'), '{{t "hello"}}')
  assert.equal(textOf('lines'), undefined, 'a list is no text')
})

test('in plain texts conditions and repetition go around what is selected; in a mail they are blocks', () => {
  const logic = insertionsFor(document, { logic: true }).flatMap(group => group.entries)
  assert.deepEqual(
    logic.find(one => one.label === '… total'),
    { label: '… total', text: '{{#if total}}', after: '{{/if}}' },
  )
  assert.deepEqual(
    logic.find(one => one.label === '… each of lines'),
    { label: '… each of lines', text: '{{#each lines}}', after: '{{what}}{{/each}}' },
  )
  assert.ok(insertionsFor(document).every(group => group.entries.every(one => one.after === undefined)))
})

test('the fields of an item are those of the default, else of the sample, else the item itself', () => {
  assert.deepEqual(itemFields(document.variables, {}, 'lines'), ['what', 'price'])
  assert.deepEqual(itemFields([{ name: 'a' }], { a: [{ b: 1 }] }, 'a'), ['b'])
  assert.deepEqual(itemFields([{ name: 'a' }], { a: ['text'] }, 'a'), ['this'])
  assert.deepEqual(itemFields([], {}, ''), ['this'])
})
