import { hash } from 'node:crypto'
import type { FastifyReply } from 'fastify'

/** What the pages for people share: one frame, one style, three languages, nothing that runs. */

export const PAGE_LANGUAGES = ['en', 'pt', 'zh'] as const
export type PageLanguage = (typeof PAGE_LANGUAGES)[number]

/** The language for a reader's locale, a BCP 47 tag; English for one that has none here. */
export function languageOf(locale: string | undefined): PageLanguage {
  const language = (locale ?? '').toLowerCase().split(/[-_]/)[0]!
  return PAGE_LANGUAGES.find(one => one === language) ?? 'en'
}

export const escapeText = (text: string): string =>
  text.replaceAll(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`)

// Contrast: text 16:1 on its background in light and dark, the button 7:1 and more, the focus ring 3 px (WCAG 1.4.3,
// 2.4.13); targets 44 px (2.5.8). A test measures them in a browser.
const STYLE =
  ':root{color-scheme:light dark;--fg:#1a1a1a;--bg:#fff;--accent:#0b4f9e;--on:#fff}' +
  '@media(prefers-color-scheme:dark){:root{--fg:#eee;--bg:#161616;--accent:#9cc8ff;--on:#10233a}}' +
  'body{font:1.0625rem/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:36rem;margin:2rem auto;padding:0 1.25rem}' +
  'h1{font-size:1.5rem;line-height:1.25}fieldset{border:1px solid;border-radius:.5rem;margin:1.25rem 0;padding:.75rem 1rem}' +
  'legend{font-weight:600;padding:0 .35rem}label{display:flex;gap:.6rem;align-items:center;min-height:2.75rem}' +
  'input[type=checkbox],input[type=radio]{width:1.35rem;height:1.35rem;flex:none;accent-color:var(--accent)}input[type=time]{font:inherit;padding:.35rem}' +
  'button{font:inherit;font-weight:600;padding:.7rem 1.6rem;min-height:2.75rem;border:0;border-radius:.5rem;background:var(--accent);color:var(--on)}' +
  'a{color:var(--accent);display:inline-block;padding:.6rem 0}' +
  ':focus-visible,input[type=time]:focus-within{outline:3px solid var(--accent);outline-offset:2px}.saved{border-left:.3rem solid var(--accent);padding:.5rem .9rem}'

/** The style may run because of its hash; nothing else may, and the form may come back to us alone. */
const POLICY =
  `default-src 'none'; style-src 'sha256-${hash('sha256', STYLE, 'base64')}'; form-action 'self'; ` +
  `frame-ancestors 'none'; base-uri 'none'`

/** @param body HTML, with everything in it escaped */
export const pageOf = (language: PageLanguage, title: string, body: string): string =>
  `<!doctype html>\n<html lang="${language}"><head><meta charset="utf-8">` +
  `<meta name="viewport" content="width=device-width, initial-scale=1"><title>${escapeText(title)}</title>` +
  `<style>${STYLE}</style></head><body><main><h1>${escapeText(title)}</h1>${body}</main></body></html>\n`

/** Not kept, not indexed, not framed, and its address, which is a credential, told to nobody. */
export const sendPage = (reply: FastifyReply, status: number, html: string): FastifyReply =>
  reply
    .code(status)
    .type('text/html; charset=utf-8')
    .headers({
      'content-security-policy': POLICY,
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
      'x-robots-tag': 'noindex, nofollow',
    })
    .send(html)
