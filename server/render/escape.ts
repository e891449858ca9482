/**
 * How a value becomes part of a text of some kind. What the author wrote is never changed, only what comes
 * from data.
 *
 * - `html`: the same seven characters as Handlebars escapes.
 * - `none`: plain text.
 * - `slack`: Slack's three control characters, so that data cannot mention a channel or forge a link
 *   (https://docs.slack.dev/messaging/formatting-message-text#escaping).
 * - `json`, `slack_json`: the text is a JSON document; see json-position.ts.
 */
export type Escape = 'html' | 'none' | 'slack' | 'json' | 'slack_json'

const HTML: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#x27;',
  '`': '&#x60;',
  '=': '&#x3D;',
}

// Testing first: most values have nothing to escape, and `replace` alone costs three times as much.
export const escapeHtml = (text: string): string =>
  /[&<>"'`=]/.test(text) ? text.replace(/[&<>"'`=]/g, c => HTML[c]!) : text

export const escapeSlack = (text: string): string =>
  /[&<>]/.test(text) ? text.replace(/[&<>]/g, c => HTML[c]!) : text

/** The inside of a JSON string literal, without its quotes. Lone surrogates become \u escapes. */
export const escapeJson = (text: string): string =>
  // oxlint-disable-next-line no-control-regex -- JSON forbids exactly these inside a string (RFC 8259 §7)
  /["\\\u0000-\u001f\ud800-\udfff]/.test(text) ? JSON.stringify(text).slice(1, -1) : text

/**
 * A JSON value as readers expect it in running text: nothing for null, lists joined by commas, and the same
 * `[object Object]` as Handlebars for an object. Unlike `String(value)` it never calls what the data brings
 * along under names such as `toString`.
 */
export function toText(value: unknown): string {
  if (typeof value === 'string') return value
  if (value === null || value === undefined) return ''
  if (Array.isArray(value)) return value.map(toText).join(',')
  if (typeof value === 'object') return '[object Object]'
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') return `${value}`
  return ''
}
