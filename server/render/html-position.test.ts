import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import { compileTemplate } from './template.ts'

const render = (source: string, data: Record<string, unknown> = {}) =>
  compileTemplate(source, 'html').render({ names: data, layers: [], locale: 'en', timezone: 'UTC' })

const refused = (source: string, pattern: RegExp) =>
  assert.throws(
    () => compileTemplate(source, 'html'),
    (error: unknown) =>
      error instanceof AppError && error.code === 'invalid_template' && pattern.test(error.message),
    source,
  )

// covers: DIC-073
test('an address from data is one, or none', () => {
  const link = (url: string) =>
    /href="([^"]*)"/.exec(
      render('<p>{{x}}</p><a class="b" HREF="{{url}}">', { url }).replace('HREF', 'href'),
    )![1]
  assert.equal(link('https://x.test/a?b=1&c=2'), 'https://x.test/a?b&#x3D;1&amp;c&#x3D;2')
  for (const good of ['/path', 'mailto:a@x.test', 'tel:+1555', '#top', 'a/b:c', '', 'cid:logo@x']) {
    assert.equal(link(good), good)
  }
  for (const bad of [
    'javascript:alert(1)',
    ' JaVaScript:alert(1)',
    'java\nscript:alert(1)',
    '\u0001javascript:alert(1)',
    'vbscript:x',
    'data:text/html,<script>',
    'file:///etc/passwd',
  ]) {
    assert.equal(link(bad), '#', bad)
  }
  assert.equal(
    render('<img src="{{i}}">', { i: 'data:image/png;base64,AA' }),
    '<img src="data:image/png;base64,AA">',
  )
  // What the author began is the author's: only what could still be a scheme is looked at.
  assert.equal(render('<a href="https://x.test/{{p}}">', { p: 'a:b' }), '<a href="https://x.test/a:b">')
  assert.equal(render('<a href="{{a}}{{b}}">', { a: 'java', b: 'script:x' }), '<a href="javascript%3Ax">')
  assert.equal(render('<a href="{{a}}/{{b}}">', { a: 'https://x', b: 'y:z' }), '<a href="https://x/y:z">')
  assert.equal(
    render("{{#if u}}<a href='{{u}}'>{{else}}<a href='#'>{{/if}}{{t}}</a>", { u: 'javascript:x', t: 'a:b' }),
    "<a href='#'>a:b</a>",
  )
})

test('a value in a style is a value', () => {
  const style = (c: string) => render('<td style="color:{{c}};width:{{w}}px">', { c, w: 5 })
  assert.equal(style('#1a4fd0'), '<td style="color:#1a4fd0;width:5px">')
  assert.equal(style('rgb(1, 2, 3)'), '<td style="color:rgb(1, 2, 3);width:5px">')
  assert.equal(
    style('red;background:url(https://evil.test)"onclick="x'),
    '<td style="color:redbackgroundhttpsevil.test)onclickx;width:5px">',
  )
  assert.equal(
    render("<style>p{background:url('{{u}}');color:{{c}} }</style>", {
      u: "https://x.test/a'b).png",
      c: '}*{x',
    }),
    "<style>p{background:url('https://x.test/a%27b%29.png');color:x }</style>",
  )
  assert.equal(
    render('<td style="background: URL({{u}})" title="{{u}}">', { u: 'javascript:x' }),
    '<td style="background: URL(#)" title="javascript:x">',
  )
})

test('a value stands nowhere where it could be more than a value', () => {
  refused('<script>x = "{{a}}"</script>', /script/)
  refused('<a onclick="go({{a}})">', /onclick/)
  refused('<iframe srcdoc="{{a}}">', /srcdoc/)
  refused('<a href={{a}}>', /in quotes/)
  refused('<a title=x{{a}}>', /in quotes/)
  refused('<{{a}}>', /cannot be a tag/)
  refused('<p {{a}}>', /cannot be a tag/)
  refused('<p {{#if a}}class="{{/if}}x">', /must end there/)
  refused('{{#each a}}<p class="{{/each}}', /must end there/)
  refused('<p {{#if a}}style="{{else}}title="{{/if}}{{b}}">', /not clear/)
  // Beside all of this there is ordinary HTML.
  assert.equal(
    render(
      '<!doctype html><!-- {{x}} --><!--[if mso]><a href="{{x}}"><![endif]--><p{{#if x}} class="a"{{/if}} hidden id = "{{x}}">a < b {{x}}</p>' +
        '<title>{{x}} <a></title><br/><a title=\'{{x}}\' href="#">{{x}}</a>',
      { x: 'X' },
    ),
    '<!doctype html><!-- X --><!--[if mso]><a href="X"><![endif]--><p class="a" hidden id = "X">a < b X</p>' +
      '<title>X <a></title><br/><a title=\'X\' href="#">X</a>',
  )
})

test('whatever the data is, tags and attributes stay the author’s', () => {
  const nasty = fc.array(
    fc.constantFrom(
      '"',
      "'",
      '<',
      '>',
      '&',
      '`',
      '=',
      ' ',
      '\n',
      'javascript:',
      '//',
      '-->',
      '</style>',
      '</title>',
      'on',
      'x',
      '(',
      ')',
      ';',
      '\\',
    ),
    { maxLength: 12 },
  )
  const source =
    '<title>{{v}}</title><style>p{color:{{v}} }</style><p class="{{v}}" title=\'{{v}}\' style="color:{{v}};background:url({{v}})">{{v}}</p><a href="{{v}}">{{v}}</a><!-- {{v}} -->'
  // What makes tags, attributes and their ends: as many of each as the author wrote.
  const shape = (html: string) => html.replaceAll(/[^<>"']/g, '')
  const plain = shape(render(source, { v: 'x' }))
  fc.assert(
    fc.property(nasty, pieces => {
      const html = render(source, { v: pieces.join('') })
      assert.equal(shape(html), plain)
      assert.doesNotMatch(html, /href="\s*javascript:/i)
    }),
  )
})
