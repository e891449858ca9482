import type { Reason } from '../reasons.ts'
import { PRIORITIES, type Id } from '../types.ts'
import { domainOf, type CelEvent } from './cel.ts'
import {
  decidedBy,
  MAX_PATH,
  pathKey,
  valueAt,
  type Conditions,
  type Equality,
  type Scalar,
} from './conditions.ts'
import type { Rule } from './rules.ts'

/**
 * Which of a tenant's rules take an event, found without asking each of them.
 *
 * The first level is the event type: exact, by prefix or by domain, from the rule's own lists or from its pattern.
 * Below it stand trees of equality tests that the patterns demand (`event.data.sku == "a"`): a node that outgrows
 * a few rules splits them by the field that tells each of them best apart. An event follows the values it has. So
 * its cost grows with the rules that nearly match, not with the rules there are. A rule that demands no equality
 * at all (`event.data.n > 5`) is asked for every event of its type, from what its place remembers of it: among
 * 100,000 rules each object that is looked into is a wait for memory.
 *
 * Adding, replacing and removing one rule touches only its own places.
 */
export interface RuleIndex {
  readonly size: number
  get(id: Id): Rule | undefined
  /** Adds the rule, or replaces the one with its id. */
  put(rule: Rule): void
  remove(id: Id): void
  /** Both lists by priority, then number. */
  match(event: CelEvent, now: Date): Match
}

export interface Match {
  matched: Rule[]
  /** Those the index proposed and that said no: the nearest misses, at most 50. */
  considered: Considered[]
  /** How many more said no. */
  consideredMore: number
}

export interface Considered {
  rule: Rule
  why: Extract<Reason, 'pattern_false' | 'pattern_error' | 'outside_validity' | 'rule_disabled'>
  /** Of a pattern_error. Quotes the rule, never the event. */
  error?: string
}

const MAX_CONSIDERED = 50
/** A node splits when it holds more rules than this: asking this many costs about as much as a level of lookups. */
const LEAF = 8
/** A list (`event.data.x in [...]`) longer than this is not used for placing: a place is kept for each value. */
const MAX_PLACES = 32
/** More equalities than this tell a rule no further apart, and finding it again tries each. */
const MAX_TESTS = 6
/** With more branches than this it is cheaper to go through the fields that the event has. */
const PROBE = 16
/** Fields of one event gone through at most; then every branch is tried instead. */
const MAX_LEAVES = 4_096

export function ruleIndex(rules: Iterable<Rule> = []): RuleIndex {
  const byId = new Map<Id, Rule>()
  const byType = new Map<string, Node>()
  /** Keys end with a dot. */
  const byPrefix = new Map<string, Node>()
  const byDomain = new Map<string, Node>()
  const rest = newNode()

  function put(rule: Rule): void {
    remove(rule.id)
    byId.set(rule.id, rule)
    const route = routeOf(rule)
    const entry = entryOf(rule, testsOf(rule, route))
    for (const [map, keys] of levels(route)) {
      for (const key of keys) {
        let node = map.get(key)
        if (node === undefined) map.set(key, (node = newNode()))
        insert(node, entry)
      }
    }
    if (route.everywhere) insert(rest, entry)
  }

  function remove(id: Id): void {
    const rule = byId.get(id)
    if (rule === undefined) return
    byId.delete(id)
    const route = routeOf(rule)
    const tests = testsOf(rule, route)
    for (const [map, keys] of levels(route)) {
      for (const key of keys) {
        const node = map.get(key)
        if (node && take(node, id, tests) && node.size === 0) map.delete(key)
      }
    }
    if (route.everywhere) take(rest, id, tests)
  }

  const levels = (route: Route): [Map<string, Node>, readonly string[]][] => [
    [byType, route.types],
    [byPrefix, route.prefixes],
    [byDomain, route.domains],
  ]

  for (const rule of rules) put(rule)

  return {
    get size() {
      return byId.size
    },
    get: id => byId.get(id),
    put,
    remove,
    match(event, now) {
      const verdicts = newVerdicts(event, now)
      visit(byType.get(event.type), event, verdicts)
      if (byPrefix.size > 0) {
        for (let dot = event.type.indexOf('.'); dot !== -1; dot = event.type.indexOf('.', dot + 1)) {
          visit(byPrefix.get(event.type.slice(0, dot + 1)), event, verdicts)
        }
      }
      visit(byDomain.get(event.domain), event, verdicts)
      visit(rest, event, verdicts)
      return verdicts.sorted()
    },
  }
}

