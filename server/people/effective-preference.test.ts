import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { CHANNELS, type Channel, PRIORITIES } from '../types.ts'
import {
  BUILT_IN,
  type EffectivePreference,
  effectivePreference,
  type PreferenceQuestion,
  tooUnimportant,
  unwanted,
} from './effective-preference.ts'
import type { PreferenceRow } from './facts.ts'
import { classOf, scopesOf } from './preference-scopes.ts'
import type { PreferenceSettings } from './preference-settings.ts'

const NOW = new Date('2026-11-21T12:00:00Z')

const row = (
  scope: string,
  channel: Channel | null,
  enabled: boolean | null,
  settings: PreferenceSettings = {},
): PreferenceRow => ({ scope, channel, enabled, settings: settings as PreferenceRow['settings'] })

const SCOPES = ['rule:r', 'topic:news', 'topic_level:weather', 'category:weather', 'class:transactional']
const question = (more: Partial<PreferenceQuestion> = {}): PreferenceQuestion => ({
  channel: 'email',
  scopes: SCOPES,
  eventType: 'weather.rain',
  priority: 'NORMAL',
  ...more,
})
const ask = (user: PreferenceRow[], tenant: PreferenceRow[], more: Partial<PreferenceQuestion> = {}) =>
  effectivePreference(user, tenant, question(more))
const says = (user: PreferenceRow[], tenant: PreferenceRow[], more: Partial<PreferenceQuestion> = {}) => {
  const { enabled, layer } = ask(user, tenant, more)
  return `${enabled ? 'on' : 'off'} ${layer}`
}

// ------------------------------------------------------------------ switches

test('the examples of the guide come out as it says', () => {
  const guide = readFileSync(join(import.meta.dirname, '../../docs/guides/preferences.md'), 'utf8')
  const [, table] = /^\| the person says \|.*\n\|[-|]+\n((?:\|.*\n)+)/m.exec(guide) ?? []
  const examples = table!.trim().split('\n')
  assert.ok(examples.length >= 15)
  const said = (cell: string): PreferenceRow[] =>
    [...cell.matchAll(/`([^`]+)` (on|off|required)/g)].map(([, place, word]) => {
      const [, scopeName, channel] = /^(?:global|(.*?):?)(email)?$/.exec(place!)!
      const settings = word === 'required' ? { mode: 'REQUIRED' as const } : {}
      return row(scopeName ?? '', (channel as 'email' | undefined) ?? null, word !== 'off', settings)
    })
  for (const example of examples) {
    const [, person, tenant, result] = example.split('|').map(cell => cell.trim())
    const scopes = scopesOf({ ruleId: 'r', category: 'news', eventType: 'news.published' })
    assert.equal(says(said(person!), said(tenant!), { scopes }), result!.replaceAll('`', ''), example)
  }
})

// covers: DIC-080, ALP-119, ALP-130, AUR-080, AUR-081, DIC-081
test('each layer has the word when those before it are silent', () => {
  assert.equal(says([], []), 'on built_in')
  assert.equal(says([], [row('', 'email', false)]), 'off tenant:email')
  assert.equal(says([row('', 'email', true)], [row('', 'email', false)]), 'on user:email')
  assert.equal(says([row('', 'email', true)], [row('', null, false)]), 'off tenant:global')
  assert.equal(says([row('', null, true)], [row('', null, false)]), 'on user:global')
  assert.equal(says([row('', null, true), row('', 'email', false)], []), 'off user:email')
  assert.equal(says([row('', null, null), row('', 'email', null)], [row('', 'email', null)]), 'on built_in')
  assert.equal(says([row('', null, false), row('rule:r', 'email', true)], []), 'off user:global')

  assert.equal(says([row('category:weather', null, false)], []), 'off user:category:weather')
  assert.equal(says([row('category:weather', 'email', false)], []), 'off user:category:weather:email')
  assert.equal(
    says([row('category:weather', null, false), row('category:weather', 'email', true)], []),
    'on user:category:weather:email',
  )
  assert.equal(
    says([row('category:weather', 'email', false), row('rule:r', 'email', true)], []),
    'on user:rule:r:email',
  )
  assert.equal(
    says([row('category:weather', null, true)], [row('category:weather', null, false)]),
    'on user:category:weather',
  )
  assert.equal(
    says([row('', 'email', false), row('rule:r', 'email', true)], []),
    'on user:rule:r:email',
    'what is said of this channel for one rule overrides the channel as a whole',
  )
  for (const other of [
    row('', 'sms', false),
    row('category:x', null, false),
    row('rule:other', 'email', false),
  ]) {
    assert.equal(
      says([other], [other]),
      'on built_in',
      'other channels and scopes say nothing about this one',
    )
  }
})

