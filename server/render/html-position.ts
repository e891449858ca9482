/**
 * Where in an HTML document a template's text has arrived, so that a value is written as what belongs there. Escaped
 * characters alone are no protection inside an address (`javascript:…`), a style or a script.
 *
 * It follows the states of the HTML tokenizer (https://html.spec.whatwg.org/multipage/parsing.html#tokenization) as
 * far as they matter to a value. What Outlook alone reads between `<!--[if …]>` and `<![endif]-->` is a comment to all
 * others, and counts as one.
 */
export interface HtmlPosition {
  mode: 'text' | 'open' | 'tag' | 'before' | 'value' | 'comment' | 'raw'
  /** Of `value`: its quote, or nothing. */
  quote: '"' | "'" | ''
  /** Of the element being opened, or whose raw text it is; in lower case. */
  element: string
  /** Being named or given; in lower case. */
  attribute: string
  /** Of an address: nothing yet; a value, so that its scheme is open; decided by what the author wrote. */
  scheme: 'start' | 'open' | 'decided'
  /** The last characters of a comment, raw text or style. */
  tail: string
}

export const htmlStart = (): HtmlPosition => ({
  mode: 'text',
  quote: '',
  element: '',
  attribute: '',
  scheme: 'start',
  tail: '',
})

/** Elements whose content is text, whatever looks like a tag in it. */
const RAW = ['script', 'style', 'title', 'textarea']

const ADDRESSES =
  /^(href|src|srcset|action|formaction|background|poster|cite|longdesc|data|ping|manifest|xlink:href)$/

/** What a value is written as. */
export type HtmlPlace = 'text' | 'address' | 'addressPart' | 'style' | 'styleAddress'

/** What a value is at this position, or why there can be none. */
export function placeOf({
  mode,
  quote,
  element,
  attribute,
  scheme,
  tail,
}: HtmlPosition): HtmlPlace | { refused: string } {
  switch (mode) {
    case 'text':
    case 'comment':
      return 'text'
    case 'raw':
      if (element === 'script') return { refused: 'a value cannot stand in a script' }
      return element === 'style' ? placeInStyle(tail) : 'text'
    case 'open':
    case 'tag':
      return { refused: 'a value cannot be a tag or the name of an attribute' }
    case 'before':
      return { refused: 'put the value of an attribute in quotes' }
    case 'value':
      if (quote === '') return { refused: 'put the value of an attribute in quotes' }
      if (attribute === '') return { refused: 'it is not clear which attribute this is the value of' }
      if (attribute.startsWith('on') || attribute === 'srcdoc') {
        return { refused: `a value cannot stand in ${attribute}` }
      }
      if (attribute === 'style') return placeInStyle(tail)
      if (!ADDRESSES.test(attribute) || scheme === 'decided') return 'text'
      return scheme === 'start' ? 'address' : 'addressPart'
  }
}

