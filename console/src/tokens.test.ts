import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

const css = readFileSync(join(import.meta.dirname, 'styles.css'), 'utf8')

const tokensOf = (block: string): Record<string, string> =>
  Object.fromEntries(
    [...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name, value]) => [name!, value!]),
  )
const [light = '', dark = ''] = [...css.matchAll(/:root \{([^}]*)\}/g)].map(match => match[1]!)
const MODES = { light: tokensOf(light), dark: { ...tokensOf(light), ...tokensOf(dark) } }

function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map(at => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!
}
function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].toSorted((x, y) => x - y)
  return (high! + 0.05) / (low! + 0.05)
}

const GROUNDS = ['page', 'surface', 'raised', 'sunken']
/** What is read, on what it stands. */
const TEXTS: [text: string, on: string[]][] = [
  ['ink', GROUNDS],
  ['muted', GROUNDS],
  ['on-accent', ['accent', 'accent-hover']],
  ['accent-ink', ['accent-soft', 'surface', 'page', 'raised']],
  ['good', ['good-soft', 'surface']],
  ['warn', ['warn-soft', 'surface']],
  ['bad', ['bad-soft', ...GROUNDS]],
]
/** Frames of fields, and what shows the focus. */
const OUTLINES: [line: string, on: string[]][] = [
  ['outline', GROUNDS],
  ['focus', GROUNDS],
  ['bad', GROUNDS],
]

for (const [mode, tokens] of Object.entries(MODES)) {
  test(`${mode}: every text has a contrast of 4.5 to 1, every outline of 3 to 1`, () => {
    assert.ok(Object.keys(tokens).length > 18)
    const weak = ([pairs, least]: [typeof TEXTS, number]) =>
      pairs.flatMap(([text, grounds]) =>
        grounds.flatMap(ground => {
          const found = contrast(tokens[text]!, tokens[ground]!)
          return found >= least ? [] : [`${text} on ${ground}: ${found.toFixed(2)}`]
        }),
      )
    assert.deepEqual([...weak([TEXTS, 4.5]), ...weak([OUTLINES, 3])], [])
  })
}