// covers: ALP-120
test('what is on for all channels lifts no off of the channel', () => {
  assert.equal(says([row('category:weather', null, true), row('', 'email', false)], []), 'off user:email')
  assert.equal(says([row('rule:r', null, true)], [row('', 'email', false)]), 'off tenant:email')
  assert.equal(
    says([row('rule:r', null, true), row('category:weather', null, false)], []),
    'on user:rule:r',
    'but it lifts a broader off of all channels',
  )
})

// covers: ALP-120, ALP-121
test('what is on for a kind of message on a channel lifts no off of the channel; a rule or source does', () => {
  const off = row('', 'email', false)
  for (const kind of ['topic:news', 'category:weather', 'class:transactional']) {
    assert.equal(says([row(kind, 'email', true), off], []), 'off user:email', kind)
    assert.equal(says([row(kind, 'email', true)], [off]), 'off tenant:email', kind)
    assert.equal(says([], [row(kind, 'email', true), off]), 'off tenant:email', kind)
  }
  assert.equal(
    says([row('topic:news', 'email', true), row('class:transactional', 'email', false)], []),
    'on user:topic:news:email',
    'but it lifts an off of a broader kind',
  )
  const aura = { scopes: ['aura:a', ...SCOPES] }
  assert.equal(says([row('aura:a', 'email', true), off], [], aura), 'on user:aura:a:email')
  assert.equal(says([], [row('aura:a', 'email', true), off], aura), 'on tenant:aura:a:email')
})

test('a default of the tenant never switches on what the person switched off', () => {
  assert.equal(says([row('', 'email', false)], [row('rule:r', 'email', true)]), 'off user:email')
  assert.equal(
    says([row('category:weather', null, false)], [row('rule:r', 'email', true)]),
    'off user:category:weather',
  )
  assert.equal(
    says([row('', 'email', true)], [row('rule:r', null, false)]),
    'off tenant:rule:r',
    'its off, of something more specific, holds until the person says otherwise of that',
  )
  assert.equal(
    says([], [row('category:weather', null, false), row('rule:r', null, true)]),
    'on tenant:rule:r',
  )
})

// covers: DIC-081
test('a scope can be limited to some channels', () => {
  const only = row('category:weather', null, true, { channels: ['push'] })
  assert.equal(says([only], []), 'off user:category:weather')
  assert.equal(says([only], [], { channel: 'push' }), 'on user:category:weather')
  assert.equal(says([row('category:weather', null, null, { channels: [] })], []), 'off user:category:weather')
  assert.equal(says([only, row('category:weather', 'email', true)], []), 'on user:category:weather:email')
})

