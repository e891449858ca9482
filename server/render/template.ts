import Handlebars from 'handlebars'
import { AppError } from '../errors.ts'
import { type Escape, escapeHtml, escapeJson, escapeSlack, toText } from './escape.ts'
import { HELPERS, type Helper, type Reader, truncate, truthy } from './helpers.ts'
import {
  type HtmlPosition,
  advanceHtml,
  afterHtmlValue,
  htmlStart,
  meetHtml,
  placeOf,
  safeAddress,
  safeAddressPart,
  safeStyle,
  safeStyleAddress,
} from './html-position.ts'
import {
  type JsonPosition,
  advanceJson,
  afterValue,
  isLinkMember,
  jsonStart,
  meetJson,
} from './json-position.ts'
import { type Catalogue, type Message, compileMessage } from './messages.ts'

/**
 * Handlebars templates, parsed by Handlebars and evaluated by closures of our own.
 *
 * Handlebars turns a template into JavaScript source and runs that. Its parser and language are kept here, its
 * code generator is not used: nothing a tenant writes ever becomes code (CVE-2026-33937 and -33916 were holes of
 * that kind), every loop and every output can be bounded, JSON and Slack get an escaping of their own, and a
 * render takes a fifth of the time. template.test.ts holds both against each other over random templates and data.
 *
 * Allowed: values, `if`, `unless`, `each`, `with`, `else`, `lookup`, block parameters, `../`, `@index @key
 * @first @last @root @subject`, comments, whitespace control, the helpers of helpers.ts, and partials by their names.
 * Refused: decorators, partials whose name is found out while rendering, `{{#anything}}` else, unknown helpers,
 * `{{{raw}}}` where values are escaped.
 *
 * A partial is compiled where it is called, for the place it is called at: its values are escaped as what belongs
 * there, and what it costs, opens and leaves open is known when the text is saved.
 *
 * Where the two differ, on purpose:
 * - in HTML a value is written as what belongs where it stands: see html-position.ts;
 * - `{{a}}{{b}}` with two numbers in plain text is "12"; Handlebars' noEscape adds them up to "3";
 * - an object with its own `toString` prints as any other object; in Handlebars it throws;
 * - `../` is the enclosing #each or #with as written; Handlebars skips one whose value equals (`==`) its parent;
 * - inside #each, a null item stays null within an #if; Handlebars makes it an empty object;
 * - a bare name of a helper, such as `{{date}}`, is the field of that name: every helper needs an argument;
 * - what stands within `{{#> layout}}…{{/layout}}` sees what it would see without the layout around it; in Handlebars
 *   it sees whatever the layout is looking at when it says `{{> @partial-block}}`;
 * - a value that is given to a partial, `{{> row sum=total}}`, is there by its name, not as a member of `this`.
 */
export interface CompiledTemplate {
  /** Pure: the same view gives the same text. AppError('invalid_template') when a bound is exceeded. */
  render(view: View): string
  /** The fields it reads, as paths from the root: `service`, `event.type`, `items[].name`. */
  variables: string[]
  /** Whether it says `@subject`. */
  readsSubject: boolean
  /** Messages it says that neither it nor the layout that says them has. */
  said: ReadonlySet<string>
  /** Whether something in it may be shortened: `{{fit name}}`. */
  fits: boolean
}

/** What a template sees. */
export interface View extends Reader {
  /** Found first, by their own names. */
  names: Record<string, unknown>
  /** Objects whose members can be named directly where `names` has no such member; the first one wins. */
  layers: readonly (Record<string, unknown> | undefined)[]
  /** Makes the links of a text short where the template, or else the tenant, wants it. */
  links?: TextLinks
  /** The finished subject, for the title of a layout: `{{@subject}}`. */
  subject?: string
}

export interface TextLinks {
  /** Whether the tenant wants it, for templates that say nothing of it. */
  wanted: boolean
  /** The same text has the same links each time. */
  shorten(text: string): string
}

/** A text that others take in by its name. */
export interface Partial {
  source: string
  /** What names within it mean. */
  partials: Partials
  /** What `t` within it says. */
  messages: Catalogue | undefined
}

/** Partials by name; a text is the reason why there is none. */
export type Partials = (name: string) => Partial | string

/** What a text's partials come to, counted over all texts that share it. */
export interface Expansion {
  /** Tags and characters that may still be compiled. */
  tags: number
  chars: number
}

const NOTHING_SAID: ReadonlySet<string> = new Set()

/** Longest source, in UTF-16 units. */
export const MAX_SOURCE = 256 * 1024
/** Longest result of one field. */
export const MAX_OUTPUT = 1024 * 1024
/** Items of one list that `each` shows; `@last` is true at the last one shown. */
export const MAX_ITEMS = 1_000
/** `#each` within `#each`. */
const MAX_EACH = 2
/** Blocks within blocks, each `else if` counted, and parentheses within parentheses. */
const MAX_NESTING = 32
/** `{{…}}` in one source. Parsing 5,000 takes about 40 ms. */
const MAX_TAGS = 5_000
/** Characters of one `{{…}}`; the parser takes 1 s for a path of 100,000 names. Comments may be longer. */
const MAX_TAG = 4_000
/** Partials within partials. */
const MAX_PARTIALS = 8
/** The same with blocks in which others stand: a layout may be put into itself, and its block into another one. */
const MAX_FRAMES = 64
/** `{{…}}` of a text with its partials, each time that one is taken in. */
const MAX_EXPANDED_TAGS = MAX_TAGS
/** Characters of the same: more could not be put out either. */
const MAX_EXPANDED_CHARS = MAX_OUTPUT
/** Values put out in one render, a helper counting several: about 50 ms of work. */
const MAX_STEPS = 200_000

const HELPER_STEPS = 4
const CHARS_PER_STEP = 64
const KEYS_PER_STEP = 16

