import type { Action } from '../types.ts'
import { escapeHtml } from './escape.ts'

/**
 * The mail that is made of a text: what the text says, in a shape that phones, old clients and dark modes show well.
 *
 * Mail clients know neither style sheets nor, reliably, media queries. No colour is set but where both text and
 * background are, so that a client's dark mode has nothing to get wrong; both schemes are declared, so that none
 * inverts what is dark already.
 */
export interface Layout {
  /** Its title; not shown, unless as the heading too. */
  subject: string
  heading?: string
  /** HTML that goes in, escaped already. */
  inner: string
  /** Absolute URL of a picture above the text. */
  image?: string
  /** Those with a link become buttons. */
  actions?: readonly Action[]
  /** BCP 47. */
  language: string
}

const BUTTON =
  'display:inline-block;padding:10px 18px;border:1px solid;border-radius:6px;text-decoration:none;font-weight:600'

/** A whole HTML document. */
export function baseLayout({ subject, heading, inner, image, actions = [], language }: Layout): string {
  const links = actions.filter(({ url }) => url !== undefined)
  return `<!doctype html>
<html lang="${escapeHtml(language)}" dir="${directionOf(language)}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<title>${escapeHtml(subject)}</title>
</head>
<body style="margin:0;padding:0;font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;font-size:16px;line-height:1.5">
<div style="max-width:600px;margin:0 auto;padding:24px">
${image === undefined ? '' : `<img src="${escapeHtml(image)}" alt="" style="display:block;max-width:100%;margin:0 0 16px">\n`}${
  heading === undefined
    ? ''
    : `<h1 style="margin:0 0 16px;font-size:20px;line-height:1.3">${escapeHtml(heading)}</h1>\n`
}${inner}
${
  links.length === 0
    ? ''
    : `<p style="margin:24px 0 0">${links
        .map(({ label, url }) => `<a href="${escapeHtml(url!)}" style="${BUTTON}">${escapeHtml(label)}</a>`)
        .join(' ')}</p>\n`
}</div>
</body>
</html>
`
}

const MAX_PARAGRAPHS = 500

/** Blank lines separate paragraphs, single ones are kept. */
export const paragraphsHtml = (text: string): string =>
  text
    .split(/\r?\n[ \t]*(?:\r?\n[ \t]*)+/)
    .slice(0, MAX_PARAGRAPHS)
    .map(
      paragraph => `<p style="margin:0 0 16px">${paragraph.split(/\r?\n/).map(escapeHtml).join('<br>')}</p>`,
    )
    .join('\n')

const directions = new Map<string, 'ltr' | 'rtl'>()
const MAX_DIRECTIONS = 1_000

/** Which way a language is written, by its script: `ar`, `he`, `fa`, but also `az-Arab`. */
export function directionOf(tag: string): 'ltr' | 'rtl' {
  let direction = directions.get(tag)
  if (direction) return direction
  try {
    const locale = new Intl.Locale(tag) as Intl.Locale & { getTextInfo(): { direction?: string } }
    direction = locale.getTextInfo().direction === 'rtl' ? 'rtl' : 'ltr'
  } catch {
    direction = 'ltr'
  }
  if (directions.size >= MAX_DIRECTIONS) directions.clear()
  directions.set(tag, direction)
  return direction
}

/** So far into a document its first tag is looked for. */
const LOOK = 1_000

/**
 * The author's own HTML with the language it is in, so that it is read aloud and laid out as such: on its `<html>`
 * where that says nothing itself, and around a fragment that is written from right to left.
 */
export function inLanguage(html: string, tag: string): string {
  const direction = directionOf(tag)
  const open = /<html(?=[\s>])[^>]*>/i.exec(html.slice(0, LOOK))
  if (!open) {
    return direction === 'rtl' && !/<body[\s>]/i.test(html.slice(0, LOOK))
      ? `<div dir="rtl" lang="${escapeHtml(tag)}">${html}</div>`
      : html
  }
  // MJML says that it does not know the language.
  const found = open[0].replace(/\slang\s*=\s*["']?und["']?/i, '').replace(/\sdir\s*=\s*["']?auto["']?/i, '')
  const lang = /\slang\s*=/i.test(found) ? '' : ` lang="${escapeHtml(tag)}"`
  const dir =
    /\sdir\s*=/i.test(found) || (direction === 'ltr' && found === open[0]) ? '' : ` dir="${direction}"`
  const end = open.index + open[0].length
  return html.slice(0, open.index) + found.slice(0, 5) + lang + dir + found.slice(5) + html.slice(end)
}
