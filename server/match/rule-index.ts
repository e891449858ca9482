import type { Reason } from '../reasons.ts'
import { PRIORITIES, type Id } from '../types.ts'
import { domainOf, type CelEvent } from './cel.ts'
import { decidedBy, MAX_PATH, pathKey, valueAt, type Equality, type Scalar } from './conditions.ts'
import type { Rule } from './rules.ts'

/**
 * Which of a tenant's rules take an event, found without asking each of them.
 *
 * The first level is the event type: exact, by prefix or by domain, from the rule's own lists or from its pattern.
 * Below it stand trees of equality tests that the patterns demand (`event.data.sku == "a"`): a node that outgrows
 * a few rules splits them by the field that tells each of them best apart. An event follows the values it has. So
 * its cost grows with the rules that nearly match, not with the rules there are. A rule that demands no equality
 * at all (`event.data.n > 5`) is asked for every event of its type.
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
    const tests = testsOf(rule, route)
    for (const [map, keys] of levels(route)) {
      for (const key of keys) {
        let node = map.get(key)
        if (node === undefined) map.set(key, (node = newNode()))
        insert(node, { rule, tests })
      }
    }
    if (route.everywhere) insert(rest, { rule, tests })
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

interface Entry {
  rule: Rule
  /** Those not yet asked on the way here. */
  tests: readonly Equality[]
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

function insertBelow(branches: Map<string, Branch>, { rule, tests }: Entry): void {
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
  for (const value of best.values) {
    let child = branch.children.get(value)
    if (child === undefined) branch.children.set(value, (child = newNode()))
    insert(child, { rule, tests: below })
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
  for (const { rule } of node.entries) verdicts.ask(rule)
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
  ask(rule: Rule): void
  leaves(): Map<string, Scalar> | undefined
  sorted(): Match
}

function newVerdicts(event: CelEvent, now: Date): Verdicts {
  const matched: Rule[] = []
  const considered: Considered[] = []
  let refused = 0
  let leaves: { known: Map<string, Scalar> | undefined } | undefined

  function refuse(rule: Rule, why: Considered['why'], error?: string): void {
    refused += 1
    const last = considered[MAX_CONSIDERED - 1]
    if (last && byUrgency(rule, last.rule) > 0) return
    let at = considered.length
    while (at > 0 && byUrgency(rule, (considered[at - 1] as Considered).rule) < 0) at -= 1
    considered.splice(at, 0, error === undefined ? { rule, why } : { rule, why, error })
    if (considered.length > MAX_CONSIDERED) considered.pop()
  }

  return {
    ask(rule) {
      if (!typeFits(rule, event.type)) return
      if (!rule.enabled) return refuse(rule, 'rule_disabled')
      if (now < rule.validFrom || (rule.validUntil !== undefined && now >= rule.validUntil)) {
        return refuse(rule, 'outside_validity')
      }
      const decided = decidedBy(rule.pattern.conditions, event)
      if (decided === true) return void matched.push(rule)
      if (decided === false) return refuse(rule, 'pattern_false')
      const result = rule.pattern.evaluate(event, now)
      if (!result.ok) refuse(rule, 'pattern_error', result.error)
      else if (result.value) matched.push(rule)
      else refuse(rule, 'pattern_false')
    },
    leaves() {
      leaves ??= { known: leavesOf(event) }
      return leaves.known
    },
    sorted() {
      if (matched.length > 1) matched.sort(byUrgency)
      return { matched, considered, consideredMore: refused - considered.length }
    },
  }
}

const RANK: Record<string, number> = Object.fromEntries(PRIORITIES.map((priority, rank) => [priority, rank]))

function byUrgency(a: Rule, b: Rule): number {
  return (RANK[a.priority] ?? 0) - (RANK[b.priority] ?? 0) || a.no - b.no
}
