import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { toInstant, truncate } from './helpers.ts'
import { compileTemplate } from './template.ts'

const render = (source: string, data: Record<string, unknown> = {}, locale = 'en', timezone = 'UTC') =>
  // ICU puts narrow and non-breaking spaces into times and amounts.
  compileTemplate(source, 'none')
    .render({ names: data, layers: [], locale, timezone })
    .replaceAll(/[\u202f\u00a0]/g, ' ')

test('comparing', () => {
  const data = { n: 5, s: '10', t: 'b', no: null, empty: [] }
  const yes = (condition: string) => render(`{{#if ${condition}}}y{{else}}n{{/if}}`, data)
  assert.equal(yes('(eq n 5)'), 'y')
  assert.equal(yes('(eq n "5")'), 'n')
  assert.equal(yes('(eq no missing)'), 'y')
  assert.equal(yes('(ne t "a")'), 'y')
  assert.equal(yes('(gt s n)'), 'y', 'numbers in texts compare as numbers')
  assert.equal(yes('(lt t "c")'), 'y')
  assert.equal(yes('(gte n 5)'), 'y')
  assert.equal(yes('(lte n 4)'), 'n')
  assert.equal(yes('(gt no 0)'), 'n')
  assert.equal(yes('(lte no 0)'), 'n', 'what has no order is neither less nor equal')
  assert.equal(yes('(and n t)'), 'y')
  assert.equal(yes('(and n empty t)'), 'n', 'an empty list is false')
  assert.equal(yes('(or no empty)'), 'n')
  assert.equal(yes('(not empty)'), 'y')
  assert.equal(
    render('{{or no t}} {{and n t}} {{default missing "d"}} {{default "" "e"}} {{default 0 "f"}}', data),
    'b b d e 0',
  )
})

test('words', () => {
  assert.equal(render('{{upper "straße"}} {{lower "ÀB"}}'), 'STRASSE àb')
  assert.equal(render('{{upper "i"}}', {}, 'tr'), 'İ')
  assert.equal(
    render('{{join l}} {{join l "/"}} {{join s}}', { l: ['a', 1, null], s: 'text' }),
    'a, 1,  a/1/ text',
  )
  assert.equal(render('{{json o}} {{json missing}}', { o: { a: '"' } }), '{"a":"\\""} null')
  assert.equal(render('{{urlencode u}}', { u: 'a b&c/ä\ud800' }), 'a%20b%26c%2F%C3%A4%EF%BF%BD')
  assert.equal(
    render('{{plural 1 "item" "items"}} {{plural 2 "item" "items"}} {{plural 0 "item" "items"}}'),
    'item items items',
  )
  assert.equal(
    render('{{plural n one="plik" few="pliki" many="plików" other="pliku"}}', { n: 3 }, 'pl'),
    'pliki',
  )
})

test('a cut is never longer than asked and splits nothing', () => {
  assert.equal(truncate('hello world', 8), 'hello w…')
  assert.equal(truncate('hello', 5), 'hello')
  assert.equal(truncate('ab👩‍👩‍👧cd', 9), 'ab…', 'a family is one character')
  assert.equal(render('{{truncate t 6 "..."}}', { t: 'abcdefghij' }), 'abc...')
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme' }),
      fc.nat(40),
      fc.constantFrom('…', '...', ''),
      (text, max, suffix) => {
        const cut = truncate(text, max, suffix)
        assert.ok(cut.length <= max || text.length <= max)
        if (text.length <= max) assert.equal(cut, text)
        else
          assert.ok(
            cut.isWellFormed() && text.startsWith(cut.slice(0, Math.max(0, cut.length - suffix.length))),
          )
      },
    ),
  )
})

test('dates follow the reader’s zone and locale, never the server’s', () => {
  const at = '2026-11-21T23:30:00Z'
  assert.equal(render('{{date at}}', { at }), 'Nov 21, 2026, 11:30 PM')
  assert.equal(render('{{date at}}', { at }, 'de', 'Europe/Berlin'), '22.11.2026, 00:30')
  assert.equal(render('{{date at "date" style="long"}}', { at }, 'de', 'Europe/Berlin'), '22. November 2026')
  assert.equal(render('{{date at "time"}}', { at }, 'en-GB', 'Asia/Tokyo'), '08:30')
  assert.equal(
    render('{{date at timezone="America/New_York" locale="en-GB" format="time"}}', { at }),
    '18:30',
  )
  assert.equal(
    render('{{date at "iso"}}', { at: 1_795_303_800 }),
    '2026-11-21T23:30:00.000Z'.replace('11-21T23:30', new Date(1_795_303_800_000).toISOString().slice(5, 16)),
  )
  assert.equal(render('{{date at}}', { at: 'tomorrow' }), 'tomorrow', 'what is no date stays as it is')
  assert.equal(render('{{date missing}}'), '')
  assert.equal(render('{{date at "time"}}', { at }, 'no such locale', 'Nowhere/At_All'), '11:30 PM')
})