test('REQUIRED holds against every switch of the person, and yields only to the tenant itself', () => {
  const required = row('class:transactional', null, true, { mode: 'REQUIRED' })
  const against = [row('', null, false), row('', 'email', false), row('rule:r', 'email', false)]
  const found = ask(against, [required, row('', null, false)])
  assert.deepEqual([found.enabled, found.required, found.layer], [true, true, 'tenant:class:transactional'])
  assert.equal(ask([], [required, row('rule:r', null, false)]).required, false)
  assert.equal(says(against, [row('', 'sms', true, { mode: 'REQUIRED' })]), 'off user:global')
  const limited = row('category:weather', null, true, { mode: 'REQUIRED', channels: ['sms'] })
  assert.equal(ask([], [limited]).required, false)
  assert.equal(ask([], [limited], { channel: 'sms' }).required, true)
})

// covers: PFM-131
test('a channel can be required for everything', () => {
  const tenant = [row('', 'in_app', true, { mode: 'REQUIRED' })]
  assert.equal(ask([row('', 'in_app', false)], tenant, { channel: 'in_app' }).enabled, true)
  assert.equal(ask([row('', 'email', false)], tenant).enabled, false)
})

// covers: PFM-129, PFM-130
test('an alert may leave a channel out, and what it says nothing of is as the person wants it', () => {
  const alert = { scopes: ['alert:7', 'category:account_threshold', 'class:transactional'] }
  for (const channel of ['email', 'sms'] as const) {
    const wants = (ofAlert: boolean | null, ofAll: boolean | null) =>
      ask([row('alert:7', channel, ofAlert), row('', channel, ofAll)], [], { ...alert, channel }).enabled
    assert.deepEqual(
      [wants(null, null), wants(null, true), wants(null, false), wants(false, null), wants(false, true)],
      [true, true, false, false, false],
    )
  }
})

// covers: DIC-186, DIC-185, ALP-050
test('marketing needs a yes of the person to marketing, unless the tenant says otherwise', () => {
  const scopes = scopesOf({ category: 'MARKETING', eventType: 'shop.sale' })
  const marketing = (user: PreferenceRow[], tenant: PreferenceRow[] = []) => {
    const found = ask(user, tenant, { scopes })
    return `${found.enabled ? 'on' : found.off} ${found.layer}`
  }
  assert.equal(marketing([]), 'consent built_in:class:marketing')
  assert.equal(marketing([row('class:marketing', null, true)]), 'on user:class:marketing')
  assert.equal(marketing([row('class:marketing', 'email', true)]), 'on user:class:marketing:email')
  assert.equal(marketing([row('class:marketing', 'sms', true)]), 'consent built_in:class:marketing')
  assert.equal(marketing([row('', 'email', true)]), 'consent built_in:class:marketing')
  assert.equal(marketing([row('category:MARKETING', 'email', true)]), 'consent built_in:class:marketing')
  assert.equal(marketing([row('class:marketing', null, false)]), 'category user:class:marketing')
  assert.equal(
    marketing([], [row('class:marketing', null, true, { mode: 'OPTED_IN' })]),
    'on tenant:class:marketing',
  )
  assert.equal(
    marketing([row('class:marketing', null, false)], [row('class:marketing', null, true)]),
    'category user:class:marketing',
  )
  assert.equal(
    marketing([], [row('category:MARKETING', null, true, { mode: 'REQUIRED' })]),
    'consent built_in:class:marketing',
    'nobody is owed advertising',
  )
})

