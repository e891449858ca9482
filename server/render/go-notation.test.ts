import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import { isGoStyle, toHandlebars, translateGo } from './go-notation.ts'
import { compileTemplate } from './template.ts'

const render = (source: string, data: Record<string, unknown>) =>
  compileTemplate(toHandlebars(source), 'none').render({
    names: data,
    layers: [],
    locale: 'en',
    timezone: 'UTC',
  })

// covers: DIC-069, DIC-076
test('fields, conditions and loops over maps', () => {
  const source =
    '[{{.Priority}}] {{.Title}}{{if .Metrics}}\nMetrics:{{range $name, $value := .Metrics}}\n- {{$name}}: {{$value}}{{end}}{{end}}\n{{if .DashboardURL}}{{.DashboardURL}}{{else}}no dashboard{{end}}'
  assert.equal(
    render(source, {
      Priority: 'CRITICAL',
      Title: 'Pool',
      Metrics: { active: 100, idle: 0 },
      DashboardURL: 'https://x',
    }),
    '[CRITICAL] Pool\nMetrics:\n- active: 100\n- idle: 0\nhttps://x',
  )
  assert.equal(render(source, { Priority: 'LOW', Title: 'T' }), '[LOW] T\nno dashboard')
})

test('each construct, as Go would print it', () => {
  const data = {
    A: 'a',
    B: { C: 'c', if: 'field' },
    N: 5,
    L: ['x', 'y'],
    O: [{ N: 1, L: ['p'] }, { N: 2 }],
    M: { k: { v: 'deep' } },
    True: true,
    k: 'root k',
    else: 'E',
  }
  const cases: [string, string][] = [
    ['{{.A}} {{.B.C}} {{.B.if}} {{.Missing.X}}', 'a c field '],
    ['{{range .L}}<{{.}}>{{end}}', '<x><y>'],
    ['{{range $i, $e := .L}}{{$i}}{{$e}}{{end}}', '0x1y'],
    ['{{range $e := .L}}{{$e}}{{.}}{{end}}', 'xxyy'],
    ['{{range .None}}x{{else}}none{{end}}', 'none'],
    ['{{range .O}}{{.N}}{{$.A}}{{range .L}}{{.}}{{end}}{{end}}', '1ap2a'],
    ['{{range $k, $v := .M}}{{.k}}{{$v.v}}{{end}}', 'deep'],
    ['{{with .B}}{{.C}}{{$.A}}{{else}}x{{end}}{{with .No}}x{{else}}none{{end}}', 'canone'],
    ['{{with $b := .B}}{{$b.C}}{{end}}', 'c'],
    ['{{if eq .N 5}}five{{else if gt .N 5}}more{{else}}less{{end}}', 'five'],
    ['{{if eq .A "x" "a"}}one of{{end}}', 'one of'],
    ['{{if and .A (not .No) (le .N 5)}}y{{end}}', 'y'],
    ['{{if .No | not}}y{{end}}', 'y'],
    ['{{.A | upper}} {{.No | default "d"}} {{.L | join ", "}} {{upper .A}}', 'A d x, y A'],
    ['{{len .L}} {{index .M "k" "v"}} {{index .L 1}} {{.A | urlquery}}', '2 deep y a'],
    ['a {{- /* comment */ -}} b', 'ab'],
    ['a \n {{- .A -}} \n b', 'aab'],
    ['{{.else}} {{with .B}}{{.if}}{{end}}', 'E field'],
    ['{{`raw` | upper}}{{"it\'s" | upper}}', "RAWIT'S"],
    ['back\\{{.A}} \\\\{{.A}}', 'back\\a \\\\a'],
    ['{{$}}', '[object Object]'],
    ['{{if .True}}{{.N}}{{end}}', '5'],
  ]
  for (const [source, expected] of cases) {
    assert.ok(isGoStyle(source), `${source} is Go-style`)
    assert.equal(render(source, data), expected, `${source} became ${translateGo(source)}`)
  }
})

test('Handlebars stays as it is', () => {
  for (const source of [
    'plain',
    '',
    '{{a}}',
    '{{this.a}} {{../a}} {{./a}} {{.}}',
    '{{#if a}}b{{else}}c{{/if}}',
    '{{start}} – {{end}}',
    '{{upper a}}',
    '{{! costs $5 .Net }}',
    '{{!-- {{.Field}} --}}',
    '{{lookup a "x.Y $z"}}',
    '{{#each a as |v k|}}{{v}}{{/each}}',
    '{{#if (lt a 1)}}b{{else if (lt a 2)}}c{{else if d}}e{{/if}}',
    '{{#with a}}b{{else with c}}d{{/with}}',
    '{{else',
    '{{',
  ]) {
    assert.equal(toHandlebars(source), source)
  }
})

test('what cannot be translated is refused with line and reason', () => {
  for (const [source, line, pattern] of [
    ['{{.A}}\n{{template "x" .}}', 2, /templates within templates/],
    ['{{define "x"}}{{end}}', 1, /templates within templates/],
    ['{{.A}}\n\n{{printf "%05d" .N}}', 3, /the function printf is not available/],
    ['{{$x := .A}}', 1, /only be declared by range and with/],
    ['{{range .L}}{{break}}{{end}}{{.A}}', 1, /no counterpart/],
    ['{{if .A}}', 1, /has no \{\{end/],
    ['{{.A}}{{end}}', 1, /outside a block/],
    ['{{if .A}}{{else}}{{else}}{{end}}', 1, /already/],
    ['{{.A}} {{$y}}', 1, /\$y is not declared/],
    ['{{range $v := .L}}{{else}}{{$v}}{{end}}', 1, /not declared/],
    ['{{.A.Method "x"}}', 1, /cannot be called/],
    ['{{(index .M "a").B}}', 1, /cannot be called/],
    ['{{if .A}}x{{/if}}', 1, /cannot be translated/],
    ['{{#if .A}}x{{/if}}', 1, /cannot be translated/],
    ['{{.A', 1, /no }}/],
    ['{{.A}} {{"unclosed}}', 1, /has no end/],
    ['{{eq .A}}', 1, /takes 2 to 10/],
    ['{{.A | "x"}}', 1, /only a function/],
    ['{{range $this := .L}}{{end}}', 1, /word of Handlebars/],
    ['{{.A}}{{}}', 1, /empty/],
  ] as const) {
    assert.throws(
      () => translateGo(source),
      (error: unknown) =>
        error instanceof AppError &&
        error.code === 'invalid_template' &&
        pattern.test(error.message) &&
        error.extra?.line === line,
      source,
    )
  }
})

test('whatever is translated compiles, or is refused by name', () => {
  const piece = fc.constantFrom(
    '{{',
    '}}',
    '{{-',
    '-}}',
    ' ',
    '.A',
    '.',
    '$',
    '$v',
    'if',
    'range',
    'with',
    'else',
    'end',
    ':=',
    ',',
    '|',
    '(',
    ')',
    '"s"',
    '`r`',
    '5',
    'eq',
    'len',
    'nil',
    '\n',
    '\\',
    '{{.A}}',
    '{{if .A}}',
    '{{range $k, $v := .M}}',
    '{{end}}',
    '{{else}}',
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), pieces => {
      try {
        compileTemplate(toHandlebars(pieces.join('')), 'none')
      } catch (error) {
        assert.ok(error instanceof AppError && error.code === 'invalid_template', String(error))
      }
    }),
    { numRuns: 2_000 },
  )
})