/**
 * Compiles one field. AppError('invalid_template') with `extra: {line, column}`, both from 1.
 *
 * @param messages what `{{t "key"}}` says; without any there is no `t`
 * @param partials without them there are none
 */
export function compileTemplate(
  source: string,
  escape: Escape,
  messages?: Catalogue,
  partials: Partials = name => `there is no partial "${name}"`,
  shared?: Expansion,
): CompiledTemplate {
  // A Handlebars AST may also be an object; only text of ours to parse may ever get there.
  if (typeof source !== 'string') throw new AppError('invalid_template', 'a template must be text')
  if (source.length > MAX_SOURCE) {
    throw new AppError('invalid_template', `the template is longer than ${MAX_SOURCE} characters`)
  }
  // Most subjects and many bodies have nothing to fill in.
  if (!source.includes('{{')) {
    return { render: () => source, variables: [], readsSubject: false, fits: false, said: NOTHING_SAID }
  }

  const compiler: Compiler = {
    escape,
    variables: new Set(),
    said: new Set(),
    readsSubject: false,
    fits: false,
    json: jsonStart(),
    html: htmlStart(),
    messages,
    partials,
    within: undefined,
    frames: 0,
    left: { tags: MAX_EXPANDED_TAGS, chars: MAX_EXPANDED_CHARS },
    shared,
  }
  const { part } = compileProgram(parse(source), undefined, compiler)
  return {
    variables: [...compiler.variables],
    readsSubject: compiler.readsSubject,
    said: compiler.said,
    fits: compiler.fits,
    render(view) {
      try {
        return part(
          { ctx: view.names, up: undefined, index: 0, key: 0, last: false },
          { view, steps: MAX_STEPS },
        )
      } catch (error) {
        // JSON of any depth parses, but not everything can be walked recursively.
        if (error instanceof RangeError)
          throw new AppError('invalid_template', 'the data is nested too deeply')
        throw error
      }
    },
  }
}

// ------------------------------------------------------------------------------------------------ running

/** What `this` is, and how to get out again. Only #each, #with and partials make one: its depth is known when compiling. */
interface Scope {
  ctx: unknown
  up: Scope | undefined
  index: number
  key: string | number
  last: boolean
}

interface Run {
  view: View
  steps: number
}

type Part = (scope: Scope, run: Run) => string
type Value = (scope: Scope, run: Run) => unknown

function spend(run: Run, steps: number): void {
  run.steps -= steps
  if (run.steps < 0) {
    throw new AppError('invalid_template', `the template takes more than ${MAX_STEPS} steps with this data`)
  }
}

function bounded(length: number): void {
  if (length > MAX_OUTPUT) {
    throw new AppError('invalid_template', `the result is longer than ${MAX_OUTPUT} characters`)
  }
}

/** An own member, never an inherited one: `constructor`, `__proto__` and methods cannot be reached. */
function member(of: unknown, name: string, run: Run): unknown {
  if (of === null || of === undefined) return of
  if (Object.hasOwn(of, name)) return plain((of as Record<string, unknown>)[name])
  if (of === run.view.names) {
    for (const layer of run.view.layers) {
      if (layer && Object.hasOwn(layer, name)) return plain(layer[name])
    }
  }
  return undefined
}

const plain = (value: unknown) => (typeof value === 'function' ? undefined : value)

// ---------------------------------------------------------------------------------------------- compiling

interface Compiler {
  escape: Escape
  variables: Set<string>
  said: Set<string>
  readsSubject: boolean
  fits: boolean
  /** Where the JSON text has arrived; moves on as nodes are compiled in order. */
  json: JsonPosition
  /** The same for HTML. */
  html: HtmlPosition
  messages: Catalogue | undefined
  partials: Partials
  /** The call that is being compiled; undefined in the text itself. */
  within: PartialCall | undefined
  /** How many partials and blocks of theirs are around what is being compiled; 0 in the text itself. */
  frames: number
  /** What partials may still come to in this text, and in all that are checked with it. */
  left: Expansion
  shared: Expansion | undefined
}

/** One place at which a partial is taken in. */
interface PartialCall {
  name: string
  depth: number
  /** What stands within `{{#> name}}…{{/name}}`, and where that is. */
  block: hbs.AST.Program | undefined
  scope: StaticScope | undefined
  /** Runtime scopes from within the partial, at its top, out to where the block stands. */
  hops: number
  /** What was so outside. */
  messages: Catalogue | undefined
  partials: Partials
  within: PartialCall | undefined
}

/** What is known about an enclosing #each, #with or partial when compiling. */
interface StaticScope {
  /** `given`: a value that a partial is called with; `partial`: its top, beyond which it sees nothing. */
  kind: 'each' | 'with' | 'given' | 'partial'
  up: StaticScope | undefined
  params: string[]
  /** Path of `this` from the root, where it is a path. */
  path: string | undefined
}

interface CompiledPart {
  part: Part
  /** Steps it takes, loops inside not counted. */
  cost: number
}

interface CompiledValue {
  value: Value
  path?: string | undefined
}

type Node = hbs.AST.Node
type Call = Pick<hbs.AST.MustacheStatement, 'params' | 'hash' | 'loc'> & { path: Node }

function fail(node: Pick<Node, 'loc'> | undefined, message: string): never {
  const start = node?.loc?.start
  if (!start) throw new AppError('invalid_template', message)
  return failAt(start.line, start.column + 1, message)
}

/** Refuses a text for what is at a place, both counted from 1; long quotations are cut. */
export function failAt(line: number, column: number, what: string): never {
  const message = truncate(what, 300)
  throw new AppError('invalid_template', `line ${line}, column ${column}: ${message}`, {
    extra: { line, column },
  })
}

const isJson = (escape: Escape) => escape === 'json' || escape === 'slack_json'

