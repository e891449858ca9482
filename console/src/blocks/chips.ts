/** A piece of a template's text: words, or one `{{…}}`. */
export type Part = { text: string } | { tag: string; label: string }

const TAG = /\{\{[^{}]*\}\}/g

/** A text cut into words and tags; put together again it is the text. */
export function partsOf(text: string): Part[] {
  const parts: Part[] = []
  let at = 0
  for (const { 0: tag, index } of text.matchAll(TAG)) {
    if (index > at) parts.push({ text: text.slice(at, index) })
    parts.push({ tag, label: labelOf(tag) })
    at = index + tag.length
  }
  if (at < text.length) parts.push({ text: text.slice(at) })
  return parts
}

/** What somebody who writes no code is shown for a tag. */
export function labelOf(tag: string): string {
  const inner = tag.slice(2, -2).trim()
  const [, sigil, word = '', rest = ''] = /^([#/]?)\s*(\S*)\s*([^]*)$/.exec(inner) ?? []
  if (sigil === '/') return word === 'each' ? 'end of list' : 'end'
  if (sigil === '#' && word === 'each') return `for each of ${rest}`
  if (sigil === '#' && word === 'if') return `if ${conditionLabel(rest)}`
  if (sigil === '#' && word === 'unless') return `if not ${conditionLabel(rest)}`
  if (inner === 'else') return 'otherwise'
  const message = /^t "([^"]+)"/.exec(inner)
  if (message) return `message: ${message[1]}`
  return inner
}

const WORDS: Record<string, string> = { eq: 'is', ne: 'is not', gt: '>', lt: '<', gte: '≥', lte: '≤' }

function conditionLabel(rest: string): string {
  const found = /^\((\w+) (\S+) ([^)]*)\)$/.exec(rest)
  const word = found && WORDS[found[1]!]
  return word ? `${found[2]} ${word} ${found[3]}` : rest
}
