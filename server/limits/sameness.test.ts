import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { repeated, takeRepeated } from '../decide/repeated.ts'
import { candidate, now } from '../test/candidate.ts'
import { type Canonical, canonicalJson, fingerprint } from './canonical.ts'
import { MAX_REMEMBERED, type SamenessQuestion, likeness, sameness, sketchOf } from './sameness.ts'
import { NO_USAGE, usage } from './usage.ts'

const json = fc.jsonValue({ maxDepth: 4 }) as fc.Arbitrary<Canonical>
const shuffled = (value: Canonical): Canonical =>
  Array.isArray(value)
    ? value.map(shuffled)
    : value !== null && typeof value === 'object'
      ? Object.fromEntries(
          Object.entries(value)
            .toReversed()
            .map(([key, item]) => [key, shuffled(item)]),
        )
      : value

// covers: PFM-126, PFM-127
test('law: canonical JSON is JSON, and one text however the keys are ordered', () => {
  fc.assert(
    fc.property(json, value => {
      const text = canonicalJson(value)
      // -0 has no JSON of its own.
      assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)))
      assert.equal(canonicalJson(shuffled(value)), text)
      assert.equal(fingerprint(shuffled(value)), fingerprint(value))
    }),
  )
  assert.equal(
    canonicalJson({ b: 10n ** 20n, a: undefined, c: [undefined, 1] }),
    '{"b":"100000000000000000000","c":[null,1]}',
  )
  assert.match(fingerprint({ amount: 5n }), /^[\w-]{43}$/)
  assert.notEqual(fingerprint({ a: 1 }), fingerprint({ a: 2 }))
  assert.throws(() => canonicalJson([Number.NaN]), RangeError)
  let deep: Canonical = null
  for (let i = 0; i < 70; i++) deep = [deep]
  assert.throws(() => canonicalJson(deep), RangeError)
})

test('law: likeness is that of the sets of words and pairs, exactly while the texts are short', () => {
  const text = fc.array(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'), { minLength: 1, maxLength: 20 })
  const features = (words: string[]) =>
    new Set([...words, ...words.slice(1).map((word, i) => `${words[i]} ${word}`)])
  fc.assert(
    fc.property(text, text, (a, b) => {
      const [x, y] = [features(a), features(b)]
      const shared = [...x].filter(feature => y.has(feature)).length
      const exact = shared / (x.size + y.size - shared)
      assert.equal(likeness(sketchOf(a, 's'), sketchOf(b, 's')), exact)
    }),
  )
})

test('of long texts likeness is near the truth, and a sketch stays as small', () => {
  const words = Array.from({ length: 1000 }, (_, i) => `w${i}`)
  const changed = words.map((word, i) => (i % 20 === 0 ? `x${i}` : word))
  const [a, b] = [sketchOf(words, 's'), sketchOf(changed, 's')]
  assert.equal(a.length, 64)
  // 950 of 1050 words and 900 of 1100 pairs (all but those beside a changed word): 0.86 in truth.
  const found = likeness(a, b)
  assert.ok(found > 0.7 && found < 0.98, String(found))
  assert.equal(
    likeness(
      a,
      sketchOf(
        words.map(word => `y${word}`),
        's',
      ),
    ),
    0,
  )
})

const said = (body: string, more: Partial<SamenessQuestion> = {}) =>
  sameness({
    ruleId: 'r',
    recipientType: 'user',
    recipientId: 'alice',
    channel: 'email',
    text: { subject: 'Rain', body },
    repeat: { seconds: 600 },
    similar: {},
    ...more,
  })

// covers: PRO-054
test('the same and the nearly same are held back for their time, whatever the case and the punctuation', () => {
  const book = usage(NO_USAGE)
  const at = (seconds: number) => new Date(now.getTime() + seconds * 1000)
  const say = (
    body: string,
    seconds: number,
    more: Partial<SamenessQuestion> = {},
    priority: 'NORMAL' | 'CRITICAL' = 'NORMAL',
  ) => {
    const one = candidate({ sameness: said(body, more), usage: book, priority, telling: {} })
    const decision = repeated(one, at(seconds))
    if (decision === null) takeRepeated(one, at(seconds))
    return decision?.kind === 'skip' ? decision.reason : 'goes'
  }
  const long =
    'Heavy rain is expected in Berlin this afternoon between three and five, take an umbrella with you'
  assert.equal(say(long, 0), 'goes')
  assert.equal(say(`  ${long.toUpperCase()}!! `, 1), 'repeated')
  assert.equal(say(long.replace(' with you', ''), 2), 'similar')
  assert.equal(say('Sunshine all day', 3), 'goes')
  assert.equal(say(long, 4, { channel: 'sms' }), 'goes')
  assert.equal(say(long, 4, { recipientId: 'bob' }), 'goes')
  assert.equal(say(long, 5, {}, 'CRITICAL'), 'goes')
  // It was said again at 5, so it is new at 1805 only.
  assert.equal(say(long, 1804, { repeat: undefined }), 'similar')
  assert.equal(say(long, 1805, { repeat: undefined }), 'goes')
  // Scripts without spaces are compared by letter.
  assert.equal(
    say('今天下午柏林有大雨请带伞出门注意安全', 1, {
      channel: 'push',
      text: { body: '今天下午柏林有大雨请带伞出门注意安全' },
    }),
    'goes',
  )
  assert.equal(
    say('', 2, { channel: 'push', text: { body: '今天下午柏林有大雨请带伞出门注意安全。' } }),
    'repeated',
  )
})

test('no more texts are remembered than are worth comparing, and none beyond its time', () => {
  const { similar } = said('x')!
  let note: string | null = null
  for (let i = 0; i < 30; i++) {
    const one: string = said(
      `text number ${i} with words ${'of its own '.repeat(i)}${i * 7}`,
    )!.similar!.noted(note, i, i + 1000)
    note = one
    assert.ok(note.length <= 10_000)
    assert.ok(note.split(' ').length <= MAX_REMEMBERED)
  }
  assert.equal(similar!.noted(note, 5000, 6000).split(' ').length, 1)
})
