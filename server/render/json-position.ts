/**
 * Where in a JSON document a template's text has arrived, so that a value is written as what belongs there:
 * inside quotes as string content, outside them as a whole JSON value. Data can then never end a string or
 * add a member.
 */
export interface JsonPosition {
  inString: boolean
  /** The text so far ends with a backslash inside a string. */
  escaped: boolean
  /** Text of the current or last string literal. */
  string: string
  /** Name of the member whose value is being written; empty when it is not known. */
  key: string
}

export const jsonStart = (): JsonPosition => ({ inString: false, escaped: false, string: '', key: '' })

/** The position after more of the author's text. */
export function advanceJson(from: JsonPosition, text: string): JsonPosition {
  const position = { ...from }
  for (const char of text) {
    if (position.inString) {
      if (position.escaped) position.escaped = false
      else if (char === '\\') position.escaped = true
      else if (char === '"') position.inString = false
      if (position.inString) position.string += char
    } else if (char === '"') {
      position.inString = true
      position.string = ''
    } else if (char === ':') {
      position.key = position.string
    }
  }
  return position
}

/** The position after a value from data. A member name made from data is not known when compiling. */
export const afterValue = (from: JsonPosition): JsonPosition => ({ ...from, string: '' })

/** The position where two branches meet, or undefined when they disagree about being inside quotes. */
export function meetJson(a: JsonPosition, b: JsonPosition): JsonPosition | undefined {
  if (a.inString !== b.inString || a.escaped !== b.escaped) return undefined
  return { ...a, key: a.key === b.key ? a.key : '', string: a.string === b.string ? a.string : '' }
}

/** Slack reads text in every member but addresses and ids, which entities would corrupt. */
export const isLinkMember = (key: string): boolean => /(^|_)(url|link|id)$/.test(key)
