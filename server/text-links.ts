/** Characters of the code of a short link, `<publicUrl>/s/<code>` (server/track/short-links.ts). */
export const CODE_LENGTH = 11

/** How long a short link is; shorter addresses stay as they are. */
export const shortLength = (publicUrl: string): number => `${publicUrl}/s/`.length + CODE_LENGTH

/** Whether an address is one of ours that must stay as it is: unsubscribing, preferences, links and pictures that tell. */
export const isOwnLink = (publicUrl: string, url: string): boolean =>
  url.startsWith(publicUrl) && /^\/[ulis]\//.test(url.slice(publicUrl.length))

/** Longer than any target; what follows it is then looked at no further. */
const MAX_FOUND = 2_100
const LINK = /https?:\/\/[^\s<>"`]+/gi
const CLOSING: Record<string, string> = {
  ')': '(',
  ']': '[',
  '}': '{',
  '»': '«',
  '”': '“',
  '’': '‘',
  "'": "'",
}

/** Each link of a text as `change` has it. What ends a sentence ends a link, as do brackets and quotes around it. */
export function withLinks(text: string, change: (url: string) => string): string {
  if (!/https?:\/\//i.test(text)) return text
  return text.replaceAll(LINK, found => {
    if (found.length > MAX_FOUND) return found
    const end = endOf(found)
    return change(found.slice(0, end)) + found.slice(end)
  })
}

function endOf(found: string): number {
  // Each kind of bracket is counted once: a link may end in two thousand of them.
  const left = new Map<string, number>()
  const count = (character: string): number => {
    let known = left.get(character)
    if (known === undefined) left.set(character, (known = found.split(character).length - 1))
    return known
  }
  let end = found.length
  for (; end > 0; end--) {
    const last = found[end - 1]!
    if ('.,;:!?…*_~'.includes(last)) continue
    const opening = CLOSING[last]
    if (opening === undefined) break
    const others = count(last) - 1
    // Wikipedia's links end in brackets of their own.
    if (opening !== last && count(opening) > others) break
    left.set(last, others)
  }
  return end
}
