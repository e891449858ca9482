import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Document, documentOf, languagesOf, missingIn, sampleOf, textsOf } from './document.ts'

const given = {
  name: 'x',
  description: '',
  category: '',
  tags: [],
  enabled: true,
  locale: 'en',
  channels: {
    default: { subject: 'Hi', body: 'Text' },
    email: { subject: 'Hi', mjml: '<mjml></mjml>', html: '<html>made</html>' },
    push: { title: 'Hi', body: 'x', html: '<p>own</p>' },
  },
  translations: { de: { subject: 'Hallo', body: 'Worte' }, fr: { push: { title: 'Salut', body: 'y' } } },
  variables: [{ name: 'a', type: 'number' as const, default: 3 }],
  messages: { en: { k: 'K' }, it: { k: '' } },
  partials: { line: '<p>x</p>' },
  schemaVersion: '2.1',
}

test('what was opened and not changed is sent as it was, but for what the server makes itself', () => {
  const document = documentOf(given)
  assert.deepEqual(textsOf(document), {
    locale: 'en',
    channels: { ...given.channels, email: { subject: 'Hi', mjml: '<mjml></mjml>' } },
    translations: { de: { default: given.translations.de }, fr: given.translations.fr },
    variables: given.variables,
    messages: { en: { k: 'K' } },
    partials: given.partials,
  })
  assert.equal(document.schemaVersion, '2.1')
})

test('a translation of the subject alone is kept, with the text of the original; an empty one is not sent', () => {
  const document: Document = {
    ...documentOf(given),
    translations: {
      de: { email: { subject: 'Hallo' }, push: { title: 'Hallo' }, default: {} },
      fr: { default: { body: '' } },
    },
  }
  assert.deepEqual(textsOf(document).translations, {
    de: { email: { subject: 'Hallo', mjml: '<mjml></mjml>' }, push: { title: 'Hallo', html: '<p>own</p>' } },
  })
})

test('what a language lacks is known, empty fields included', () => {
  const document = documentOf(given)
  assert.deepEqual(languagesOf(document), ['en', 'de', 'fr', 'it'])
  assert.deepEqual(missingIn(document, 'en'), [])
  assert.deepEqual(missingIn(document, 'de'), [])
  assert.deepEqual(missingIn(document, 'fr'), ['default', 'email'])
  const begun = { ...document, translations: { fr: { push: { title: '', body: '' } } } }
  assert.deepEqual(missingIn(begun, 'fr'), ['default', 'email', 'push'])
})

test('sample data has something of its type for each variable, its default first', () => {
  assert.deepEqual(
    sampleOf([
      { name: 'n', type: 'number', default: 14 },
      { name: 'order_id' },
      { name: 'dueDate', type: 'date' },
      { name: 'first_name', type: 'string' },
      { name: 'open', type: 'boolean', default: false },
      { name: '' },
    ]),
    { n: 14, order_id: 'A-1042', dueDate: '2026-12-24T09:30:00Z', first_name: 'Sam', open: false },
  )
})