const placeInStyle = (tail: string): HtmlPlace => (/url\(\s*['"]?$/i.test(tail) ? 'styleAddress' : 'style')

/** The position after more of the author's text. */
export function advanceHtml(from: HtmlPosition, text: string): HtmlPosition {
  const at = { ...from }
  for (const char of text) step(at, char)
  return at
}

/** The position after a value from data. */
export const afterHtmlValue = (from: HtmlPosition): HtmlPosition =>
  from.mode === 'value' && from.scheme === 'start' ? { ...from, scheme: 'open' } : from

const SPACE = /\s/
/** `</textarea` is what is looked back for, and `url( '`. */
const TAIL = 10

function step(at: HtmlPosition, char: string): void {
  switch (at.mode) {
    case 'text':
      if (char === '<') at.mode = 'open'
      return
    case 'open':
      at.element = ''
      at.attribute = ''
      at.tail = ''
      if (/[a-z]/i.test(char)) {
        at.element = char.toLowerCase()
        at.mode = 'tag'
        at.tail = 'name'
      } else if (char === '/' || char === '!' || char === '?') {
        at.element = char
        at.mode = 'tag'
        at.tail = 'name'
      } else if (char !== '<') at.mode = 'text'
      return
    case 'tag':
      stepTag(at, char)
      return
    case 'before':
      if (SPACE.test(char)) return
      if (char === '>') return close(at)
      at.mode = 'value'
      at.scheme = 'start'
      at.tail = ''
      at.quote = char === '"' || char === "'" ? char : ''
      if (at.quote === '') at.scheme = 'decided'
      return
    case 'value':
      if (at.quote === '' ? SPACE.test(char) : char === at.quote) {
        at.mode = 'tag'
        at.attribute = ''
        at.tail = ''
      } else if (at.quote === '' && char === '>') close(at)
      else if (at.attribute === 'style') at.tail = (at.tail + char).slice(-TAIL)
      else if (at.scheme === 'start' && !SPACE.test(char)) at.scheme = 'decided'
      else if (at.scheme === 'open' && /[/?#]/.test(char)) at.scheme = 'decided'
      return
    case 'comment':
      at.tail = (at.tail + char).slice(-3)
      if (at.tail === '-->') at.mode = 'text'
      return
    case 'raw':
      at.tail = (at.tail + char).slice(-TAIL)
      if (at.tail.toLowerCase().endsWith(`</${at.element}`)) {
        at.mode = 'tag'
        at.element = '/'
        at.attribute = ''
        at.tail = ''
      }
  }
}

/** Within a tag: its name first (`tail` says so), then attributes. */
function stepTag(at: HtmlPosition, char: string): void {
  if (char === '>') return close(at)
  if (at.tail === 'name') {
    if (SPACE.test(char) || (char === '/' && at.element !== '/')) at.tail = ''
    else {
      at.element += char.toLowerCase()
      if (at.element === '!--') {
        at.mode = 'comment'
        at.tail = ''
      }
    }
    return
  }
  if (char === '=' && at.attribute !== '') at.mode = 'before'
  else if (SPACE.test(char)) at.tail = 'space'
  else if (char === '/') at.attribute = ''
  else {
    // A word after a space is another attribute, unless a `=` follows the space.
    if (at.tail === 'space') at.attribute = ''
    at.tail = ''
    at.attribute += char.toLowerCase()
  }
}

function close(at: HtmlPosition): void {
  at.mode = RAW.includes(at.element) ? 'raw' : 'text'
  at.attribute = ''
  at.tail = ''
}

/** The position where two branches meet, or undefined when what follows would have two readings. */
export function meetHtml(a: HtmlPosition, b: HtmlPosition): HtmlPosition | undefined {
  if (a.mode !== b.mode || (a.mode === 'value' && a.quote !== b.quote)) return undefined
  if (a.mode === 'raw' && a.element !== b.element) return undefined
  return {
    ...a,
    element: a.element === b.element ? a.element : '',
    attribute: a.attribute === b.attribute ? a.attribute : '',
    // Where one branch has left it open it is.
    scheme: a.scheme === b.scheme ? a.scheme : 'open',
    tail: a.tail === b.tail ? a.tail : '',
  }
}

const SCHEME = /^([a-z][a-z0-9+.-]*):/i
const HARMLESS = /^(https?|mailto|tel|sms|cid|geo|webcal)$/i

/**
 * An address as a value: itself, or `#` when its scheme could run something. Browsers ignore control characters in
 * an address, and so does this look at it (https://url.spec.whatwg.org/#concept-basic-url-parser).
 */
export function safeAddress(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  const scheme = SCHEME.exec(/[\u0000-\u0020]/.test(text) ? text.replace(/[\u0000-\u0020]+/g, '') : text)?.[1]
  if (scheme === undefined || HARMLESS.test(scheme)) return text
  return /^data:image\/(png|jpe?g|gif|webp)[;,]/i.test(text) ? text : '#'
}

/** After a value that may have begun the address, what could make a scheme of it does not. */
export const safeAddressPart = (text: string): string => text.replaceAll(':', '%3A')

/** What can be a value of a style property and nothing more: no new property, rule or address. */
export const safeStyle = (text: string): string => text.replaceAll(/[^\p{L}\p{N}\s#%.,()+_-]|url\s*\(/giu, '')

/** An address within `url(…)` of a style. */
export const safeStyleAddress = (text: string): string =>
  safeAddress(text).replaceAll(/[\s"'()<>\\]/g, c => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`)
