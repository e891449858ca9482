import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { trackingLinks } from './links.ts'
import { trackedHtml } from './rewrite.ts'

const PUBLIC = 'https://carillon.example'
const links = trackingLinks({ publicUrl: PUBLIC, keys: [randomBytes(32)] })
const to = { tenantId: 1, notificationId: newId(), channel: 'email' } as const
const clicks = (html: string) => trackedHtml(html, to, { clicks: true }, links)
const opens = (html: string) => trackedHtml(html, to, { opens: true }, links)

/** Where each of our links in it leads. */
const targets = (html: string): string[] =>
  Array.from(html.matchAll(/https:\/\/carillon\.example\/l\/([\w-]+)/g), ([, token]) => {
    return links.readLink(token!)!.target
  })

// covers: DIC-104
test('links lead through us to where they led before, and nothing else of the mail changes', () => {
  const before =
    '<p>a < b <A class=x HREF = "https://example.org/?a=1&amp;b=2" style="color:red">one</A>' +
    "<a title='2 > 1' href='http://example.org/it&#39;s'>two</a><a href=https://example.org/plain>three</a>" +
    '<area shape="rect" href="https://example.org/map"><abbr href="https://example.org/no">x</abbr></p>'
  const after = clicks(before)
  assert.deepEqual(targets(after), [
    'https://example.org/?a=1&b=2',
    "http://example.org/it's",
    'https://example.org/plain',
    'https://example.org/map',
  ])
  const back = after
    .replace(/"https:\/\/carillon\.example\/l\/[\w-]+"/, '"https://example.org/?a=1&amp;b=2"')
    .replace(/"https:\/\/carillon\.example\/l\/[\w-]+"/, "'http://example.org/it&#39;s'")
    .replace(/"https:\/\/carillon\.example\/l\/[\w-]+"/, 'https://example.org/plain')
    .replace(/"https:\/\/carillon\.example\/l\/[\w-]+"/, '"https://example.org/map"')
  assert.equal(back, before)
})

test('what is no page, is ours, or wants to be left alone stays as it is', () => {
  for (const html of [
    '<a href="mailto:a@example.org">',
    '<a href="tel:+15551234567">',
    '<a href="#top">',
    '<a href="javascript:alert(1)">',
    '<a name="https://example.org/">',
    '<a data-href="https://example.org/">',
    `<a href="${PUBLIC}/u/abc">`,
    `<a href="${PUBLIC}/u/abc/preferences">`,
    '<a data-no-track href="https://example.org/">',
    '<a href="https://example.org/" data-no-track="">',
    '<a href="https://example.org/&unknown;">',
    '<a href>',
    '<a href="https://example.org/',
    'a href="https://example.org/"',
  ]) {
    assert.equal(clicks(html), html)
  }
  // The words alone are no attribute.
  assert.equal(targets(clicks('<a title="data-no-track" href="https://example.org/">')).length, 1)
})

test('a template can keep all of its mails from being tracked', () => {
  for (const tag of ['<html data-no-track>', '<body class="x" data-no-track>', '<meta data-no-track>']) {
    const html = `${tag}<a href="https://example.org/">x</a></body>`
    assert.equal(trackedHtml(html, to, { opens: true, clicks: true }, links), html)
  }
})

test('the picture is the last thing in the body, and says nothing to a screen reader', () => {
  const after = opens('<html><body><p>x</p></BODY></html>')
  assert.match(
    after,
    /<p>x<\/p><img src="https:\/\/carillon\.example\/i\/[\w-]+" width="1" height="1" alt=""[^>]*><\/BODY><\/html>$/,
  )
  assert.match(opens('no body'), /^no body<img [^>]+>$/)
  assert.equal(targets(opens('<a href="https://example.org/">x</a>')).length, 0)
})

test('any text comes through: no more is changed than values of href, in time that grows with its length alone', () => {
  const bit = fc.constantFrom(
    '<a ',
    '<a',
    ' href=',
    '"',
    "'",
    '>',
    'https://example.org/',
    ' ',
    '&amp;',
    '=',
    'x',
    '<',
    '/',
  )
  fc.assert(
    fc.property(fc.array(bit, { maxLength: 60 }), bits => {
      const html = bits.join('')
      const after = clicks(html)
      const wrapped = targets(after)
      const rest = after.replaceAll(/"https:\/\/carillon\.example\/l\/[\w-]+"/g, '')
      assert.ok(rest.length <= html.length)
      if (wrapped.length === 0) assert.equal(after, html)
    }),
    { numRuns: 2_000 },
  )
  // Each of these is quadratic for a search that starts again after every failure: minutes, not milliseconds.
  for (const piece of ['<a "', "<a '", '<a href', '<a  ', '<a href=" ', '<a =']) {
    const html = piece.repeat(300_000)
    assert.equal(clicks(html).length >= html.length, true)
  }
})