// ------------------------------------------------------------------ the first level

interface Route {
  types: readonly string[]
  prefixes: readonly string[]
  domains: readonly string[]
  everywhere: boolean
}

const NONE: readonly string[] = []
const route = (part: Partial<Route>): Route => ({
  types: NONE,
  prefixes: NONE,
  domains: NONE,
  everywhere: false,
  ...part,
})

/** Where a rule stands. No event comes by two of its places. */
function routeOf(rule: Rule): Route {
  const { equalities, typePrefix } = rule.pattern.conditions
  if (equalities.some(({ values }) => values.size === 0)) return route({})
  const named = equalities.find(({ key }) => key === 'type')
  if (named) {
    const types = [...named.values].filter(type => typeof type === 'string')
    return route({ types: types.filter(type => typeFits(rule, type)) })
  }
  if (rule.eventTypes.length > 0 && !rule.eventTypes.includes('*')) {
    const prefixes = rule.eventTypes.filter(type => type.endsWith('.*')).map(type => type.slice(0, -1))
    const outer = [...new Set(prefixes)].filter(
      prefix => !prefixes.some(other => other !== prefix && prefix.startsWith(other)),
    )
    const exact = rule.eventTypes.filter(type => !type.endsWith('.*'))
    return route({
      types: [...new Set(exact)].filter(type => !outer.some(prefix => type.startsWith(prefix))),
      prefixes: outer,
    })
  }
  const dot = typePrefix?.lastIndexOf('.') ?? -1
  if (typePrefix !== undefined && dot !== -1) return route({ prefixes: [typePrefix.slice(0, dot + 1)] })
  if (rule.domains.length > 0) return route({ domains: [...new Set(rule.domains)] })
  const domain = equalities.find(({ key }) => key === 'domain')
  if (domain) return route({ domains: [...domain.values].filter(value => typeof value === 'string') })
  return route({ everywhere: true })
}

function typeFits(rule: Rule, type: string): boolean {
  if (rule.domains.length > 0 && !rule.domains.includes(domainOf(type))) return false
  if (rule.eventTypes.length === 0) return true
  return rule.eventTypes.some(
    wanted =>
      wanted === type || wanted === '*' || (wanted.endsWith('.*') && type.startsWith(wanted.slice(0, -1))),
  )
}

/** The equalities that can tell a rule from its neighbours. */
function testsOf(rule: Rule, { types, prefixes, domains }: Route): readonly Equality[] {
  const places = types.length + prefixes.length + domains.length
  return rule.pattern.conditions.equalities
    .filter(
      ({ key, values }) => key !== 'type' && key !== 'domain' && values.size <= (places > 1 ? 1 : MAX_PLACES),
    )
    .slice(0, MAX_TESTS)
}

// ------------------------------------------------------------------ the tree

/** A rule as a place holds it, with what asking it takes in a single object. */
interface Entry extends Pick<Conditions, 'comparisons' | 'complete'> {
  rule: Rule
  /** Those that can still tell it from its neighbours. */
  tests: readonly Equality[]
  rank: number
  no: number
  enabled: boolean
  fromMs: number
  untilMs: number
  /** The place settles the type; a list of domains beside it is still to be asked. */
  asksDomain: boolean
  /** Those that the way here has not answered. */
  equalities: readonly Equality[]
}

const NO_EQUALITIES: readonly Equality[] = []

