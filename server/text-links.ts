/** Characters of the code of a short link, `<publicUrl>/s/<code>` (server/track/short-links.ts). */
export const CODE_LENGTH = 11

/** How long a short link is; shorter addresses stay as they are. */
export const shortLength = (publicUrl: string): number => `${publicUrl}/s/`.length + CODE_LENGTH

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
    let end = found.length
    for (; end > 0; end--) {
      const last = found[end - 1]!
      if ('.,;:!?…*_~'.includes(last)) continue
      const opening = CLOSING[last]
      if (opening === undefined) break
      // Wikipedia's links end in brackets of their own.
      const within = found.slice(0, end - 1)
      if (opening !== last && count(within, opening) > count(within, last)) break
    }
    return change(found.slice(0, end)) + found.slice(end)
  })
}

const count = (text: string, character: string): number => text.split(character).length - 1
