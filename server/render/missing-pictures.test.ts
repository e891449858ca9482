import assert from 'node:assert/strict'
import { test } from 'node:test'
import { missingPictures } from './missing-pictures.ts'

test('pictures that nobody uploaded are named, with the text that names them', () => {
  const texts = {
    channels: {
      email: {
        subject: 'asset "none"',
        html: `<img src="{{asset "logo"}}"><img src='{{asset 'gone'}}'>{{#if x}}{{asset "gone"}}{{/if}}`,
      },
      push: { image: '{{default (asset "hero") data.image}}', body: '{{asset data.name}}' },
    },
    translations: { de: { body: '{{ asset "a/b" }}' } },
  }
  assert.deepEqual(missingPictures(texts, { logo: 'https://x' }), [
    { field: '/channels/email/html', message: 'There is no picture called "gone"' },
    { field: '/channels/push/image', message: 'There is no picture called "hero"' },
    { field: '/translations/de/body', message: 'There is no picture called "a/b"' },
  ])
  const partials = { head: '{{asset "gone"}}' }
  assert.equal(missingPictures({ ...texts, partials }, { logo: '' }).at(-1)!.field, '/partials/head')
  assert.deepEqual(missingPictures(texts, { logo: '', gone: '', hero: '', 'a/b': '' }), [])
})