test('instants: ISO texts without an offset are UTC; numbers are seconds or milliseconds', () => {
  const iso = (value: unknown) => toInstant(value)?.toISOString()
  assert.equal(iso('2026-01-02'), '2026-01-02T00:00:00.000Z')
  assert.equal(iso('2026-01-02T03:04'), '2026-01-02T03:04:00.000Z')
  assert.equal(iso('2026-01-02 03:04:05.678901'), '2026-01-02T03:04:05.678Z')
  assert.equal(iso('2026-01-02T03:04:05+02'), '2026-01-02T01:04:05.000Z')
  assert.equal(iso('2026-01-02T03:04:05-0530'), '2026-01-02T08:34:05.000Z')
  assert.equal(iso(1_700_000_000), '2023-11-14T22:13:20.000Z')
  assert.equal(iso(1_700_000_000_123), '2023-11-14T22:13:20.123Z')
  for (const bad of ['', 'x', '2026-13-01', '01/02/2026', Number.NaN, 1e300, null, {}, true]) {
    assert.equal(iso(bad), undefined, JSON.stringify(bad))
  }
})

test('numbers follow the reader’s locale and keep all their digits', () => {
  assert.equal(render('{{number n}}', { n: 1234567.891 }, 'de'), '1.234.567,891')
  assert.equal(render('{{number n currency="EUR"}}', { n: 1234.5 }, 'de'), '1.234,50 €')
  assert.equal(render('{{number n currency="JPY"}}', { n: '1234' }, 'en'), '¥1,234')
  assert.equal(
    render('{{number n decimals=2}}', { n: '12345678901234567890.125' }, 'en'),
    '12,345,678,901,234,567,890.13',
  )
  assert.equal(
    render('{{number n style="percent"}} {{number m style="compact"}}', { n: 0.25, m: 1_200_000 }),
    '25% 1.2M',
  )
  assert.equal(render('{{number n}} {{number missing}}', { n: 'many' }), 'many ')
})

test('law: however many numbers, times, languages and options were written before, each is written as by Intl', () => {
  const number = compileTemplate('{{number n}}|{{number n decimals=2}}|{{number n decimals=d}}', 'none')
  const date = compileTemplate('{{date t "date" style="long"}}|{{date t "time" style="short"}}', 'none')
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: -99, max: 99 }), fc.constantFrom('en', 'de', 'pt-BR', 'ar-EG')), {
        maxLength: 300,
      }),
      list => {
        for (const [n, locale] of list) {
          const view = {
            names: { n, d: 1, t: n * 40_000_000_000 },
            layers: [],
            locale,
            timezone: 'Asia/Tokyo',
          }
          const as = (digits?: number) =>
            new Intl.NumberFormat(locale, {
              minimumFractionDigits: digits,
              maximumFractionDigits: digits,
            }).format(n)
          assert.equal(number.render(view), `${as()}|${as(2)}|${as(1)}`)
          const at = (style: Intl.DateTimeFormatOptions) =>
            new Intl.DateTimeFormat(locale, { ...style, timeZone: 'Asia/Tokyo' }).format(
              toInstant(view.names.t),
            )
          assert.equal(date.render(view), `${at({ dateStyle: 'long' })}|${at({ timeStyle: 'short' })}`)
        }
      },
    ),
    { numRuns: 20 },
  )
})

test('literal options are checked when the template is saved', () => {
  for (const [source, pattern] of [
    ['{{date a "week"}}', /format must be one of/],
    ['{{date a style="tiny"}}', /style must be/],
    ['{{date a timezone="Mars/Base"}}', /timezone "Mars\/Base" is not known/],
    ['{{number a currency="EURO"}}', /currency/],
    ['{{number a decimals=99}}', /decimals/],
    ['{{number a locale="x!"}}', /locale/],
    ['{{truncate a -1}}', /length/],
    ['{{plural n "item"}}', /plural needs/],
  ] as const) {
    assert.throws(() => compileTemplate(source, 'none'), pattern, source)
  }
  compileTemplate('{{date a style=s timezone=user.timezone}}', 'none')
})