function entryOf(rule: Rule, tests: readonly Equality[]): Entry {
  const { equalities, comparisons, complete } = rule.pattern.conditions
  // A rule that names its type stands at that type and nowhere else.
  const open = equalities.filter(({ key }) => key !== 'type')
  return {
    rule,
    tests,
    rank: RANK[rule.priority] ?? 0,
    no: rule.no,
    enabled: rule.enabled,
    fromMs: rule.validFrom.getTime(),
    untilMs: rule.validUntil?.getTime() ?? Infinity,
    asksDomain: rule.domains.length > 0 && open.length === equalities.length,
    equalities: open.length === 0 ? NO_EQUALITIES : open,
    comparisons,
    complete,
  }
}

interface Node {
  size: number
  entries: Entry[]
  branches: Map<string, Branch> | undefined
}

interface Branch {
  path: readonly string[]
  children: Map<Scalar, Node>
}

const newNode = (): Node => ({ size: 0, entries: [], branches: undefined })

function insert(node: Node, entry: Entry): void {
  node.size += 1
  if (entry.tests.length === 0 || (node.branches === undefined && node.entries.length < LEAF)) {
    node.entries.push(entry)
    return
  }
  if (node.branches === undefined) {
    node.branches = new Map()
    const stay: Entry[] = []
    for (const earlier of node.entries) {
      if (earlier.tests.length === 0) stay.push(earlier)
      else insertBelow(node.branches, earlier)
    }
    node.entries = stay
  }
  insertBelow(node.branches, entry)
}

function insertBelow(branches: Map<string, Branch>, entry: Entry): void {
  const { tests } = entry
  let best: Equality | undefined
  let least = Infinity
  for (const test of tests) {
    const branch = branches.get(test.key)
    // A new field is one more lookup for every event, so it must pay.
    let company = branch ? 0 : LEAF / 2
    if (branch) for (const value of test.values) company += branch.children.get(value)?.size ?? 0
    if (company >= least) continue
    best = test
    least = company
  }
  if (best === undefined) return
  let branch = branches.get(best.key)
  if (branch === undefined) branches.set(best.key, (branch = { path: best.path, children: new Map() }))
  // One list per rule: the places of several would multiply.
  const below = tests.filter(test => test !== best && (best.values.size === 1 || test.values.size === 1))
  const equalities = entry.equalities.length === 1 ? NO_EQUALITIES : entry.equalities.filter(e => e !== best)
  for (const value of best.values) {
    let child = branch.children.get(value)
    if (child === undefined) branch.children.set(value, (child = newNode()))
    insert(child, { ...entry, tests: below, equalities })
  }
}

/** Takes a rule out of a node; says whether it was there. */
function take(node: Node, id: Id, tests: readonly Equality[]): boolean {
  const at = node.entries.findIndex(entry => entry.rule.id === id)
  if (at !== -1) {
    const last = node.entries.pop() as Entry
    if (at < node.entries.length) node.entries[at] = last
    node.size -= 1
    return true
  }
  if (node.branches === undefined) return false
  for (const test of tests) {
    const branch = node.branches.get(test.key)
    if (branch === undefined) continue
    const below = tests.filter(other => other !== test)
    let found = false
    for (const value of test.values) {
      const child = branch.children.get(value)
      if (!child || !take(child, id, below)) continue
      found = true
      if (child.size === 0) branch.children.delete(value)
    }
    if (!found) continue
    if (branch.children.size === 0) node.branches.delete(test.key)
    if (node.branches.size === 0) node.branches = undefined
    node.size -= 1
    return true
  }
  return false
}

function visit(node: Node | undefined, event: CelEvent, verdicts: Verdicts): void {
  if (node === undefined) return
  for (const entry of node.entries) verdicts.ask(entry)
  const { branches } = node
  if (branches === undefined) return
  const leaves = branches.size > PROBE ? verdicts.leaves() : undefined
  if (leaves === undefined || leaves.size > branches.size) {
    for (const { path, children } of branches.values()) {
      visit(children.get(valueAt(event, path) as Scalar), event, verdicts)
    }
    return
  }
  for (const [key, value] of leaves) visit(branches.get(key)?.children.get(value), event, verdicts)
}