// covers: ALP-121, ALP-129
test("the class follows from the category and, where that is not enough, from the event's type", () => {
  for (const [category, eventType, expected] of [
    ['MARKETING', 'x.y', 'marketing'],
    ['marketing', 'x.y', 'marketing'],
    ['COMMUNITY', 'community.forum_reply', 'social'],
    ['TRADING', 'trading.risk_warning', 'alerts'],
    ['TRADING', 'trading.emergency_stop', 'alerts'],
    ['TRADING', 'trading.trade_executed', 'transactional'],
    ['TRADING', 'trading.asterisk_added', 'transactional'],
    ['SYSTEM', 'system.security_incident', 'alerts'],
    ['SYSTEM', 'system.maintenance', 'transactional'],
    ['MARKETPLACE', 'marketplace.sale', 'transactional'],
    ['alerts', 'x.y', 'alerts'],
    ['', 'x.y', 'transactional'],
    ['constructor', 'x.y', 'transactional'],
  ] as const) {
    assert.equal(classOf(category, eventType), expected, `${category} ${eventType}`)
  }
  assert.deepEqual(
    scopesOf({ ruleId: 'r', scopes: ['aura:a'], topics: ['t'], category: 'COMMUNITY', eventType: 'x' }),
    [
      'rule:r',
      'aura:a',
      'topic:t',
      'topic_level:COMMUNITY',
      'topic_level:community',
      'category:COMMUNITY',
      'class:social',
    ],
  )
  const off = [row('class:social', 'email', false)]
  const social = scopesOf({ category: 'COMMUNITY', eventType: 'x' })
  assert.equal(says(off, [], { scopes: social }), 'off user:class:social:email')
  assert.equal(says(off, [], { scopes: social, channel: 'push' }), 'on built_in')
  assert.equal(says(off, [], { scopes: scopesOf({ category: 'x', eventType: 'x' }) }), 'on built_in')
})

// ------------------------------------------------------------------ settings

// covers: AUR-081, AUR-082, DIC-081
test('a setting comes from the most specific row that has it, and says from where', () => {
  const quiet = { enabled: true, start: '22:00', end: '07:00' }
  const found = ask(
    [
      row('', null, null, { minPriority: 'HIGH', quietHours: quiet }),
      row('category:weather', null, true, { minPriority: 'LOW' }),
      row('rule:r', 'email', null, { priorityThreshold: 8 }),
    ],
    [
      row('', null, null, { quietHours: { ...quiet, start: '20:00' }, quietAppliesToInApp: true }),
      row('', 'email', null, { priorityThreshold: 2, deliveryWindows: [{ start: '08:00', end: '20:00' }] }),
    ],
  )
  assert.equal(found.minPriority, 'LOW')
  assert.equal(found.priorityThreshold, 8)
  assert.deepEqual(found.quietHours, quiet)
  assert.equal(found.quietAppliesToInApp, true)
  assert.deepEqual(found.deliveryWindows, [{ start: '08:00', end: '20:00' }])
  assert.deepEqual(found.layers, {
    minPriority: 'user:category:weather',
    priorityThreshold: 'user:rule:r:email',
    quietHours: 'user:global',
    quietAppliesToInApp: 'tenant:global',
    deliveryWindows: 'tenant:email',
  })
})

// covers: DIC-081, ALP-122, ALP-127, AUR-082, AUR-094
test('less urgent than the minimum is too little, by priority or by the number of the rule', () => {
  const minimum = (
    said: PreferenceSettings,
    priority: (typeof PRIORITIES)[number],
    score: number | null = 5,
  ) => tooUnimportant(ask([row('category:weather', null, null, said)], []), priority, score)?.detail ?? 'send'
  assert.equal(minimum({ minPriority: 'HIGH' }, 'NORMAL'), 'user:category:weather from HIGH')
  assert.equal(minimum({ minPriority: 'HIGH' }, 'HIGH'), 'send')
  assert.equal(minimum({ minPriority: 'HIGH' }, 'CRITICAL'), 'send')
  assert.equal(minimum({ priorityThreshold: 7 }, 'LOW', 7), 'send')
  assert.equal(
    minimum({ priorityThreshold: 7 }, 'CRITICAL', 6),
    'user:category:weather from 7, the rule has 6',
  )
  assert.equal(minimum({}, 'LOW', 5), 'send')
  assert.equal(minimum({}, 'LOW', 4), 'built_in from 5, the rule has 4')
  assert.equal(minimum({ priorityThreshold: 7 }, 'LOW', null), 'send')
  const topic = ask([row('topic_level:weather', null, null, { minPriority: 'HIGH' })], [])
  assert.equal(tooUnimportant(topic, 'NORMAL', 5)?.reason, 'topic_important_only')
  const owed = ask(
    [
      row('', null, null, {
        minPriority: 'CRITICAL',
        priorityThreshold: 10,
        mutedUntil: '2099-01-01T00:00:00Z',
      }),
    ],
    [row('rule:r', null, true, { mode: 'REQUIRED' })],
  )
  assert.equal(tooUnimportant(owed, 'LOW', 1), null)
  assert.equal(unwanted(owed, NOW), null)
})

