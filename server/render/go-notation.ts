import { MAX_SOURCE, failAt, positionAt } from './template.ts'

/**
 * Templates in the notation of Go's text/template (https://pkg.go.dev/text/template), translated into Handlebars
 * once, when they are saved. What has no counterpart is refused with its line and the reason.
 *
 * Translated: fields, `$`, comments, trim markers, `if`/`else if`/`else`, `range` and `with` with their variables,
 * `eq ne lt le gt ge and or not len index urlquery`, sprig's `upper lower default join`, parentheses, pipelines.
 *
 * Two things read differently afterwards: a block alone on its line leaves no empty line behind, and an empty map
 * counts as true in `if` (a `range` over it has nothing to show either way).
 */

/** The source in Handlebars: translated when it is Go-style, unchanged when not. */
export function toHandlebars(source: string): string {
  return source.length <= MAX_SOURCE && isGoStyle(source) ? translateGo(source) : source
}

// What Handlebars cannot mean: {{.Field}}, {{$…}} and keywords without #. `{{end}}` alone is a field called end.
const GO_ACTION =
  /^(?:\/\*|[.$][A-Za-z_]|\$\s*$|(?:if|range|with|define|template|block|len|index|printf|print|println)\s|.*[\s(|][.$][A-Za-z_]|(?![#^]|else\b)[^|]*\|)/s

export function isGoStyle(source: string): boolean {
  for (let at = source.indexOf('{{'); at >= 0; at = source.indexOf('{{', at)) {
    const end = source.indexOf('}}', at)
    if (end < 0) return false
    const action = source
      .slice(at + 2, Math.min(end, at + MAX_LOOK))
      .replace(/^-\s/, '')
      .trimStart()
    if (!action.startsWith('!') && GO_ACTION.test(withoutStrings(action))) return true
    at = end + 2
  }
  return false
}

/** So much of a tag tells which notation it is in. */
const MAX_LOOK = 1_000

const withoutStrings = (action: string) => action.replaceAll(/"(?:[^"\\]|\\.)*"|`[^`]*`/g, '""')

/** @throws AppError invalid_template, with `extra: {line, column}` */
export function translateGo(source: string): string {
  const blocks: Block[] = []
  let out = ''
  let offset = 0
  while (offset < source.length) {
    const start = source.indexOf('{{', offset)
    if (start < 0) break
    out += literalText(source.slice(offset, start), true)
    const action = readAction(source, start)
    offset = action.end
    out += translateAction(action, blocks, source)
  }
  out += literalText(source.slice(offset), false)
  const open = blocks.at(-1)
  if (open) fail(source, open.offset, `{{${open.kind}}} has no {{end}}`)
  return out
}

interface Block {
  kind: 'if' | 'range' | 'with'
  offset: number
  variables: string[]
  hasElse: boolean
}

const MAX_BLOCKS = 32

interface Action {
  text: string
  start: number
  /** Of `text`. */
  offset: number
  end: number
  trimLeft: boolean
  trimRight: boolean
}

function fail(source: string, offset: number, message: string): never {
  const { line, column } = positionAt(source, offset)
  return failAt(line, column, message)
}

// A backslash before {{ means "not a tag" in Handlebars and nothing in Go.
const literalText = (text: string, beforeTag: boolean) =>
  beforeTag && text.endsWith('\\') ? `${text}\\` : text

function readAction(source: string, start: number): Action {
  let at = start + 2
  const trimLeft = /^-\s/.test(source.slice(at, at + 2))
  if (trimLeft) at++
  const offset = at
  while (at < source.length) {
    const char = source[at]!
    if (source.startsWith('/*', at)) {
      const close = source.indexOf('*/', at)
      if (close < 0) fail(source, start, 'the comment has no end')
      at = close + 2
    } else if (char === '"' || char === '`' || char === "'") {
      at = endOfLiteral(source, at, start)
    } else if (source.startsWith('}}', at)) {
      const inner = source.slice(offset, at)
      const trimRight = /\s-$/.test(inner)
      return {
        text: trimRight ? inner.slice(0, -1) : inner,
        start,
        offset,
        end: at + 2,
        trimLeft,
        trimRight,
      }
    } else at++
  }
  return fail(source, start, '{{ has no }}')
}

function endOfLiteral(source: string, from: number, start: number): number {
  const quote = source[from]!
  for (let at = from + 1; at < source.length; at++) {
    if (source[at] === '\\' && quote !== '`') at++
    else if (source[at] === quote) return at + 1
  }
  return fail(source, start, `${quote} has no end`)
}

function translateAction(action: Action, blocks: Block[], source: string): string {
  const refuse = (message: string): never => fail(source, action.start, message)
  const text = action.text.trim()
  const tag = (inner: string) => `{{${action.trimLeft ? '~' : ''}${inner}${action.trimRight ? '~' : ''}}}`
  if (/^\/\*.*\*\/$/s.test(text)) return tag('!')
  if (text === '') return refuse('the action is empty')

  const [, word = '', rest = ''] = /^([a-z]+)(?=\s|$)(.*)$/s.exec(text) ?? []
  if (blocks.length > MAX_BLOCKS) return refuse(`blocks are nested more than ${MAX_BLOCKS} deep`)
  const scope = () => blocks.flatMap(block => block.variables)
  const expression = (code: string) => translatePipeline(code, scope(), refuse)

  switch (word) {
    case 'if': {
      const subject = expression(rest)
      blocks.push({ kind: 'if', offset: action.start, variables: [], hasElse: false })
      return tag(`#if ${subject}`)
    }
    case 'with':
    case 'range': {
      const { variables, code } = declared(rest, word, refuse)
      const subject = expression(code)
      blocks.push({ kind: word, offset: action.start, variables, hasElse: false })
      // Go names the key first, Handlebars the value.
      const params = variables.length > 0 ? ` as |${variables.toReversed().join(' ')}|` : ''
      return tag(`#${word === 'range' ? 'each' : 'with'} ${subject}${params}`)
    }
    case 'else': {
      const block = blocks.at(-1) ?? refuse('{{else}} is outside a block')
      if (block.hasElse) refuse('there is an {{else}} already')
      if (rest.trim() === '') {
        block.hasElse = true
        // Variables of range and with end where the list does.
        block.variables = []
        return tag('else')
      }
      const [, code] = /^\s+if\s(.*)$/s.exec(rest) ?? []
      if (code === undefined || block.kind !== 'if') return refuse(`{{${text}}} has no counterpart`)
      return tag(`else if ${expression(code)}`)
    }
    case 'end': {
      if (rest.trim() !== '') refuse('{{end}} takes nothing')
      const block = blocks.pop() ?? refuse('{{end}} is outside a block')
      return tag(`/${block.kind === 'range' ? 'each' : block.kind}`)
    }
    case 'define':
    case 'template':
    case 'block':
      return refuse(`{{${word}}} is not available: there are no templates within templates`)
    case 'break':
    case 'continue':
      return refuse(`{{${word}}} has no counterpart`)
  }
  if (/^\$\w*\s*(,\s*\$\w+\s*)?:?=/.test(text)) {
    return refuse('variables can only be declared by range and with')
  }
  const value = expression(text)
  // Parentheses at the top are the mustache itself; a literal is text.
  if (value.startsWith('(')) return tag(value.slice(1, -1))
  if (/^["\d-]/.test(value)) return refuse('a literal by itself: write it as text')
  return tag(value)
}

/** `$k, $v := .Metrics` */
function declared(
  code: string,
  word: 'range' | 'with',
  refuse: (message: string) => never,
): { variables: string[]; code: string } {
  const match = /^\s*\$(\w+)\s*(?:,\s*\$(\w+)\s*)?(:?=)(.*)$/s.exec(code)
  if (!match) return { variables: [], code }
  const [, first, second, operator, rest] = match
  if (operator === '=') refuse('a variable cannot be given another value')
  if (word === 'with' && second) refuse('{{with}} declares one variable')
  const variables = [first!, ...(second ? [second] : [])].map(name => {
    if (RESERVED.has(name)) refuse(`$${name} is a word of Handlebars: choose another name`)
    return name
  })
  // `range $i, $_ := …` is how Go leaves a variable out, and Handlebars has no use for the same name twice.
  if (variables[0] === variables[1]) refuse('the two variables have the same name')
  return { variables, code: rest! }
}

// ------------------------------------------------------------------------------------------- expressions

/** Words that mean something else in Handlebars when they are a field's whole name. */
const RESERVED = new Set(['this', 'else', 'true', 'false', 'null', 'undefined', 'as'])

/** Fields of these names need `this.` before them. */
const BLOCKS = new Set(['if', 'unless', 'each', 'with', 'lookup'])

const TOKEN =
  /\s*(?:(?<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?<number>[+-]?(?:\d[\d_]*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])|(?<path>\$\w*(?:\.[\p{L}_]\w*)*|(?:\.[\p{L}_][\p{L}\w]*)+|\.)(?![\w])|(?<word>[A-Za-z_]\w*)|(?<sign>[()|,]))/uy

interface Token {
  kind: 'string' | 'number' | 'path' | 'word' | 'sign'
  text: string
}

function tokenize(code: string, refuse: (message: string) => never): Token[] {
  const tokens: Token[] = []
  const end = code.trimEnd().length
  TOKEN.lastIndex = 0
  for (let at = 0; at < end; at = TOKEN.lastIndex) {
    TOKEN.lastIndex = at
    const match = TOKEN.exec(code)
    if (!match) return refuse(`"${code.slice(at).trim()}" cannot be translated`)
    const [kind, text] = Object.entries(match.groups!).find(([, value]) => value !== undefined)!
    tokens.push({ kind: kind as Token['kind'], text })
  }
  return tokens
}

/** Operands of Handlebars' functions, by Go's name; how each is written there. */
const FUNCTIONS: Record<string, { args: [number, number]; write(args: string[]): string }> = {
  eq: {
    args: [2, 10],
    // Go: whether the first equals any of the others.
    write: ([first, ...others]) => {
      const each = others.map(other => `(eq ${first} ${other})`)
      return each.length === 1 ? each[0]! : `(or ${each.join(' ')})`
    },
  },
  ...same('ne', 'ne', 2),
  ...same('lt', 'lt', 2),
  ...same('le', 'lte', 2),
  ...same('gt', 'gt', 2),
  ...same('ge', 'gte', 2),
  and: { args: [1, 10], write: args => (args.length === 1 ? args[0]! : `(and ${args.join(' ')})`) },
  or: { args: [1, 10], write: args => (args.length === 1 ? args[0]! : `(or ${args.join(' ')})`) },
  ...same('not', 'not', 1),
  ...same('urlquery', 'urlencode', 1),
  ...same('upper', 'upper', 1),
  ...same('toUpper', 'upper', 1),
  ...same('lower', 'lower', 1),
  ...same('toLower', 'lower', 1),
  // Sprig puts the value last, so that it can be piped in.
  default: { args: [2, 2], write: ([otherwise, value]) => `(default ${value} ${otherwise})` },
  join: { args: [2, 2], write: ([separator, list]) => `(join ${list} ${separator})` },
  len: { args: [1, 1], write: ([value]) => `(lookup ${value} "length")` },
  index: {
    args: [2, 10],
    write: ([value, ...keys]) => keys.reduce((of, key) => `(lookup ${of} ${key})`, value!),
  },
}

function same(go: string, helper: string, count: number) {
  const args: [number, number] = [count, count]
  return { [go]: { args, write: (given: string[]) => `(${helper} ${given.join(' ')})` } }
}

/** A pipeline as one Handlebars expression: a path, a literal, or a call in parentheses. */
function translatePipeline(code: string, variables: string[], refuse: (message: string) => never): string {
  const tokens = tokenize(code, refuse)
  let at = 0

  const pipeline = (depth: number): string => {
    if (depth > 20) refuse('too many parentheses')
    let value = command(depth, undefined)
    while (tokens[at]?.text === '|' && tokens[at]!.kind === 'sign') {
      at++
      value = command(depth, value)
    }
    return value
  }
  const command = (depth: number, piped: string | undefined): string => {
    const token = tokens[at]
    if (!token) return refuse('something is missing')
    if (token.kind === 'word' && !['true', 'false', 'nil'].includes(token.text)) {
      at++
      const args: string[] = []
      while (tokens[at] && !isEnd(tokens[at]!)) args.push(operand(depth))
      if (piped !== undefined) args.push(piped)
      const known = Object.hasOwn(FUNCTIONS, token.text) ? FUNCTIONS[token.text] : undefined
      if (!known) {
        return refuse(
          `the function ${token.text} is not available; there are ${Object.keys(FUNCTIONS).join(', ')}`,
        )
      }
      const [least, most] = known.args
      if (args.length < least || args.length > most) {
        refuse(`${token.text} takes ${least === most ? least : `${least} to ${most}`} arguments`)
      }
      return known.write(args)
    }
    if (piped !== undefined) return refuse('only a function can follow |')
    const value = operand(depth)
    if (tokens[at] && !isEnd(tokens[at]!)) refuse(`"${code.trim()}": values cannot be called`)
    return value
  }
  const isEnd = (token: Token) => token.kind === 'sign' && (token.text === '|' || token.text === ')')
  const operand = (depth: number): string => {
    const token = tokens[at++]!
    switch (token.kind) {
      case 'string':
        return literal(token.text, refuse)
      case 'number':
        return String(Number(token.text.replaceAll('_', '')))
      case 'path':
        return path(token.text, variables, refuse)
      case 'word':
        if (token.text === 'nil') return 'null'
        if (token.text === 'true' || token.text === 'false') return token.text
        return refuse(`the function ${token.text} must be in parentheses here`)
      default: {
        if (token.text !== '(') return refuse(`"${token.text}" was not expected`)
        const value = pipeline(depth + 1)
        if (tokens[at++]?.text !== ')') refuse('( has no )')
        return value
      }
    }
  }

  const value = pipeline(0)
  if (at < tokens.length) refuse(`"${tokens[at]!.text}" was not expected`)
  return value
}

/** Go's literals have escapes, Handlebars' have none but for the quote itself. */
function literal(text: string, refuse: (message: string) => never): string {
  let value = text.slice(1, -1)
  if (text.startsWith('"')) {
    try {
      value = JSON.parse(text) as string
    } catch {
      refuse(`the text ${text} has an escape that cannot be translated`)
    }
  }
  if (!value.includes('"')) return `"${value}"`
  if (!value.includes("'")) return `'${value}'`
  return refuse(`the text ${text} has both kinds of quotes`)
}

function path(text: string, variables: string[], refuse: (message: string) => never): string {
  if (text === '.') return 'this'
  const [head, ...parts] = text.split('.')
  const names = parts.map(name => (RESERVED.has(name) ? `[${name}]` : name))
  if (head === '') {
    // A field, also where a variable has the same name.
    const first = names[0]!
    const shadowed = variables.includes(first) || first.startsWith('[') || BLOCKS.has(first)
    return (shadowed ? ['this', ...names] : names).join('.')
  }
  if (head === '$') return ['@root', ...names].join('.')
  const variable = head!.slice(1)
  if (!variables.includes(variable)) refuse(`$${variable} is not declared here`)
  return [variable, ...names].join('.')
}
