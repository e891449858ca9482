import assert from 'node:assert/strict'
import { test } from 'node:test'
import { shownMail } from './shown-mail.ts'

const inMode = (html: string, mode: 'light' | 'dark') =>
  shownMail(html, { mode, pictures: 'https://mail.example', here: 'http://127.0.0.1:1' })

const MAIL =
  '<html><head><meta name="color-scheme" content="light dark"><style>@media (prefers-color-scheme: dark) { p { color: red } }</style></head><body><p>Hi</p></body></html>'

test('a mail that knows dark mode is shown dark, and its own rules for it hold', () => {
  const dark = inMode(MAIL, 'dark')
  assert.match(dark, /color-scheme:dark!important/)
  assert.match(dark, /@media \(min-width: 0\) { p/)
  const light = inMode(MAIL, 'light')
  assert.match(light, /color-scheme:light!important/)
  assert.match(light, /@media \(max-width: 0\) { p/)
})

test('one that does not know it is left light; the words of a mail are left alone', () => {
  assert.match(
    inMode('<p>color-scheme is dark</p>', 'dark'),
    /^<style>:root{color-scheme:light!important}<\/style><p>color-scheme is dark<\/p>$/,
  )
  assert.match(
    inMode('<html><head><style>:root{color-scheme: light dark}</style></head></html>', 'dark'),
    /color-scheme:dark!/,
  )
})

test('uploaded pictures come from where the page is from, and nothing from elsewhere', () => {
  assert.match(
    inMode('<img src="https://mail.example/media/a/b.png">', 'light'),
    /src="http:\/\/127\.0\.0\.1:1\/media\/a\/b\.png"/,
  )
  const fonts =
    '<link href="https://f.example/x" rel="stylesheet" type="text/css"><style>@import url(https://f.example/y);p{}</style>'
  assert.match(inMode(fonts, 'light'), /^<style>[^<]*<\/style><style>p{}<\/style>$/)
})
