/**
 * How many events a second find their rules among 100,000, on one core.
 *
 *   node --expose-gc bench/rules.ts            (without the flag the memory column is a guess)
 *
 * Each mix is measured 5 times; the table shows medians. "ask all" evaluates every rule's compiled CEL for every
 * event, which is what the index saves. Both start from the event as the doors hand it over.
 */
import { celEvent, compile, type Program } from '../server/match/cel.ts'
import { ruleIndex } from '../server/match/rule-index.ts'
import { compileRule, type Rule, type RuleDefinition } from '../server/match/rules.ts'
import type { Event, JsonObject } from '../server/types.ts'
import { figure, heapUsed, machine, median, table } from './machine.ts'

const RULES = 100_000
const EVENTS = 2_000
const RUNS = 5
const GOAL = 10_000
const now = new Date()

interface Mix {
  name: string
  rule(i: number): Partial<RuleDefinition>
  event(i: number): { type: string; data: JsonObject }
}

const order = (i: number) => ({
  sku: `sku-${i % RULES}`,
  region: `region-${i % 50}`,
  amount: (i * 7_919) % 1_000,
  customer: { id: `c-${i}`, tier: i % 3 === 0 ? 'gold' : 'basic' },
  items: [{ name: 'one', count: 1 }],
})

const MIXES: Mix[] = [
  {
    name: 'event types only (10 rules each)',
    rule: i => ({ eventTypes: [`shop.type-${i % 10_000}`] }),
    event: i => ({ type: `shop.type-${(i * 37) % 10_000}`, data: order(i) }),
  },
  {
    name: 'CEL equality only: type and region',
    rule: i => ({
      eventPattern: `event.type == "shop.type-${i % 1_000}" && event.data.region == "region-${Math.floor(i / 1_000) % 50}"`,
    }),
    event: i => ({ type: `shop.type-${(i * 37) % 1_000}`, data: order(i) }),
  },
  {
    name: 'one type, told apart by data',
    rule: i => ({ eventPattern: `event.type == "shop.order" && event.data.sku == "sku-${i}"` }),
    event: i => ({ type: 'shop.order', data: order(i * 41) }),
  },
  {
    name: 'one type, data and a comparison',
    rule: i => ({
      eventPattern: `event.type == "shop.order" && event.data.sku == "sku-${i}" && event.data.amount > 500`,
    }),
    event: i => ({ type: 'shop.order', data: order(i * 41) }),
  },
  {
    name: 'wildcards (10 rules each)',
    rule: i => ({ eventTypes: [`shop.area-${i % 10_000}.*`] }),
    event: i => ({ type: `shop.area-${(i * 37) % 10_000}.order.created`, data: order(i) }),
  },
  {
    name: 'each rule demands another field',
    rule: i => ({ eventPattern: `event.data.f${i} == true` }),
    event: i => ({ type: 'shop.order', data: { ...order(i), [`f${(i * 41) % RULES}`]: true } }),
  },
  {
    name: 'only CEL can tell, 10 rules a type',
    rule: i => ({
      eventPattern: `event.type == "shop.type-${i % 10_000}" && event.data.items.exists(i, i.count > ${i % 3})`,
    }),
    event: i => ({ type: `shop.type-${(i * 37) % 10_000}`, data: order(i) }),
  },
  {
    name: 'comparisons only, 100 rules a type',
    rule: i => ({ eventPattern: `event.type == "shop.type-${i % 1_000}" && event.data.amount > ${i % 997}` }),
    event: i => ({ type: `shop.type-${(i * 37) % 1_000}`, data: order(i) }),
  },
]

function newRule(i: number, part: Partial<RuleDefinition>): Rule {
  return compileRule(
    {
      name: `rule ${i}`,
      description: '',
      eventPattern: '',
      domains: [],
      eventTypes: [],
      priority: 'NORMAL',
      channels: ['in_app'],
      fallbackChannels: [],
      recipients: { groups: ['everyone'] },
      templateVars: {},
      timezone: 'UTC',
      policy: {},
      enabled: true,
      validFrom: new Date(0),
      ...part,
    },
    {
      id: `00000000-0000-7000-8000-${String(i).padStart(12, '0')}`,
      no: i + 1,
      revision: 1,
      tenantId: 1,
    },
  )
}

function newEvent(i: number, part: { type: string; data: JsonObject }): Event {
  return { tenantId: 1, id: String(i), source: '/bench', time: now, receivedAt: now, ...part }
}

function perSecond(count: number, work: () => void): number {
  const start = process.hrtime.bigint()
  work()
  return count / (Number(process.hrtime.bigint() - start) / 1e9)
}

/** Every rule asked: what matching costs without an index. */
function askAll(
  rules: readonly Rule[],
  programs: readonly (Program<'pattern'> | undefined)[],
  event: Event,
): number {
  const seen = celEvent(event)
  let matched = 0
  rules.forEach((rule, i) => {
    const fits = rule.eventTypes.every(type =>
      type.endsWith('*') ? seen.type.startsWith(type.slice(0, -1)) : seen.type === type,
    )
    if (!fits) return
    const program = programs[i]
    const result = program?.evaluate(seen, now)
    if (result === undefined || (result.ok && result.value)) matched += 1
  })
  return matched
}

console.log(`${machine()}\n${RULES.toLocaleString('en-US')} rules, medians of ${RUNS}\n`)
const rows: string[][] = []
for (const mix of MIXES) {
  const before = heapUsed()
  const started = performance.now()
  const rules = Array.from({ length: RULES }, (_, i) => newRule(i, mix.rule(i)))
  const compiled = performance.now()
  const index = ruleIndex(rules)
  const built = performance.now()
  const bytes = heapUsed() - before
  const events = Array.from({ length: EVENTS }, (_, i) => newEvent(i, mix.event(i)))

  let matched = 0
  const rates: number[] = []
  for (let run = 0; run <= RUNS; run += 1) {
    matched = 0
    const rate = perSecond(EVENTS, () => {
      for (const event of events) matched += index.match(celEvent(event), now).matched.length
    })
    if (run > 0) rates.push(rate)
  }

  const sample = events.slice(0, 3)
  const programs = rules.map(rule => (rule.eventPattern ? compile(rule.eventPattern, 'pattern') : undefined))
  const brute = perSecond(sample.length, () => {
    for (const event of sample) {
      if (askAll(rules, programs, event) !== index.match(celEvent(event), now).matched.length) {
        throw new Error(`${mix.name}: the index and asking every rule disagree`)
      }
    }
  })

  const replaced = perSecond(10_000, () => {
    for (let i = 0; i < 10_000; i += 1) index.put(rules[(i * 7) % RULES] as Rule)
  })
  const rate = median(rates)
  rows.push([
    mix.name,
    figure(rate),
    rate >= GOAL ? 'yes' : 'no',
    figure(rate / brute),
    figure(matched / EVENTS),
    figure(1e6 / replaced),
    figure((compiled - started) / 1_000),
    figure((built - compiled) / 1_000),
    figure(bytes / 1e6),
  ])
}
console.log(
  table(
    ['rules', 'events/s', `≥ ${GOAL}`, '× ask all', 'matches', 'replace µs', 'compile s', 'build s', 'MB'],
    rows,
  ),
)