test('a mute stops everything until its instant, the last one counts, and the inbox still fills', () => {
  const until = (at: string) => ({ mutedUntil: at })
  const rows = [
    row('', null, null, until('2026-11-21T13:00:00Z')),
    row('category:weather', null, null, until('2026-11-21T14:00:00Z')),
    row('rule:other', null, null, until('2026-11-22T00:00:00Z')),
  ]
  assert.deepEqual(unwanted(ask(rows, [], { priority: 'CRITICAL' }), NOW), {
    reason: 'muted',
    detail: 'user:category:weather until 2026-11-21T14:00:00.000Z',
  })
  assert.equal(unwanted(ask(rows, []), new Date('2026-11-21T14:00:00Z')), null)
  assert.equal(unwanted(ask(rows, [], { channel: 'in_app' }), NOW), null)
  const inbox = row('', 'in_app', null, until('2026-11-21T13:00:00Z'))
  assert.equal(unwanted(ask([inbox], [], { channel: 'in_app' }), NOW)?.reason, 'muted')
})

// covers: ALP-124
test('a digest gathers what may be gathered; the rest goes at once', () => {
  const said = (digest: Partial<PreferenceSettings['digest']>): PreferenceRow[] => [
    row('', null, null, { digest: { enabled: true, frequency: 'daily', ...digest } }),
  ]
  const frequency = (rows: PreferenceRow[], more: Partial<PreferenceQuestion> = {}) => {
    const { frequency: every, digestAt, digestWeekday } = ask(rows, [], more)
    return [every, digestAt, digestWeekday].filter(part => part !== undefined).join(' ')
  }
  assert.equal(frequency(said({})), 'daily 09:00')
  assert.equal(frequency(said({ frequency: 'weekly', at: '18:30', weekday: 5 })), 'weekly 18:30 5')
  assert.equal(frequency(said({ frequency: 'weekly' })), 'weekly 09:00 1')
  assert.equal(frequency(said({ frequency: 'hourly', at: '18:30' })), 'hourly')
  assert.equal(frequency(said({ enabled: false })), 'instant')
  assert.equal(frequency(said({}), { priority: 'CRITICAL' }), 'instant')
  assert.equal(frequency(said({}), { channel: 'in_app' }), 'instant')
  for (const name of ['weather.rain', 'weather.*', 'rain']) {
    assert.equal(frequency(said({ instant: [name] })), 'instant', name)
    assert.equal(frequency(said({ batchable: [name] })), 'daily 09:00', name)
  }
  for (const name of ['weather.snow', 'rai', 'ain', 'weather', 'w.*']) {
    assert.equal(frequency(said({ instant: [name] })), 'daily 09:00', name)
    assert.equal(frequency(said({ batchable: [name] })), 'instant', name)
  }
  assert.equal(frequency(said({ batchable: [] })), 'daily 09:00')
  assert.equal(ask(said({}), [row('rule:r', null, true, { mode: 'REQUIRED' })]).frequency, 'instant')
})

// covers: AUR-083, ALP-123
test('caps hold side by side, each where it was said; of the same place the person has the word', () => {
  const { caps } = ask(
    [row('', null, null, { maxPerHour: 20 }), row('', 'email', null, { maxPerDay: 3 })],
    [row('', null, null, { maxPerHour: 10, maxPerDay: 50 }), row('', 'sms', null, { maxPerDay: 1 })],
  )
  assert.deepEqual(caps, [
    { window: 'day', max: 3, scope: '', channel: 'email', layer: 'user:email' },
    { window: 'hour', max: 20, scope: '', channel: null, layer: 'user:global' },
    { window: 'day', max: 50, scope: '', channel: null, layer: 'tenant:global' },
  ])
})

