import { styleText } from 'node:util'

type Style = Parameters<typeof styleText>[0]

/** Coloured where a person reads it: not in pipes, and never with NO_COLOR. */
export const style = (format: Style, text: string): string =>
  styleText(format, text, { stream: process.stdout })

/** Anything that could move a terminal's cursor or recolour it, taken out: the text is somebody else's. */
export const plain = (text: string): string =>
  text.replaceAll(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, ' ')

export const print = (text: string): void => void process.stdout.write(`${text}\n`)
export const printJson = (value: unknown): void => print(JSON.stringify(value, null, 2))
export const complain = (text: string): void => void process.stderr.write(`${text}\n`)

/** Columns as wide as their widest cell. */
export function table(rows: string[][], indent = ''): string {
  const widths: number[] = []
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  return rows
    .map(row =>
      `${indent}${row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!))).join('  ')}`.trimEnd(),
    )
    .join('\n')
}

/** `2026-11-21 04:12:03.250`, UTC. */
export const time = (iso: string | undefined | null): string =>
  iso == null ? '' : plain(iso).replace('T', ' ').replace(/Z$/, '')
