import { type MarkupElement, type MarkupNode, escapeAttribute, escapeText, parseMarkup } from './markup.ts'

/** Some text that looks the same throughout. `{{…}}` in it is filled in later. */
export interface Span {
  text: string
  bold?: true
  italic?: true
  href?: string
}

/** A paragraph, or an item of a list; items of one kind in a row are one list. */
export interface Line {
  kind: 'p' | 'bullet' | 'number'
  spans: Span[]
}

/** What a person writes: lines with a little formatting. */
export type Rich = Line[]

const sameLook = (a: Span, b: Span) => a.bold === b.bold && a.italic === b.italic && a.href === b.href

/** The one form of what looks the same: no empty spans, no two in a row that look alike. */
export function tidy(lines: Rich): Rich {
  return lines.map(({ kind, spans }) => {
    const tidied: Span[] = []
    for (const { text, bold, italic, href } of spans) {
      if (text === '') continue
      const span: Span = { text, ...(bold && { bold }), ...(italic && { italic }), ...(href && { href }) }
      const last = tidied.at(-1)
      if (last && sameLook(last, span)) last.text += span.text
      else tidied.push(span)
    }
    return { kind, spans: tidied }
  })
}

export const richOf = (text: string): Rich =>
  text.split('\n').map(line => ({ kind: 'p', spans: line === '' ? [] : [{ text: line }] }))

export const textOf = (rich: Rich): string =>
  rich.map(({ spans }) => spans.map(span => span.text).join('')).join('\n')

export const isEmpty = (rich: Rich): boolean => textOf(rich).trim() === ''

// ------------------------------------------------------------------------------------------------ as HTML

const P = 'margin:0 0 12px'
const LIST = 'margin:0 0 12px;padding-left:24px'
/** Links take the colour of the text, so that they can be read on whatever it stands, in dark mode too. */
const LINK = 'color:inherit;text-decoration:underline'
const LISTS = { bullet: 'ul', number: 'ol' } as const

/** HTML that mail clients show alike. */
export function printRich(rich: Rich): string {
  let html = ''
  let list: 'bullet' | 'number' | undefined
  const end = () => {
    if (list) html += `</${LISTS[list]}>`
    list = undefined
  }
  for (const { kind, spans } of tidy(rich)) {
    const inner = spans.map(printSpan).join('')
    if (kind === 'p') {
      end()
      html += `<p style="${P}">${inner || '<br />'}</p>`
      continue
    }
    if (list !== kind) {
      end()
      list = kind
      html += `<${LISTS[kind]} style="${LIST}">`
    }
    html += `<li>${inner}</li>`
  }
  end()
  return html
}

function printSpan({ text, bold, italic, href }: Span): string {
  let html = escapeText(text)
  if (italic) html = `<em>${html}</em>`
  if (bold) html = `<strong>${html}</strong>`
  if (href) html = `<a href="${escapeAttribute(href)}" style="${LINK}">${html}</a>`
  return html
}

/** What `printRich` made; undefined for any other HTML. */
export function parseRich(html: string): Rich | undefined {
  const nodes = parseMarkup(html)
  if (!nodes) return undefined
  const rich: Rich = []
  for (const node of nodes) {
    if (typeof node === 'string') return undefined
    if (node.name === 'p') rich.push({ kind: 'p', spans: spansOf(node.children, {}) })
    else if (node.name === 'ul' || node.name === 'ol') {
      for (const item of node.children) {
        if (typeof item === 'string' || item.name !== 'li') return undefined
        rich.push({ kind: node.name === 'ul' ? 'bullet' : 'number', spans: spansOf(item.children, {}) })
      }
    } else return undefined
  }
  const read = tidy(rich)
  return printRich(read) === html ? read : undefined
}

const LOOKS: Record<string, (element: MarkupElement) => Omit<Span, 'text'>> = {
  strong: () => ({ bold: true }),
  em: () => ({ italic: true }),
  a: ({ attributes }) => ({ href: attributes.href ?? '' }),
}

function spansOf(nodes: MarkupNode[], look: Omit<Span, 'text'>): Span[] {
  return nodes.flatMap(node =>
    typeof node === 'string'
      ? [{ text: node, ...look }]
      : spansOf(node.children, { ...look, ...LOOKS[node.name]?.(node) }),
  )
}