// ------------------------------------------------------------------ laws

const settings: fc.Arbitrary<PreferenceSettings> = fc.record(
  {
    mode: fc.constantFrom('OPTED_IN' as const, 'OPTED_OUT' as const, 'REQUIRED' as const),
    channels: fc.subarray([...CHANNELS].slice(0, 3)),
    mutedUntil: fc.constantFrom('2026-11-21T11:00:00Z', '2026-11-21T13:00:00Z', 'never'),
    minPriority: fc.constantFrom(...PRIORITIES),
    priorityThreshold: fc.integer({ min: 1, max: 10 }),
    maxPerHour: fc.integer({ min: 0, max: 5 }),
    maxPerDay: fc.integer({ min: 0, max: 5 }),
    quietAppliesToInApp: fc.boolean(),
    digest: fc.record({ enabled: fc.boolean(), frequency: fc.constantFrom('hourly', 'daily', 'weekly') }),
  },
  { requiredKeys: [] },
)
const scope = fc.constantFrom('', ...SCOPES, 'class:marketing', 'category:other')
const rows = fc.uniqueArray(
  fc
    .tuple(
      scope,
      fc.constantFrom(null, 'email' as const, 'sms' as const, 'in_app' as const),
      fc.constantFrom(true, false, null),
      settings,
    )
    .map(([s, channel, enabled, said]) => row(s, channel, enabled, said)),
  { selector: one => `${one.scope} ${one.channel}`, maxLength: 12 },
)
const questions = fc.record({
  channel: fc.constantFrom('email' as const, 'sms' as const, 'in_app' as const),
  scopes: fc.constantFrom(
    SCOPES,
    [],
    ['rule:r', 'class:marketing'],
    ['category:other', 'class:transactional'],
  ),
  eventType: fc.constantFrom('weather.rain', 'x'),
  priority: fc.constantFrom(...PRIORITIES),
})
const notRequired = (tenant: PreferenceRow[]): PreferenceRow[] =>
  tenant.map(one =>
    row(one.scope, one.channel, one.enabled, { ...(one.settings as PreferenceSettings), mode: 'OPTED_IN' }),
  )
const copies = (list: PreferenceRow[]) => list.map(one => ({ ...one }))

test('law: the order of rows, and what was asked before, make no difference', () => {
  fc.assert(
    fc.property(rows, rows, questions, questions, (user, tenant, q, other) => {
      const expected = effectivePreference(copies(user), copies(tenant), q)
      effectivePreference(user, tenant, other)
      assert.deepEqual(effectivePreference(user, tenant, q), expected)
      assert.deepEqual(effectivePreference(user.toReversed(), tenant.toReversed(), q), expected)
    }),
  )
})

// covers: DIC-080, DIC-085, ALP-119, ALP-130
test('law: everything off stops all but what is required, CRITICAL as well', () => {
  fc.assert(
    fc.property(rows, rows, questions, (user, tenant, q) => {
      const off = [row('', null, false), ...user.filter(one => one.scope !== '' || one.channel !== null)]
      const found = effectivePreference(off, tenant, q)
      if (found.required) assert.match(found.layer, /^tenant:/)
      else assert.deepEqual([found.enabled, found.off, found.layer], [false, 'global', 'user:global'])
    }),
  )
})

