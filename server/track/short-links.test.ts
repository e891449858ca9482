import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import type { Queryable } from '../db/pool.ts'
import type { PlannedLink } from '../ledger/plan.ts'
import { CODE_LENGTH } from '../text-links.ts'
import { trackingLinks } from './links.ts'
import { shortLinks } from './short-links.ts'

const KEY = randomBytes(32)
const PUBLIC = 'https://c.example'
const NOW = new Date('2026-11-21T12:00:00Z')
const LONG = 'https://shop.example/orders/7?token=secret&from=a-long-campaign#part'
const to = { tenantId: 7, notificationId: newId(), channel: 'sms' } as const
const maker = (keys: Buffer[] = [KEY]) =>
  shortLinks({
    publicUrl: PUBLIC,
    keys,
    keptMs: 1_000,
    links: trackingLinks({ publicUrl: PUBLIC, keys: [KEY] }),
  })
const of = (noted = true, who: Parameters<ReturnType<typeof maker>['of']>[0] = to) =>
  maker().of(who, () => noted, NOW)
const codesOf = (text: string): string[] => Array.from(text.matchAll(/\/s\/(\w+)/g), ([, code]) => code!)

/** The table, as far as one statement asks it. */
const table = (rows: readonly PlannedLink[]): Queryable =>
  ({
    one: async (_: unknown, [names, now]: [Buffer[], Date]) =>
      rows.find(({ hash, expiresAt }) => names.some(name => name.equals(hash)) && expiresAt > now),
  }) as unknown as Queryable

test('a short link leads where the long one did, of the message it was in, whatever the text around', async () => {
  await fc.assert(
    fc.asyncProperty(
      // With an opening bracket of its own, a link may end in a closing one.
      fc.webUrl({ withQueryParameters: true, withFragments: true }).filter(url => !url.includes('(')),
      fc.constantFrom('', ' ', '. ', ', and', ') ', '\n', '!'),
      fc.boolean(),
      async (url, after, noted) => {
        const links = of(noted)
        const long = `${url}${url.includes('?') || url.includes('#') ? '' : '/'}${'x'.repeat(40)}`
        const text = links.shorten(`(See ${long}${after}`)
        const [code] = codesOf(text)
        assert.equal(text, `(See ${PUBLIC}/s/${code}${after}`)
        assert.equal(code!.length, CODE_LENGTH)
        const found = await maker().find(table(links.kept(text)), code!, NOW)
        assert.deepEqual(found, { ...to, noted, target: new URL(long).href })
      },
    ),
  )
})

test('a link may end in as many brackets as there is room for', () => {
  const link = `http://a.example/${'('.repeat(40)}x`
  const { shorten } = of()
  const [, code] = /\/s\/(\w+)/.exec(shorten(`${link}${')'.repeat(40)}`))!
  // Each of its own is part of it, those of the text around are not. A thousand of the longest used to take a minute.
  const text = shorten(`${link}${')'.repeat(2_000)} `.repeat(1_000))
  assert.equal(text, `${PUBLIC}/s/${code}${')'.repeat(1_960)} `.repeat(1_000))
})

test('texts keep what is no long link, and what ends a sentence', () => {
  const { shorten, kept } = of()
  for (const same of [
    'No link at all',
    'http://a.example/b',
    `${PUBLIC}/s/${'0'.repeat(CODE_LENGTH)}`,
    `${PUBLIC}/u/${'x'.repeat(100)}`,
    `ftp://shop.example/${'x'.repeat(100)}`,
    `javascript:alert("${'x'.repeat(100)}")`,
    `https://shop.example/${'x'.repeat(3_000)}`,
  ]) {
    assert.equal(shorten(same), same)
    assert.deepEqual(kept(same), [])
  }
  const link = `${PUBLIC}/s/${codesOf(shorten(LONG))[0]}`
  for (const [before, after] of [
    ['Go: ', '.'],
    ['(', ')'],
    ['"', '", he said'],
    ['<', '>'],
    ['Order ', '…?!'],
    ['*', '*'],
    ["'", "'."],
  ]) {
    assert.equal(shorten(`${before}${LONG}${after}`), `${before}${link}${after}`)
  }
  const wiki = 'https://en.wikipedia.org/wiki/Carillon_(instrument_of_bells)'
  assert.equal(codesOf(shorten(`${wiki}.`)).length, 1)
  assert.equal(codesOf(shorten(`${wiki}.`))[0], codesOf(shorten(wiki))[0])
  assert.notEqual(codesOf(shorten(wiki))[0], codesOf(shorten(wiki.slice(0, -1)))[0])
  const twice = shorten(`${LONG} or ${LONG}`)
  assert.deepEqual([kept(twice).length, new Set(codesOf(twice)).size], [1, 1])
  assert.equal(shorten(twice), twice)
  const many = of().shorten(Array.from({ length: 30 }, (_, n) => `${LONG}${n}`).join(' '))
  assert.equal(codesOf(many).length, 20)
})

test('the same text says the same each time; another message, person or wish has a code of its own', () => {
  const first = of().shorten(LONG)
  assert.equal(of().shorten(LONG), first)
  for (const other of [
    of(false),
    of(true, { ...to, notificationId: newId() }),
    of(true, { ...to, channel: 'push' }),
    of(true, { ...to, tenantId: 8 }),
  ]) {
    assert.notEqual(other.shorten(LONG), first)
  }
  assert.notEqual(of().shorten(`${LONG}2`), first)
})

test('a row says nothing without its code, and a code nothing without its row', async () => {
  const links = of()
  const text = links.shorten(LONG)
  const [code] = codesOf(text)
  const kept = links.kept(text)
  assert.ok(!kept[0]!.box.includes('shop') && !kept[0]!.hash.includes(code!))
  const find = (name: string, rows = kept, at = NOW, keys = [KEY]) => maker(keys).find(table(rows), name, at)
  assert.equal(await find(code!, []), undefined)
  for (const other of ['', code!.slice(1), `${code}0`, '/'.repeat(CODE_LENGTH), 'a'.repeat(CODE_LENGTH)]) {
    assert.equal(await find(other), undefined)
  }
  for (let byte = 0; byte < kept[0]!.box.length; byte++) {
    const box = Buffer.from(kept[0]!.box)
    box[byte]! ^= 1
    assert.equal(await find(code!, [{ ...kept[0]!, box }]), undefined)
  }
  assert.equal(await find(code!, kept, new Date(NOW.getTime() + 1_000)), undefined, 'too old')
  assert.ok(await find(code!, kept, NOW, [KEY, randomBytes(32)]), 'after a change of the key')
  assert.equal(await find(code!, kept, NOW, [randomBytes(32)]), undefined)
})

test('a text of nothing but brackets takes no time', () => {
  const text = `https://a.example/${')'.repeat(200_000)} ${`https://a.example/${'('.repeat(1_000)}${')'.repeat(1_000)} `.repeat(50)}`
  assert.equal(of().shorten(text).length > 0, true)
})
