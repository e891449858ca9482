/** A piece of markup: an element, or text between elements. */
export type MarkupNode = MarkupElement | string

export interface MarkupElement {
  name: string
  attributes: Record<string, string>
  children: MarkupNode[]
}

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"' }

export const escapeText = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
export const escapeAttribute = (text: string): string => escapeText(text).replaceAll('"', '&quot;')
const unescape = (text: string): string =>
  text.replaceAll(/&(amp|lt|gt|quot);/g, (_, name: string) => ENTITIES[name]!)

const TAG = /<(\/?)([a-zA-Z][\w-]*)((?:\s+[\w-]+="[^"]*")*)\s*(\/?)>/y
const ATTRIBUTE = /([\w-]+)="([^"]*)"/g

/**
 * Reads the markup that the editor itself writes. Anything else, such as comments or attributes without quotes, is not
 * understood: whoever wrote that knows markup, and gets it as source.
 *
 * @param raw names of elements whose content is not looked into: their only child is its text as it stands
 * @returns undefined where it is not understood
 */
export function parseMarkup(source: string, raw: ReadonlySet<string> = new Set()): MarkupNode[] | undefined {
  const root: MarkupElement = { name: '', attributes: {}, children: [] }
  const open = [root]
  let at = 0
  while (at < source.length) {
    const within = open.at(-1)!
    if (source[at] !== '<') {
      const end = source.indexOf('<', at)
      const text = source.slice(at, end === -1 ? undefined : end)
      within.children.push(unescape(text))
      at += text.length
      continue
    }
    TAG.lastIndex = at
    const tag = TAG.exec(source)
    if (!tag) return undefined
    at = TAG.lastIndex
    const [, closing, name = '', attributes = '', empty] = tag
    if (closing) {
      if (within.name !== name || open.length === 1) return undefined
      open.pop()
      continue
    }
    const element: MarkupElement = { name, attributes: {}, children: [] }
    for (const [, key, value] of attributes.matchAll(ATTRIBUTE)) element.attributes[key!] = unescape(value!)
    within.children.push(element)
    if (empty) continue
    if (raw.has(name)) {
      const end = source.indexOf(`</${name}>`, at)
      if (end === -1) return undefined
      element.children.push(source.slice(at, end))
      at = end + name.length + 3
    } else open.push(element)
  }
  return open.length === 1 ? root.children : undefined
}

/** `name="value"` for each that has one, in the order given, with a blank before each. */
export const printAttributes = (attributes: Record<string, string | number | undefined>): string =>
  Object.entries(attributes)
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([name, value]) => ` ${name}="${escapeAttribute(String(value))}"`)
    .join('')