test('law: what is required is on, whatever the person says, save marketing', () => {
  fc.assert(
    fc.property(rows, rows, questions, (user, tenant, q) => {
      const top = q.scopes[0] ?? ''
      const required = row(top, q.channel, true, { mode: 'REQUIRED' })
      const others = tenant.filter(one => one.scope !== top || one.channel !== q.channel)
      const found = effectivePreference(user, [...others, required], q)
      if (q.scopes.includes('class:marketing')) assert.equal(found.required, false)
      else {
        assert.equal(found.required, true)
        assert.equal(unwanted(found, NOW), null)
        assert.equal(tooUnimportant(found, 'LOW', 1), null)
        assert.equal(found.frequency, 'instant')
      }
    }),
  )
})

test('law: the most specific word of the person, about this channel, is final both ways', () => {
  fc.assert(
    fc.property(rows, rows, questions, fc.boolean(), (user, tenant, q, enabled) => {
      const top = q.scopes[0]
      if (top === undefined || !top.startsWith('rule:') || q.scopes.includes('class:marketing')) return
      const word = row(top, q.channel, enabled)
      const others = user.filter(
        one => (one.scope !== top || one.channel !== q.channel) && (one.scope !== '' || one.channel !== null),
      )
      const defaults = notRequired(tenant).filter(one => one.scope !== '' || one.channel !== null)
      const found = effectivePreference([...others, word], defaults, q)
      assert.deepEqual([found.enabled, found.layer], [enabled, `user:${top}:${q.channel}`])
    }),
  )
})

test('law: no default switches on what the person alone has switched off', () => {
  fc.assert(
    fc.property(rows, rows, questions, (user, tenant, q) => {
      if (q.scopes.includes('class:marketing') || effectivePreference(user, [], q).enabled) return
      assert.equal(effectivePreference(user, notRequired(tenant), q).enabled, false)
    }),
  )
})

test('law: the person’s word outweighs the tenant’s of the same scope and channel', () => {
  fc.assert(
    fc.property(
      rows,
      rows,
      questions,
      scope,
      fc.boolean(),
      fc.boolean(),
      (user, tenant, q, at, mine, its) => {
        const elsewhere = (one: PreferenceRow) => one.scope !== at || one.channel !== q.channel
        const own = [...user.filter(elsewhere), row(at, q.channel, mine)]
        const without = notRequired(tenant).filter(elsewhere)
        if (at === 'class:marketing' && q.scopes.includes('class:marketing')) return
        const expected = effectivePreference(own, without, q)
        assert.deepEqual(effectivePreference(own, [...without, row(at, q.channel, its)], q), expected)
      },
    ),
  )
})

test('law: a row that is about something else changes nothing', () => {
  fc.assert(
    fc.property(rows, rows, questions, settings, (user, tenant, q, said) => {
      const other = [row('rule:other', null, false, said), row('', 'pagerduty', false, said)]
      assert.deepEqual(
        effectivePreference([...user, ...other], [...tenant, ...other], q),
        effectivePreference(user, tenant, q),
      )
    }),
  )
})

test('law: setting by setting, a less specific row changes nothing where a more specific one speaks', () => {
  const chosen = (found: EffectivePreference) => [
    found.minPriority,
    found.layers.minPriority,
    found.priorityThreshold,
    found.quietAppliesToInApp,
  ]
  fc.assert(
    fc.property(rows, rows, questions, settings, (user, tenant, q, said) => {
      const full: PreferenceSettings = {
        minPriority: 'HIGH',
        priorityThreshold: 3,
        quietAppliesToInApp: true,
      }
      const top = q.scopes[0] ?? ''
      const own = [
        ...user.filter(one => one.scope !== top || one.channel !== q.channel),
        row(top, q.channel, null, full),
      ]
      const more = tenant.filter(one => one.scope !== '' || one.channel !== null)
      assert.deepEqual(
        chosen(effectivePreference(own, [...more, row('', null, null, said)], q)),
        chosen(effectivePreference(own, more, q)),
      )
    }),
  )
})

test('whoever said nothing shares one answer', () => {
  assert.equal(ask([], []), BUILT_IN)
})
