/** What the headers say of whoever loads a picture or follows a link. */
export interface Visitor {
  userAgent: string | undefined
  /** `Purpose`, `Sec-Purpose`, `X-Moz`: sent by browsers that fetch ahead. */
  purpose: string | undefined
}

// Programs by their own word. Gateways that pretend to be a browser are not found: no list can. Google's and Yahoo's
// image proxies are no machines in this sense, as they load a picture when somebody opens the mail.
const PROGRAMS =
  /bot\b|crawl|spider|slurp|scan|preview|prefetch|proofpoint|mimecast|barracuda|symantec|messagelabs|forcepoint|trendmicro|safelinks|facebookexternalhit|whatsapp\/|headless|phantom|curl\/|wget\/|python|java\/|okhttp|go-http-client|node-fetch|axios|libwww|httpclient|ruby/i

/**
 * The name of the program, where it is known to be one of which nobody knows whether a person was behind it.
 *
 * Apple's Mail Privacy Protection loads every picture through proxies that call themselves just `Mozilla/5.0`, whether
 * or not the mail is read (https://support.apple.com/guide/mail/use-mail-privacy-protection-mlhl03be2866/mac).
 */
export function machineOf({ userAgent, purpose }: Visitor): string | undefined {
  if (purpose !== undefined && /prefetch|preview|prerender/i.test(purpose)) return 'prefetch'
  const name = userAgent?.trim() ?? ''
  if (name === '') return 'nameless'
  if (name === 'Mozilla/5.0') return 'apple-privacy'
  return PROGRAMS.test(name.slice(0, 500)) ? 'program' : undefined
}