/** Every scalar of the event by its path; undefined when there are too many. */
function leavesOf(event: CelEvent): Map<string, Scalar> | undefined {
  const leaves = new Map<string, Scalar>()
  const open: { at: object; path: string[] }[] = [{ at: event, path: [] }]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const fields = next.at instanceof Map ? next.at.entries() : Object.entries(next.at)
    for (const [name, value] of fields as Iterable<[string, unknown]>) {
      if (name.includes('\0')) continue
      const path = [...next.path, name]
      if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') {
        if (leaves.size + open.length >= MAX_LEAVES) return undefined
        leaves.set(pathKey(path), value)
      } else if (isObject(value) && path.length < MAX_PATH) {
        if (leaves.size + open.length >= MAX_LEAVES) return undefined
        open.push({ at: value, path })
      }
    }
  }
  return leaves
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

// ------------------------------------------------------------------ asking

interface Verdicts {
  ask(entry: Entry): void
  leaves(): Map<string, Scalar> | undefined
  sorted(): Match
}

interface Refusal {
  entry: Entry
  why: Considered['why']
  error: string | undefined
}

function newVerdicts(event: CelEvent, now: Date): Verdicts {
  const nowMs = now.getTime()
  const taken: Entry[] = []
  const refusals: Refusal[] = []
  let refused = 0
  let leaves: { known: Map<string, Scalar> | undefined } | undefined
  // Neighbours mostly ask for the same field, and equal paths are one array (conditions.ts).
  let lastPath: readonly string[] | undefined
  let lastValue: unknown

  function valueOf(path: readonly string[]): unknown {
    if (path !== lastPath) {
      lastPath = path
      lastValue = valueAt(event, path)
    }
    return lastValue
  }

  function refuse(entry: Entry, why: Considered['why'], error?: string): void {
    refused += 1
    const last = refusals[MAX_CONSIDERED - 1]
    if (last && byUrgency(entry, last.entry) > 0) return
    let at = refusals.length
    while (at > 0 && byUrgency(entry, (refusals[at - 1] as Refusal).entry) < 0) at -= 1
    const refusal = { entry, why, error }
    if (at === refusals.length) refusals.push(refusal)
    else refusals.splice(at, 0, refusal)
    if (refusals.length > MAX_CONSIDERED) refusals.pop()
  }

  return {
    ask(entry) {
      if (entry.asksDomain && !entry.rule.domains.includes(event.domain)) return
      if (!entry.enabled) return refuse(entry, 'rule_disabled')
      if (nowMs < entry.fromMs || nowMs >= entry.untilMs) return refuse(entry, 'outside_validity')
      const decided = decidedBy(entry, valueOf)
      if (decided === true) return void taken.push(entry)
      if (decided === false) return refuse(entry, 'pattern_false')
      const result = entry.rule.pattern.evaluate(event, now)
      if (!result.ok) refuse(entry, 'pattern_error', result.error)
      else if (result.value) taken.push(entry)
      else refuse(entry, 'pattern_false')
    },
    leaves() {
      leaves ??= { known: leavesOf(event) }
      return leaves.known
    },
    sorted() {
      if (taken.length > 1) taken.sort(byUrgency)
      return {
        matched: taken.map(({ rule }) => rule),
        considered: refusals.map(({ entry: { rule }, why, error }) =>
          error === undefined ? { rule, why } : { rule, why, error },
        ),
        consideredMore: refused - refusals.length,
      }
    },
  }
}

const RANK: Record<string, number> = Object.fromEntries(PRIORITIES.map((priority, rank) => [priority, rank]))

const byUrgency = (a: Entry, b: Entry): number => a.rank - b.rank || a.no - b.no
