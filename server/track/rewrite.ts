import type { Tracking } from '../people/tracking-consent.ts'
import type { Tracked, TrackingLinks } from './links.ts'

/** An element with this attribute keeps its link; on `html`, `body` or a `meta`, the whole mail is left alone. */
const EXEMPT = 'data-no-track'

/**
 * The HTML of a mail with its links leading through us and the picture at its end, as far as `tracking` says. One pass
 * over the text, in time linear in its length whatever it holds; nothing but the values of `href` is changed. A link
 * stays as it is when it is not http or https (`mailto:`, `tel:`, `#part`), is our own (unsubscribing), or is exempt.
 */
export function trackedHtml(
  html: string,
  to: Tracked,
  tracking: Tracking,
  links: Pick<TrackingLinks, 'linkFor' | 'pictureFor' | 'own'>,
): string {
  if (html.includes(EXEMPT) && isExempt(html)) return html
  const told = tracking.clicks ? withLinks(html, to, links) : html
  return tracking.opens ? withPicture(told, links.pictureFor(to)) : told
}

function withLinks(html: string, to: Tracked, links: Pick<TrackingLinks, 'linkFor' | 'own'>): string {
  let result = ''
  let from = 0
  for (const [start, end] of elements(html, LINKED)) {
    const tag = html.slice(start, end)
    const href = hrefOf(tag)
    if (!href || (tag.includes(EXEMPT) && hasAttribute(tag, EXEMPT))) continue
    const target = decoded(href.value)
    if (target === undefined || links.own(target)) continue
    const link = links.linkFor(to, target)
    if (link === undefined) continue
    // base64url and the public URL hold nothing that HTML would want escaped.
    result += `${html.slice(from, start + href.from)}"${link}"`
    from = start + href.to
  }
  return from === 0 ? html : result + html.slice(from)
}

/** Before the end of the body, where there is one: some programs cut what follows it. */
function withPicture(html: string, url: string): string {
  const picture = `<img src="${url}" width="1" height="1" alt="" style="display:block;border:0;width:1px;height:1px">`
  const end = Math.max(html.lastIndexOf('</body'), html.lastIndexOf('</BODY'))
  return end === -1 ? html + picture : html.slice(0, end) + picture + html.slice(end)
}

const LINKED = /<(?:a|area)(?=[\s/])/gi
const WHOLE = /<(?:html|body|meta)(?=[\s/])/gi

const isExempt = (html: string): boolean => {
  for (const [start, end] of elements(html, WHOLE))
    if (hasAttribute(html.slice(start, end), EXEMPT)) return true
  return false
}

/** Where start tags begin and end (exclusive). A `>` within quotes ends nothing; a quote that never ends, the search. */
function* elements(html: string, pattern: RegExp): Generator<[number, number]> {
  const seek = new RegExp(pattern)
  for (let match = seek.exec(html); match; match = seek.exec(html)) {
    let at = seek.lastIndex
    for (;;) {
      const code = html.charCodeAt(at)
      if (Number.isNaN(code)) return
      if (code === 0x3e) break
      if (code === 0x22 || code === 0x27) {
        const close = html.indexOf(code === 0x22 ? '"' : "'", at + 1)
        if (close === -1) return
        at = close
      }
      at++
    }
    yield [match.index, at + 1]
    seek.lastIndex = at + 1
  }
}

// Name, then a value in either quotes or none (HTML Living Standard §13.1.2.3).
const ATTRIBUTE = /[\s/]([^\s"'<>/=]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'=<>`]+))?/g

/** The first `href`, as browsers have it: its value, and the place of the value with its quotes. */
function hrefOf(tag: string): { value: string; from: number; to: number } | undefined {
  for (const match of tag.matchAll(ATTRIBUTE)) {
    const [all, name, value] = match
    if (name!.length !== 4 || name!.toLowerCase() !== 'href') continue
    if (value === undefined) return undefined
    const to = match.index + all.length
    const quoted = value[0] === '"' || value[0] === "'"
    return { value: quoted ? value.slice(1, -1) : value, from: to - value.length, to }
  }
  return undefined
}

const hasAttribute = (tag: string, wanted: string): boolean =>
  Array.from(tag.matchAll(ATTRIBUTE), ([, name]) => name!.toLowerCase()).includes(wanted)

const NAMED: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' }

/** The value with its character references resolved; undefined when it has one that is not known here. */
function decoded(value: string): string | undefined {
  const text = value.trim()
  if (!text.includes('&')) return text
  let strange = false
  const result = text.replaceAll(
    /&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|([a-z][a-z0-9]*));/gi,
    (all, hex, decimal, name) => {
      if (name !== undefined) {
        if (!Object.hasOwn(NAMED, name)) strange = true
        return NAMED[name] ?? all
      }
      const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16)
      if (code === 0 || code > 0x10ffff) strange = true
      return strange ? all : String.fromCodePoint(code)
    },
  )
  return strange ? undefined : result
}
