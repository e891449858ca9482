import assert from 'node:assert/strict'
import { test } from 'node:test'
import { machineOf } from './machines.ts'

const of = (userAgent: string | undefined, purpose?: string) => machineOf({ userAgent, purpose })

test('programs that fetch without a reader are told from browsers and from proxies that load for a reader', () => {
  const chrome =
    'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36'
  assert.equal(of(chrome), undefined)
  assert.equal(
    of('Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)'),
    undefined,
  )
  assert.equal(of('YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html'), undefined)
  assert.equal(of('Mozilla/5.0'), 'apple-privacy')
  assert.equal(of(undefined), 'nameless')
  assert.equal(of(' '), 'nameless')
  assert.equal(of(chrome, 'prefetch;prerender'), 'prefetch')
  for (const name of [
    'Googlebot/2.1',
    'python-requests/2.32',
    'curl/8.5.0',
    'Slackbot-LinkExpanding 1.0',
    'Mimecast URL Scanner',
  ])
    assert.equal(of(name), 'program', name)
})