function compileProgram(
  program: hbs.AST.Program | undefined,
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledPart {
  // Texts and parts alternate: texts[0] parts[0] texts[1] parts[1] … texts[n].
  const texts = ['']
  const parts: Part[] = []
  let cost = 1
  for (const node of program?.body ?? []) {
    if (node.type === 'ContentStatement') {
      const { value } = node as hbs.AST.ContentStatement
      expand(node, 0, value.length, compiler)
      texts[texts.length - 1] += value
      if (isJson(compiler.escape)) compiler.json = advanceJson(compiler.json, value)
      else if (compiler.escape === 'html') compiler.html = advanceHtml(compiler.html, value)
      continue
    }
    expand(node, 1, 0, compiler)
    if (node.type === 'CommentStatement') continue
    const compiled = compileStatement(node, scope, compiler)
    parts.push(compiled.part)
    texts.push('')
    cost += compiled.cost
  }
  return { part: sequence(texts, parts), cost }
}

function sequence(texts: string[], parts: Part[]): Part {
  const first = texts[0]!
  const count = parts.length
  if (count === 0) return () => first
  return (scope, run) => {
    let out = first
    for (let i = 0; i < count; i++) {
      out += parts[i]!(scope, run) + texts[i + 1]!
      bounded(out.length)
    }
    return out
  }
}

function compileStatement(node: Node, scope: StaticScope | undefined, compiler: Compiler): CompiledPart {
  switch (node.type) {
    case 'MustacheStatement':
      return compileMustache(node as hbs.AST.MustacheStatement, scope, compiler)
    case 'BlockStatement':
      return compileBlock(node as hbs.AST.BlockStatement, scope, compiler)
    case 'PartialStatement':
    case 'PartialBlockStatement':
      return compilePartial(node as AnyPartial, scope, compiler)
    case 'Decorator':
    case 'DecoratorBlock':
      return fail(node, 'decorators and inline partials are not available')
    default:
      return fail(node, `${node.type} is not available`)
  }
}

function compileMustache(
  node: hbs.AST.MustacheStatement,
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledPart {
  const { escape } = compiler
  if (node.escaped === false && escape !== 'none') {
    fail(node, 'values are always escaped here: write {{…}} with two braces')
  }
  if (isJson(escape)) return compileJsonMustache(node, scope, compiler)
  const { value } = compileCall(node, scope, compiler)
  const cost = 1
  if (escape === 'html') return { part: htmlPart(node, value, compiler), cost }
  if (escape === 'slack') return { part: (s, run) => escapeSlack(toText(value(s, run))), cost }
  return { part: (s, run) => toText(value(s, run)), cost }
}

/** A value as what it is where it stands: running text, an address, a style. */
function htmlPart(node: Node, value: Value, compiler: Compiler): Part {
  const place = placeOf(compiler.html)
  compiler.html = afterHtmlValue(compiler.html)
  switch (place) {
    case 'text':
      return (s, run) => escapeHtml(toText(value(s, run)))
    case 'address':
      return (s, run) => escapeHtml(safeAddress(toText(value(s, run))))
    case 'addressPart':
      return (s, run) => escapeHtml(safeAddressPart(toText(value(s, run))))
    case 'style':
      return (s, run) => safeStyle(toText(value(s, run)))
    case 'styleAddress':
      return (s, run) => escapeHtml(safeStyleAddress(toText(value(s, run))))
    default:
      return fail(node, place.refused)
  }
}

function compileJsonMustache(
  node: hbs.AST.MustacheStatement,
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledPart {
  const { inString, escaped, key } = compiler.json
  if (escaped) fail(node, 'a value cannot follow a backslash')
  const slack = compiler.escape === 'slack_json'
  if (inString) {
    const { value } = compileCall(node, scope, compiler)
    return slack && !isLinkMember(key)
      ? { part: (s, run) => escapeJson(escapeSlack(toText(value(s, run)))), cost: 1 }
      : { part: (s, run) => escapeJson(toText(value(s, run))), cost: 1 }
  }
  compiler.json = afterValue(compiler.json)
  // A whole value: {{json x}} and {{x}} mean the same here.
  const call =
    helperName(node) === 'json' && node.params.length === 1
      ? { ...node, path: node.params[0]!, params: [] }
      : node
  const { value } =
    call === node ? compileCall(node, scope, compiler) : compileExpression(call.path, scope, compiler)
  const replace = slack
    ? (name: string, v: unknown) => {
        const member = name === '' ? key : name
        return typeof v === 'string' && !isLinkMember(member) ? escapeSlack(v) : v
      }
    : undefined
  return { part: (s, run) => JSON.stringify(value(s, run) ?? null, replace), cost: 1 }
}

// ------------------------------------------------------------------------------------------------- blocks

function compileBlock(
  node: hbs.AST.BlockStatement,
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledPart {
  const name = simpleName(node.path)
  const params = node.program?.blockParams ?? node.inverse?.blockParams ?? []
  const arity = { if: 0, unless: 0, each: 2, with: 1 }[name ?? '']
  if (arity === undefined) {
    fail(node, `{{#${node.path.original}}} is not available: blocks are #if, #unless, #each and #with`)
  }
  if (node.params.length !== 1) fail(node, `#${name} takes exactly one argument`)
  if (params.length > arity) fail(node, `#${name} takes at most ${arity} block parameters`)
  const zero = node.hash?.pairs.find(pair => pair.key === 'includeZero')
  const unknown = node.hash?.pairs.find(pair => pair !== zero || arity > 0)
  if (unknown) fail(unknown, `#${name} has no option ${unknown.key}`)

  const subject = compileExpression(node.params[0]!, scope, compiler)
  if (name === 'each') return compileEach(node, subject, params, scope, compiler)
  if (name === 'with') return compileWith(node, subject, params, scope, compiler)

  const test = subject.value
  const includeZero = zero && compileExpression(zero.value, scope, compiler).value
  const holds = includeZero
    ? (s: Scope, run: Run) => {
        const value = test(s, run)
        return value === 0 ? Boolean(includeZero(s, run)) : truthy(value)
      }
    : (s: Scope, run: Run) => truthy(test(s, run))
  const [program, inverse] = compileBranches(node, scope, scope, compiler)
  const [yes, no] = name === 'if' ? [program.part, inverse.part] : [inverse.part, program.part]
  return {
    part: (s, run) => (holds(s, run) ? yes(s, run) : no(s, run)),
    cost: 1 + Math.max(program.cost, inverse.cost),
  }
}

/** Both branches; in JSON they must agree about where they end, or what follows would have two readings. */
function compileBranches(
  node: hbs.AST.BlockStatement,
  inside: StaticScope | undefined,
  outside: StaticScope | undefined,
  compiler: Compiler,
): [CompiledPart, CompiledPart] {
  const start = compiler.json
  const htmlStart = compiler.html
  const program = compileProgram(node.program, inside, compiler)
  const end = compiler.json
  const htmlEnd = compiler.html
  compiler.json = start
  compiler.html = htmlStart
  const inverse = compileProgram(node.inverse, outside, compiler)
  // A loop runs any number of times, so it must end where it started.
  const loops = inside?.kind === 'each' && inside !== outside
  if (compiler.escape === 'html') {
    const meeting = meetHtml(htmlEnd, compiler.html)
    if (!meeting || (loops && !meetHtml(htmlEnd, htmlStart))) {
      return fail(node, 'what begins in a branch, a tag or a quoted value, must end there')
    }
    compiler.html = meeting
  }
  if (isJson(compiler.escape)) {
    const meeting = meetJson(end, compiler.json)
    if (!meeting || (loops && end.inString !== start.inString)) {
      return fail(node, 'a quoted JSON string must begin and end in the same branch')
    }
    compiler.json = meeting
  }
  return [program, inverse]
}

function compileEach(
  node: hbs.AST.BlockStatement,
  { value, path }: CompiledValue,
  params: string[],
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledPart {
  let loops = 1
  for (let outer = scope; outer; outer = outer.up) if (outer.kind === 'each') loops++
  if (loops > MAX_EACH) fail(node, `#each can be nested ${MAX_EACH} deep at most`)

  const itemPath = path === undefined ? undefined : `${path}[]`
  const inner: StaticScope = { kind: 'each', up: scope, params, path: itemPath }
  const [body, otherwise] = compileBranches(node, inner, scope, compiler)
  const { part, cost } = body

  const eachItem = (list: unknown[], up: Scope, run: Run) => {
    const count = Math.min(list.length, MAX_ITEMS)
    let out = ''
    for (let i = 0; i < count; i++) {
      spend(run, cost)
      out += part({ ctx: plain(list[i]), up, index: i, key: i, last: i === count - 1 }, run)
      bounded(out.length)
    }
    return out
  }
  const eachMember = (object: Record<string, unknown>, keys: string[], up: Scope, run: Run) => {
    const count = Math.min(keys.length, MAX_ITEMS)
    let out = ''
    for (let i = 0; i < count; i++) {
      spend(run, cost)
      const key = keys[i]!
      out += part({ ctx: plain(object[key]), up, index: i, key, last: i === count - 1 }, run)
      bounded(out.length)
    }
    return out
  }
  return {
    part(s, run) {
      const subject = value(s, run)
      if (Array.isArray(subject)) {
        return subject.length > 0 ? eachItem(subject, s, run) : otherwise.part(s, run)
      }
      if (subject === null || typeof subject !== 'object') return otherwise.part(s, run)
      const keys = Object.keys(subject)
      spend(run, Math.floor(keys.length / KEYS_PER_STEP))
      return keys.length > 0
        ? eachMember(subject as Record<string, unknown>, keys, s, run)
        : otherwise.part(s, run)
    },
    cost: 1 + otherwise.cost,
  }
}

function compileWith(
  node: hbs.AST.BlockStatement,
  { value, path }: CompiledValue,
  params: string[],
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledPart {
  const inner: StaticScope = { kind: 'with', up: scope, params, path }
  const [body, otherwise] = compileBranches(node, inner, scope, compiler)
  return {
    part(s, run) {
      const ctx = value(s, run)
      // Zero is something to be with; other false values and the empty list are not.
      return ctx === 0 || truthy(ctx)
        ? body.part({ ctx, up: s, index: 0, key: 0, last: false }, run)
        : otherwise.part(s, run)
    },
    cost: 1 + Math.max(body.cost, otherwise.cost),
  }
}

// ----------------------------------------------------------------------------------------------- partials

type AnyPartial = (hbs.AST.PartialStatement | hbs.AST.PartialBlockStatement) & { indent?: string }

/** A mistake in a block, on its way out through the layout around it: it is the text's, not the layout's. */
type BlockMistake = Error & { blockOf: PartialCall }

const blockMistake = (blockOf: PartialCall, cause: unknown): BlockMistake =>
  Object.assign(new Error('a mistake in a block', { cause }), { blockOf })

const isBlockMistake = (error: unknown): error is BlockMistake => error instanceof Error && 'blockOf' in error

/** What partials take in counts; the text itself is bounded before it is parsed. */
function expand(node: Node, tags: number, chars: number, { frames, left, shared }: Compiler): void {
  if (frames === 0) return
  for (const budget of shared ? [left, shared] : [left]) {
    budget.tags -= tags
    budget.chars -= chars
    if (budget.tags < 0 || budget.chars < 0) fail(node, 'with its partials the text is too long')
  }
}

function compilePartial(node: AnyPartial, scope: StaticScope | undefined, compiler: Compiler): CompiledPart {
  const path = node.name as Node
  if (path.type === 'PathExpression' && (path as hbs.AST.PathExpression).data) {
    return compilePartialBlock(node, scope, compiler)
  }
  if (path.type !== 'PathExpression' && path.type !== 'StringLiteral') {
    return fail(node, 'a partial is called by its name')
  }
  const name = (path as hbs.AST.PathExpression).original
  const outer = compiler.within
  for (let call = outer; call; call = call.within) {
    if (call.name === name && sameBook(call, compiler)) fail(node, `the partial "${name}" takes in itself`)
  }
  const depth = (outer?.depth ?? 0) + 1
  if (depth > MAX_PARTIALS) fail(node, `partials are nested more than ${MAX_PARTIALS} deep`)
  const found = compiler.partials(name)
  if (typeof found === 'string') return fail(node, found)
  if (node.params.length > 1) fail(node, 'a partial takes one thing to look at, and values by name')

  // Each value is a scope of its own around the partial, so that it is found as block parameters are.
  const start = scope
  const subject = node.params[0] && compileExpression(node.params[0], scope, compiler)
  const given: Value[] = []
  const names = new Set<string>()
  for (const pair of node.hash?.pairs ?? []) {
    if (names.has(pair.key)) fail(pair, `${name} is given ${pair.key} already`)
    names.add(pair.key)
    const { value, path } = compileExpression(pair.value, start, compiler)
    const beyond = given.length
    given.push(beyond === 0 ? value : (s, run) => value(climb(s, beyond), run))
    scope = { kind: 'given', up: scope, params: [pair.key], path }
  }
  const count = given.length
  const around = thisPath(start)
  scope = { kind: 'partial', up: scope, params: [], path: subject ? subject.path : around }

  const call: PartialCall = {
    name,
    depth,
    block:
      node.type === 'PartialBlockStatement' ? (node as hbs.AST.PartialBlockStatement).program : undefined,
    scope: start,
    hops: count + 1,
    messages: compiler.messages,
    partials: compiler.partials,
    within: outer,
  }
  let compiled: CompiledPart
  try {
    enter(node, compiler)
    compiler.within = call
    compiler.messages = found.messages
    compiler.partials = found.partials
    compiled = compileProgram(programOf(found), scope, compiler)
  } catch (error) {
    if (isBlockMistake(error)) throw error.blockOf === call ? error.cause : error
    if (!(error instanceof AppError)) throw error
    return fail(node, `in "${truncate(name, 60)}": ${error.message}`)
  } finally {
    compiler.frames--
    compiler.within = outer
    compiler.messages = call.messages
    compiler.partials = call.partials
  }

  const { part, cost } = compiled
  const look = subject?.value
  const { indent } = node
  return {
    part(s, run) {
      // What it looks at and is given is found where it is called.
      const ctx = look ? look(s, run) : s.ctx
      let at = s
      for (const value of given) at = scopeOf(plain(value(at, run)), at)
      const text = part(scopeOf(ctx, at), run)
      return indent ? indented(text, indent) : text
    },
    cost: cost + count + 1,
  }
}

/** One that is taken in often is parsed once. */
const programs = new WeakMap<Partial, hbs.AST.Program>()

function programOf(partial: Partial): hbs.AST.Program {
  let program = programs.get(partial)
  if (!program) programs.set(partial, (program = parsePartial(partial.source)))
  return program
}

/** Parses a text that others take in. AppError as of `compileTemplate`. */
export function parsePartial(source: string): hbs.AST.Program {
  if (source.length > MAX_SOURCE) {
    throw new AppError('invalid_template', `the partial is longer than ${MAX_SOURCE} characters`)
  }
  return parse(source)
}

function enter(node: Node, compiler: Compiler): void {
  if (++compiler.frames > MAX_FRAMES)
    fail(node, `partials and blocks are nested more than ${MAX_FRAMES} deep`)
}

const scopeOf = (ctx: unknown, up: Scope): Scope => ({ ctx, up, index: 0, key: 0, last: false })

/** Two partials of one name are one only if the name meant the same where each was called. */
const sameBook = (call: PartialCall, { partials }: Compiler): boolean =>
  call.partials === partials || call.partials(call.name) === partials(call.name)

const thisPath = (scope: StaticScope | undefined): string | undefined => (scope ? scope.path : '')

/** A partial alone on its line is indented as the line is. */
function indented(text: string, indent: string): string {
  const lines = text.split('\n')
  // Before it is made: a thousand lines with an indent of a hundred thousand spaces would be 100 MB.
  bounded(text.length + lines.length * indent.length)
  const last = lines.length - 1
  return lines.map((line, i) => (line === '' && i === last ? line : indent + line)).join('\n')
}

/** `{{> @partial-block}}`: what the caller wrote within its block, or else what stands within this one. */
function compilePartialBlock(
  node: AnyPartial,
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledPart {
  const path = node.name as hbs.AST.PathExpression
  if (path.original !== '@partial-block') {
    return fail(node, `"${path.original}" is not available: there is @partial-block`)
  }
  if (node.params.length > 0 || node.hash?.pairs.length) fail(node, '@partial-block takes no arguments')
  const call = compiler.within
  if (!call?.block) {
    const otherwise =
      node.type === 'PartialBlockStatement' ? (node as hbs.AST.PartialBlockStatement).program : undefined
    return compileProgram(otherwise, scope, compiler)
  }
  // How far it is from here to the top of the partial, and from there to where the block stands.
  let hops = call.hops
  for (let s = scope; s && s.kind !== 'partial'; s = s.up) hops++
  const inside = { messages: compiler.messages, partials: compiler.partials }
  enter(node, compiler)
  try {
    compiler.within = call.within
    compiler.messages = call.messages
    compiler.partials = call.partials
    const { part, cost } = compileProgram(call.block, call.scope, compiler)
    return { part: (s, run) => part(climb(s, hops), run), cost: cost + 1 }
  } catch (error) {
    throw isBlockMistake(error) ? error : blockMistake(call, error)
  } finally {
    compiler.frames--
    compiler.within = call
    Object.assign(compiler, inside)
  }
}

// -------------------------------------------------------------------------------------------- expressions

/** The name when a path is one plain word, as a helper's must be. */
function simpleName(node: Node): string | undefined {
  if (node.type !== 'PathExpression') return undefined
  const path = node as hbs.AST.PathExpression
  return path.parts.length === 1 && path.depth === 0 && !path.data && !isScoped(path)
    ? path.parts[0]
    : undefined
}

/** `./name` and `this.name` mean the current object's field, never a block parameter or helper. */
const isScoped = (path: hbs.AST.PathExpression) => /^(\.|this\b)/.test(path.original)

function helperName(call: Call): string | undefined {
  return call.params.length > 0 || (call.hash?.pairs.length ?? 0) > 0 ? simpleName(call.path) : undefined
}

/** A mustache or parentheses: a helper with arguments, or else a path. */
function compileCall(call: Call, scope: StaticScope | undefined, compiler: Compiler): CompiledValue {
  const pairs = call.hash?.pairs ?? []
  if (call.params.length === 0 && pairs.length === 0) {
    if (call.path.type !== 'PathExpression') {
      // {{"a field"}} and {{12}} name fields that are no plain words.
      const { original } = call.path as hbs.AST.StringLiteral
      return compilePath(
        {
          ...call.path,
          data: false,
          depth: 0,
          parts: [String(original)],
          original: String(original),
        } as hbs.AST.PathExpression,
        scope,
        compiler,
      )
    }
    const name = simpleName(call.path)
    if (name !== undefined && RESERVED.includes(name) && !isParam(name, scope)) {
      fail(call, `${name} needs an argument${name === 'lookup' ? '' : ` and a block: {{#${name} …}}`}`)
    }
    return compilePath(call.path as hbs.AST.PathExpression, scope, compiler)
  }

  const name = simpleName(call.path)
  const original = (call.path as hbs.AST.PathExpression).original
  if (name === 'lookup') return compileLookup(call, scope, compiler)
  if (name === 't' || name === 'icu') return compileMessageCall(name, call, scope, compiler)
  if (name === undefined || !Object.hasOwn(HELPERS, name)) {
    return fail(
      call,
      `there is no helper "${original}"; there are lookup, t, icu, ${Object.keys(HELPERS).join(', ')}`,
    )
  }
  const helper = HELPERS[name]!
  if (name === 'fit') compiler.fits = true
  const [least, most] = helper.args
  if (call.params.length < least || call.params.length > most) {
    fail(call, `${name} takes ${least === most ? least : `${least} to ${most}`} arguments`)
  }
  const unknown = pairs.find(
    (pair, i) => !helper.options?.includes(pair.key) || pairs.findIndex(p => p.key === pair.key) !== i,
  )
  if (unknown) fail(unknown, `${name} has no option ${unknown.key}, or has it already`)
  checkLiterals(call, helper)

  const args = call.params.map(param => compileExpression(param, scope, compiler).value)
  if (!helper.prepare) return { value: helperValue(args, () => helper.run!) }
  const { prepare } = helper
  if (pairs.every(pair => isLiteral(pair.value))) {
    const prepared = prepare(Object.fromEntries(pairs.map(pair => [pair.key, literal(pair.value)])))
    return { value: helperValue(args, () => prepared) }
  }
  const options = pairs.map(pair => [pair.key, compileExpression(pair.value, scope, compiler).value] as const)
  return {
    value: helperValue(args, (s, run) => {
      const given: Record<string, unknown> = {}
      for (const [key, value] of options) given[key] = value(s, run)
      return prepare(given)
    }),
  }
}

function helperValue(args: Value[], of: (s: Scope, run: Run) => NonNullable<Helper['run']>): Value {
  return (s, run) => {
    const result = of(s, run)(
      args.map(arg => arg(s, run)),
      run.view,
    )
    // Long texts cost what they cost; without this a loop of helpers over a big value would be free.
    spend(run, HELPER_STEPS + (typeof result === 'string' ? Math.floor(result.length / CHARS_PER_STEP) : 0))
    return result
  }
}

const isLiteral = (node: Node): boolean => /^(String|Number|Boolean)Literal$/.test(node.type)
const literal = (node: Node): unknown => (isLiteral(node) ? (node as hbs.AST.StringLiteral).value : undefined)

function checkLiterals(call: Call, helper: Helper): void {
  const options: Record<string, unknown> = {}
  for (const pair of call.hash?.pairs ?? []) options[pair.key] = literal(pair.value)
  const problem = helper.check?.(call.params.map(literal), options)
  if (problem) fail(call, problem)
}

function compileLookup(call: Call, scope: StaticScope | undefined, compiler: Compiler): CompiledValue {
  if (call.params.length !== 2 || call.hash?.pairs.length) fail(call, 'lookup takes 2 arguments')
  const of = compileExpression(call.params[0]!, scope, compiler).value
  const name = compileExpression(call.params[1]!, scope, compiler).value
  return {
    value(s, run) {
      const object = of(s, run)
      if (!object) return object
      return member(object, toText(name(s, run)), run)
    },
  }
}

/**
 * `{{t "key" n=count}}`: a message of the template's in the reader's language. `{{icu "…" n=count}}`: one that stands
 * there. What a message reads and the call does not give is looked for among what the template sees.
 */
function compileMessageCall(
  name: 't' | 'icu',
  call: Call,
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledValue {
  const [node] = call.params
  if (call.params.length !== 1 || node?.type !== 'StringLiteral') {
    return fail(
      call,
      name === 't' ? 't takes the key of a message, as text' : 'icu takes one message, as text',
    )
  }
  const source = (node as hbs.AST.StringLiteral).value
  const values = new Map<string, Value>()
  for (const { key, value } of call.hash?.pairs ?? []) {
    if (values.has(key)) fail(call, `${name} has ${key} already`)
    values.set(key, compileExpression(value, scope, compiler).value)
  }
  const said = name === 't' ? messageOf(source, call, compiler) : messageHere(source, node)
  for (const arg of said.args) if (!values.has(arg)) compiler.variables.add(arg)
  return {
    value(s, run) {
      const message = said.to(run.view)
      const value = (arg: string) => {
        const given = values.get(arg)
        return given ? given(s, run) : member(run.view.names, arg, run)
      }
      const text = message.format(value, run.view)
      spend(run, HELPER_STEPS * (1 + message.args.length) + Math.floor(text.length / CHARS_PER_STEP))
      return text
    },
  }
}

interface Said {
  to(reader: Reader): Message
  /** What it reads, as far as that is known when compiling. */
  args: readonly string[]
}

/** The template's own message of this name, else the tenant's as it is when the text is written. */
function messageOf(key: string, call: Call, compiler: Compiler): Said {
  const { messages } = compiler
  const missing = `there is no message "${truncate(key, 60)}"`
  if (!messages) return fail(call, missing)
  if (messages.has(key)) {
    return { to: ({ locale }) => messages.find(key, locale), args: messages.find(key, '').args }
  }
  compiler.said.add(key)
  const { base, elsewhere } = messages
  const known = elsewhere?.find(key, base)
  if (elsewhere && !known) return fail(call, missing)
  return {
    to({ locale, tenantLocale, messages: shared }) {
      const found = shared?.find(key, locale, base, tenantLocale)
      if (!found) throw new AppError('invalid_template', missing)
      return found
    },
    args: known?.args ?? [],
  }
}

/** A message within a text is in that text's language, of which the reader's locale is one (content.ts). */
function messageHere(source: string, node: Node): Said {
  try {
    const made = compileMessage(source, '')
    return { to: () => made, args: made.args }
  } catch (error) {
    return fail(node, (error as Error).message)
  }
}

function compileExpression(node: Node, scope: StaticScope | undefined, compiler: Compiler): CompiledValue {
  switch (node.type) {
    case 'PathExpression':
      return compilePath(node as hbs.AST.PathExpression, scope, compiler)
    case 'SubExpression':
      if (!helperName(node as hbs.AST.SubExpression))
        fail(node, 'parentheses must hold a helper with arguments')
      return compileCall(node as hbs.AST.SubExpression, scope, compiler)
    case 'StringLiteral':
    case 'NumberLiteral':
    case 'BooleanLiteral': {
      const { value } = node as hbs.AST.StringLiteral
      return { value: () => value }
    }
    case 'NullLiteral':
      return { value: () => null }
    case 'UndefinedLiteral':
      return { value: () => undefined }
    default:
      return fail(node, `${node.type} is not available`)
  }
}

// -------------------------------------------------------------------------------------------------- paths

const RESERVED = ['if', 'unless', 'each', 'with', 'lookup']

/** The next scope out whose names can be seen from here: out of a partial, only what it was given. */
const outward = (scope: StaticScope): StaticScope | undefined =>
  (scope.kind !== 'partial' && scope.kind !== 'given') || scope.up?.kind === 'given' ? scope.up : undefined

const isParam = (name: string, scope: StaticScope | undefined): boolean =>
  scope !== undefined && (scope.params.includes(name) || isParam(name, outward(scope)))

function compilePath(
  node: hbs.AST.PathExpression,
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledValue {
  if (node.data) return compileDataPath(node, scope, compiler)
  const [first, ...rest] = node.parts

  // A block parameter of the nearest block that has one of this name.
  if (first !== undefined && node.depth === 0 && !isScoped(node)) {
    let hops = 0
    for (let s = scope; s; s = outward(s), hops++) {
      const which = s.params.indexOf(first)
      if (which === 0) return follow(up(hops), rest, s.path, compiler)
      const count = hops
      if (which === 1) return follow(at => climb(at, count).key, rest, undefined, compiler)
    }
  }

  let target = scope
  for (let i = 0; i < node.depth; i++) {
    if (!target || target.kind === 'partial') fail(node, `"${node.original}" goes above the top`)
    target = target.up
  }
  return follow(up(node.depth), node.parts, target ? target.path : '', compiler)
}

function compileDataPath(
  node: hbs.AST.PathExpression,
  scope: StaticScope | undefined,
  compiler: Compiler,
): CompiledValue {
  const [name, ...rest] = node.parts
  if (name === 'root') return follow((_, run) => run.view.names, rest, '', compiler)
  if (name === 'subject' && rest.length === 0 && node.depth === 0) {
    compiler.readsSubject = true
    return { value: (_, run) => run.view.subject }
  }
  if (name === undefined || !['index', 'key', 'first', 'last'].includes(name)) {
    return fail(
      node,
      `"${node.original}" is not available: there are @index, @key, @first, @last, @root and @subject`,
    )
  }
  // #with does not count here: it has no index of its own.
  let hops = 0
  let outer = node.depth
  let each = scope
  for (; each && (each.kind !== 'each' || outer-- > 0); each = each.up) hops++
  if (!each) fail(node, `"${node.original}" is outside its #each`)
  const value: Value =
    name === 'index'
      ? s => climb(s, hops).index
      : name === 'key'
        ? s => climb(s, hops).key
        : name === 'first'
          ? s => climb(s, hops).index === 0
          : s => climb(s, hops).last
  return follow(value, rest, undefined, compiler)
}

function climb(scope: Scope, hops: number): Scope {
  let at = scope
  for (let i = 0; i < hops; i++) at = at.up!
  return at
}

const up = (hops: number): Value =>
  hops === 0 ? s => s.ctx : hops === 1 ? s => s.up!.ctx : s => climb(s, hops).ctx

/** The members `parts` of what `start` gives. `path` is where that is, from the root ('' is the root itself). */
function follow(start: Value, parts: string[], path: string | undefined, compiler: Compiler): CompiledValue {
  const full = path === undefined ? undefined : [path, ...parts].filter(part => part !== '').join('.')
  if (full) compiler.variables.add(full)
  const [a, b] = parts
  if (a === undefined) return { value: start, path: full }
  if (b === undefined) return { value: (s, run) => member(start(s, run), a, run), path: full }
  if (parts.length === 2) {
    return { value: (s, run) => member(member(start(s, run), a, run), b, run), path: full }
  }
  return {
    value(s, run) {
      let value = start(s, run)
      for (const part of parts) value = member(value, part, run)
      return value
    },
    path: full,
  }
}

// ------------------------------------------------------------------------------------------------ parsing

function parse(source: string): hbs.AST.Program {
  checkNesting(source)
  try {
    return Handlebars.parse(source)
  } catch (error) {
    if (error instanceof AppError) throw error
    return failParse(source, error as Error & { lineNumber?: number; column?: number })
  }
}

/**
 * Handlebars' parser takes time that grows with the square of the nesting (25,000 open blocks: minutes), and its
 * whitespace pass is recursive. So depth and number are counted before it runs. Tags inside comments count too.
 */
function checkNesting(source: string): void {
  let tags = 0
  let parentheses = 0
  let inTag = false
  let tagStart = 0
  // Blocks that are open, each with its `else if`s, which nest as well.
  const open: number[] = []
  let depth = 0
  for (const match of source.matchAll(/\{\{+~?(#|\^(?!~?\}\})|\/|\s*else\b)?|\}\}|[()]/g)) {
    const [token, kind] = match
    if (token === '(') {
      if (inTag && ++parentheses > MAX_NESTING) refuse(source, match.index)
    } else if (token === ')') {
      parentheses--
    } else if (token === '}}') {
      if (inTag) checkLength(source, tagStart, match.index)
      inTag = false
    } else {
      inTag = true
      tagStart = match.index
      parentheses = 0
      if (++tags > MAX_TAGS) refuse(source, match.index, `more than ${MAX_TAGS} tags`)
      if (token.startsWith('{{{{')) refuse(source, match.index, 'raw blocks are not available')
      if (kind === '#' || kind === '^') {
        open.push(1)
        depth++
      } else if (kind === '/') {
        depth -= open.pop() ?? 0
      } else if (kind !== undefined && open.length > 0) {
        open[open.length - 1]!++
        depth++
      }
      if (depth > MAX_NESTING) refuse(source, match.index)
    }
  }
  if (inTag) checkLength(source, tagStart, source.length)
}

function checkLength(source: string, from: number, to: number): void {
  if (to - from > MAX_TAG && !/^\{\{~?!/.test(source.slice(from, from + 4))) {
    refuse(source, from, `a tag is longer than ${MAX_TAG} characters`)
  }
}

function refuse(source: string, offset: number, message = `nested more than ${MAX_NESTING} deep`): never {
  const { line, column } = positionAt(source, offset)
  return failAt(line, column, message)
}

/** Line and column, from 1, of an offset. */
export function positionAt(source: string, offset: number): { line: number; column: number } {
  const before = source.slice(0, offset)
  return { line: before.split('\n').length, column: offset - before.lastIndexOf('\n') }
}

const TOKENS: Record<string, string> = {
  EOF: 'the end of the template',
  OPEN_ENDBLOCK: 'a closing block',
  INVERSE: '{{else}}',
  OPEN_INVERSE_CHAIN: '{{else}}',
  CLOSE: '}}',
  CLOSE_UNESCAPED: 'a third } (put a space before a brace that follows a tag)',
  SEP: '"." or "/"',
  EQUALS: '"="',
  INVALID: 'this character',
  OPEN_SEXPR: '"("',
  CLOSE_SEXPR: '")"',
}

function failParse(source: string, error: Error & { lineNumber?: number; column?: number }): never {
  // A block closed by another name: the error knows where the block began.
  if (error.lineNumber !== undefined) {
    const message = error.message.replace(/ - \d+:\d+$/, '')
    failAt(error.lineNumber, (error.column ?? 0) + 1, message)
  }
  // Syntax errors carry a line and, in a drawing below it, the up to 20 characters before the place.
  const [, lineText] = /on line (\d+)/.exec(error.message) ?? []
  if (lineText === undefined) throw new AppError('invalid_template', 'the template cannot be parsed')
  const line = Number(lineText)
  const got = /got '([^']+)'/.exec(error.message)?.[1]
  const column = columnOf(source, line, error.message)
  const open = got === 'INVALID' || got === 'OPEN' ? unclosedTag(source) : undefined
  if (open !== undefined) {
    const at = positionAt(source, open)
    failAt(at.line, at.column, 'a tag that begins with {{ here does not end with }}')
  }
  const what = got === undefined ? 'this' : (TOKENS[got] ?? got.toLowerCase())
  failAt(line, column, `${what} was not expected here`)
}

/** Where a tag begins that is not closed: before the next one begins, or at all. */
function unclosedTag(source: string): number | undefined {
  for (let from = source.indexOf('{{'); from >= 0; ) {
    const end = source.startsWith('{{!--', from) ? '--}}' : '}}'
    const close = source.indexOf(end, from + 2)
    const next = source.indexOf('{{', end === '}}' ? from + 3 : close)
    if (close < 0 || (next >= 0 && next < close)) return from
    from = next
  }
  return undefined
}

function columnOf(source: string, line: number, message: string): number {
  const [, drawn = '', pointer = ''] = message.split('\n')
  const before = drawn.slice(0, pointer.indexOf('^')).replace(/^\.\.\./, '')
  const text = source.split('\n')[line - 1] ?? ''
  // The drawing may begin on earlier lines, so the longest tail of it that this line has is the place.
  for (let from = 0; from < before.length; from++) {
    const at = text.indexOf(before.slice(from))
    if (at >= 0 && (from === 0 || at === 0)) return at + before.length - from + 1
  }
  return 1
}
