import type { Rich } from './rich.ts'

export type Align = 'left' | 'center' | 'right'

interface Base {
  /** Stays with a block for life: its translations are found by it. */
  id: string
}

export interface Heading extends Base {
  kind: 'heading'
  text: string
  level: 1 | 2 | 3
  align: Align
}
export interface Text extends Base {
  kind: 'text'
  rich: Rich
  align: Align
}
export interface Button extends Base {
  kind: 'button'
  text: string
  url: string
  align: Align
}
export interface Image extends Base {
  kind: 'image'
  /** An address, or `{{asset 'name'}}`. */
  src: string
  alt: string
  /** Where it leads; empty: nowhere. */
  href: string
  /** In pixels; undefined: as wide as there is room. */
  width?: number
  align: Align
}
export interface Divider extends Base {
  kind: 'divider'
}
export interface Spacer extends Base {
  kind: 'spacer'
  height: number
}
/** Beside each other on a wide screen, below each other on a phone; never within another. */
export interface Columns extends Base {
  kind: 'columns'
  columns: Block[][]
}
/** Shown once for each item of a list. */
export interface Each extends Base {
  kind: 'each'
  list: string
  children: Block[]
}
/** Shown where something holds. */
export interface If extends Base {
  kind: 'if'
  when: Condition
  children: Block[]
}

export type Block = Heading | Text | Button | Image | Divider | Spacer | Columns | Each | If
export type Kind = Block['kind']

export const OPERATORS = {
  set: 'is there',
  unset: 'is not there',
  eq: 'is',
  ne: 'is not',
  gt: 'is more than',
  lt: 'is less than',
} as const

export interface Condition {
  /** Of a variable. */
  path: string
  is: keyof typeof OPERATORS
  /** Compared with; not for `set` and `unset`. */
  value?: string | number | boolean
}

/** How the whole mail looks. Without colours it follows the reader's light or dark mode. */
export interface Style {
  /** In pixels. */
  width: number
  /** `#rrggbb`, of what buttons stand out by. */
  accent: string
  /** Both or none: a text without its ground cannot be read in the other mode. */
  page?: { background: string; ink: string }
  rounded: boolean
}

/** A mail as its blocks. */
export interface Mail {
  /** What mailboxes show beside the subject; empty: the first words. */
  preheader: string
  style: Style
  blocks: Block[]
}

export const DEFAULT_STYLE: Style = { width: 600, accent: '#4338ca', rounded: true }

const ALPHABET = 'abcdefghijkmnpqrstuvwxyz23456789'

/** Eight letters and digits; two in one mail are alike once in some 10^9 mails. */
export const newBlockId = (): string =>
  [...crypto.getRandomValues(new Uint8Array(8))].map(byte => ALPHABET[byte % ALPHABET.length]).join('')

/** A new block with something in it to begin with. */
export function newBlock(kind: Kind, id = newBlockId()): Block {
  switch (kind) {
    case 'heading':
      return { kind, id, text: 'Heading', level: 1, align: 'left' }
    case 'text':
      return { kind, id, rich: [{ kind: 'p', spans: [{ text: 'Some text.' }] }], align: 'left' }
    case 'button':
      return { kind, id, text: 'Open', url: 'https://', align: 'left' }
    case 'image':
      return { kind, id, src: '', alt: '', href: '', align: 'center' }
    case 'divider':
      return { kind, id }
    case 'spacer':
      return { kind, id, height: 24 }
    case 'columns':
      return { kind, id, columns: [[newBlock('text')], [newBlock('text')]] }
    case 'each':
      return { kind, id, list: '', children: [newBlock('text')] }
    case 'if':
      return { kind, id, when: { path: '', is: 'set' }, children: [newBlock('text')] }
  }
}
