/** Whether a mail says that it knows dark mode; a client leaves one that does not as it is. */
const KNOWS_DARK =
  /<meta\b[^>]*\bname="(?:supported-)?color-schemes?"[^>]*\bcontent="[^"]*\bdark\b|\bcolor-scheme\s*:[^;}"]*\bdark\b/i

const WEB_FONT = /<link\b[^>]*\brel="?stylesheet"?[^>]*>|@import\s+url\([^)]*\);?/gi

export interface Shown {
  mode: 'light' | 'dark'
  /** Where mails find uploaded pictures; undefined: there are none. */
  pictures: string | undefined
  /** Where this page finds them: whoever looks may know the server by another name. */
  here: string
}

/**
 * A mail as it looks in light or dark mode, whatever mode the browser itself is in: a frame takes the mode of the whole
 * browser, and there is no asking for another one. Only for looking at; it is never sent. Nothing is asked of others.
 */
export function shownMail(html: string, { mode, pictures, here }: Shown): string {
  const shown = mode === 'dark' && KNOWS_DARK.test(html) ? 'dark' : 'light'
  const holds = (asked: string) => (asked === mode ? '(min-width: 0)' : '(max-width: 0)')
  let mail = html
    .replaceAll(WEB_FONT, '')
    .replaceAll(/\(\s*prefers-color-scheme\s*:\s*(light|dark)\s*\)/gi, (_, asked: string) =>
      holds(asked.toLowerCase()),
    )
  if (pictures !== undefined) mail = mail.replaceAll(`${pictures}/media/`, `${here}/media/`)
  const style = `<style>:root{color-scheme:${shown}!important}</style>`
  const end = mail.search(/<\/head\s*>/i)
  return end === -1 ? style + mail : mail.slice(0, end) + style + mail.slice(end)
}
