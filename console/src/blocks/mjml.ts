import {
  type Align,
  type Block,
  type Condition,
  DEFAULT_STYLE,
  type If,
  type Mail,
  type Style,
} from './block.ts'
import { type MarkupElement, type MarkupNode, escapeText, parseMarkup, printAttributes } from './markup.ts'
import { parseRich, printRich } from './rich.ts'

/*
 * A mail of blocks is kept as MJML and as nothing else: what is there to read and to compare between revisions is what
 * is sent. The blocks' ids and what MJML has no word for are in `mj-class`, which MJML takes and leaves no trace of in the
 * HTML. MJML that this file would not write in exactly the same way was written by hand, and is left to the source view.
 */

/** None of the names for which MJML would bring in a web font. */
const FONT = "-apple-system, 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, sans-serif"
const SIZES = { 1: 28, 2: 22, 3: 18 } as const
const SCHEMES =
  '<meta name="color-scheme" content="light dark" /><meta name="supported-color-schemes" content="light dark" />'
/** Their content is text to MJML, not elements. */
const RAW = new Set(['mj-raw', 'mj-text', 'mj-button', 'mj-preview'])

// ------------------------------------------------------------------------------------------------ writing

export function printMail({ preheader, style, blocks }: Mail): string {
  const ink = style.page?.ink ?? 'inherit'
  const lines = [
    '<mjml>',
    '  <mj-head>',
    `    <mj-raw>${SCHEMES}</mj-raw>`,
    ...(preheader === '' ? [] : [`    <mj-preview>${escapeText(preheader)}</mj-preview>`]),
    '    <mj-attributes>',
    `      <mj-all${printAttributes({ 'font-family': FONT })} />`,
    `      <mj-text${printAttributes({ 'font-size': '16px', 'line-height': '1.5', color: ink, padding: '0 24px 4px' })} />`,
    `      <mj-button${printAttributes({
      'background-color': style.accent,
      color: readableOn(style.accent),
      'border-radius': style.rounded ? '8px' : '0',
      'font-size': '16px',
      'font-weight': '600',
      'inner-padding': '12px 22px',
      padding: '8px 24px 20px',
    })} />`,
    `      <mj-image${printAttributes({ padding: '8px 24px 16px' })} />`,
    `      <mj-divider${printAttributes({ 'border-color': '#8e8e93', 'border-width': '1px', padding: '12px 24px 20px' })} />`,
    `      <mj-section${printAttributes({ padding: '0' })} />`,
    '    </mj-attributes>',
    '  </mj-head>',
    `  <mj-body${printAttributes({ width: `${style.width}px`, 'background-color': style.page?.background })}>`,
    ...printSections(blocks, '    '),
    '  </mj-body>',
    '</mjml>',
    '',
  ]
  return lines.join('\n')
}

const hasColumns = (block: Block): boolean =>
  block.kind === 'columns' ||
  ((block.kind === 'if' || block.kind === 'each') && block.children.some(hasColumns))

/** Blocks as sections: those in a row that need no columns share one. */
function printSections(blocks: readonly Block[], indent: string): string[] {
  const lines: string[] = []
  let row: Block[] = []
  const endRow = () => {
    if (row.length === 0) return
    lines.push(
      `${indent}<mj-section mj-class="rows">`,
      `${indent}  <mj-column>`,
      ...row.flatMap(block => printBlock(block, `${indent}    `)),
      `${indent}  </mj-column>`,
      `${indent}</mj-section>`,
    )
    row = []
  }
  for (const block of blocks) {
    if (!hasColumns(block)) {
      row.push(block)
      continue
    }
    endRow()
    if (block.kind === 'columns') {
      lines.push(
        `${indent}<mj-section${printAttributes({ 'mj-class': `columns ${block.id}` })}>`,
        ...block.columns.flatMap(column => [
          `${indent}  <mj-column>`,
          ...column.flatMap(child => printBlock(child, `${indent}    `)),
          `${indent}  </mj-column>`,
        ]),
        `${indent}</mj-section>`,
      )
    } else if (block.kind === 'if' || block.kind === 'each') {
      const [open, close] = fence(block)
      lines.push(indent + open, ...printSections(block.children, `${indent}  `), indent + close)
    }
  }
  endRow()
  return lines
}

function printBlock(block: Block, indent: string): string[] {
  const { id } = block
  switch (block.kind) {
    case 'heading':
      return [
        `${indent}<mj-text${printAttributes({
          'mj-class': `heading ${id}`,
          'font-size': `${SIZES[block.level]}px`,
          'line-height': '1.25',
          'font-weight': '700',
          padding: '12px 24px',
          ...aligned(block.align),
        })}><h${block.level} style="margin:0;font:inherit">${escapeText(block.text)}</h${block.level}></mj-text>`,
      ]
    case 'text':
      return [
        `${indent}<mj-text${printAttributes({ 'mj-class': `text ${id}`, ...aligned(block.align) })}>${printRich(block.rich)}</mj-text>`,
      ]
    case 'button':
      return [
        `${indent}<mj-button${printAttributes({ 'mj-class': `button ${id}`, href: block.url, align: block.align })}>${escapeText(block.text)}</mj-button>`,
      ]
    case 'image':
      return [
        `${indent}<mj-image${printAttributes({
          'mj-class': `image ${id}`,
          src: block.src,
          // Without one a reader is told the name of the file.
          alt: block.alt === '' ? undefined : block.alt,
          href: block.href,
          width: block.width === undefined ? undefined : `${block.width}px`,
          align: block.align,
        })} />`,
      ]
    case 'divider':
      return [`${indent}<mj-divider${printAttributes({ 'mj-class': `divider ${id}` })} />`]
    case 'spacer':
      return [
        `${indent}<mj-spacer${printAttributes({ 'mj-class': `spacer ${id}`, height: `${block.height}px` })} />`,
      ]
    case 'if':
    case 'each': {
      const [open, close] = fence(block)
      return [
        indent + open,
        ...block.children.flatMap(child => printBlock(child, `${indent}  `)),
        indent + close,
      ]
    }
    // The editor puts none where there are columns already.
    case 'columns':
      return block.columns.flatMap(column => column.flatMap(child => printBlock(child, indent)))
  }
}

const aligned = (align: Align) => (align === 'left' ? {} : { align })

/** What a list or a condition reads while nobody has chosen: no data has it, so nothing is shown. */
export const NOTHING = 'nothing'

/** What stands before and after the children. */
function fence(block: Extract<Block, { children: Block[] }>): [open: string, close: string] {
  const mark = printAttributes({ 'mj-class': `${block.kind} ${block.id}` })
  if (block.kind === 'each') {
    return [`<mj-raw${mark}>{{#each ${block.list || NOTHING}}}</mj-raw>`, '<mj-raw>{{/each}}</mj-raw>']
  }
  const word = block.when.is === 'unset' ? 'unless' : 'if'
  return [
    `<mj-raw${mark}>{{#${word} ${printCondition(block.when)}}}</mj-raw>`,
    `<mj-raw>{{/${word}}}</mj-raw>`,
  ]
}

function printCondition({ path, is, value = '' }: Condition): string {
  const subject = path || NOTHING
  if (is === 'set' || is === 'unset') return subject
  return `(${is} ${subject} ${typeof value === 'string' ? `"${plainValue(value)}"` : String(value)})`
}

/** A text that can stand between quotes within `{{…}}` within markup. */
export const plainValue = (text: string): string => text.replaceAll(/["\\{}<>&\n\r]/g, '')

/** Black or white, whichever is read more easily on a colour (WCAG 2.2, relative luminance). */
export function readableOn(colour: string): string {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map(at => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? '#000000' : '#ffffff'
}

// ------------------------------------------------------------------------------------------------ reading

/** The blocks of a mail that was made of blocks; undefined where it was written, or changed, by hand. */
export function parseMail(source: string): Mail | undefined {
  const nodes = parseMarkup(source, RAW)
  const root = nodes && only(nodes)[0]
  if (!root) return undefined
  try {
    const mail = readMail(root)
    return printMail(mail) === source ? mail : undefined
  } catch (error) {
    if (error instanceof NotBlocks) return undefined
    throw error
  }
}

class NotBlocks extends Error {}
const fail = (): never => {
  throw new NotBlocks()
}

const only = (nodes: readonly MarkupNode[]): MarkupElement[] => nodes.filter(node => typeof node !== 'string')
const find = (element: MarkupElement | undefined, name: string) =>
  element && only(element.children).find(child => child.name === name)
const inner = (element: MarkupElement | undefined): string =>
  (element?.children[0] as string | undefined) ?? ''
const pixels = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Number.parseInt(text, 10)

function readMail(root: MarkupElement): Mail {
  const head = find(root, 'mj-head')
  const body = find(root, 'mj-body') ?? fail()
  const attributes = find(head, 'mj-attributes')
  const button = find(attributes, 'mj-button')?.attributes ?? {}
  const background = body.attributes['background-color']
  const style: Style = {
    width: pixels(body.attributes.width) ?? DEFAULT_STYLE.width,
    accent: button['background-color'] ?? DEFAULT_STYLE.accent,
    rounded: button['border-radius'] === '8px',
    ...(background !== undefined && {
      page: { background, ink: find(attributes, 'mj-text')?.attributes.color ?? '' },
    }),
  }
  return {
    preheader: unescaped(inner(find(head, 'mj-preview'))),
    style,
    blocks: readBlocks(only(body.children)),
  }
}

/** Elements in their order; what stands between the two ends of an `if` or `each` is its children. */
function readBlocks(elements: readonly MarkupElement[]): Block[] {
  const top: Block[] = []
  const open: { block: Extract<Block, { children: Block[] }>; into: Block[] }[] = []
  let into = top
  for (const element of elements) {
    const [kind, id] = (element.attributes['mj-class'] ?? '').split(' ')
    if (element.name === 'mj-section') {
      const columns = only(element.children)
      if (kind === 'rows') into.push(...readBlocks(only(columns[0]?.children ?? [])))
      else if (kind === 'columns' && id) {
        into.push({ kind, id, columns: columns.map(column => readBlocks(only(column.children))) })
      } else fail()
    } else if (element.name === 'mj-raw') {
      const text = inner(element)
      if (text.startsWith('{{/')) {
        const last = open.pop() ?? fail()
        into = last.into
        into.push(last.block)
        continue
      }
      const block = readFence(kind, id, text)
      open.push({ block, into })
      into = block.children
    } else into.push(readBlock(element, kind, id))
  }
  if (open.length > 0) fail()
  return top
}

const TAG =
  /^\{\{#(if|unless|each) (?:([\w.@/-]+)|\((eq|ne|gt|lt) ([\w.@/-]+) (?:"([^"]*)"|(true|false)|(-?[\d.]+(?:e[+-]?\d+)?))\))\}\}$/

function readFence(
  kind: string | undefined,
  id: string | undefined,
  text: string,
): Extract<Block, { children: Block[] }> {
  const found = TAG.exec(text)
  if (!found || !id) return fail()
  const [, word, bare, is, path, quoted, truth, number] = found
  const named = (name: string | undefined) => (name === undefined || name === NOTHING ? '' : name)
  if (kind === 'each') return { kind, id, list: named(bare), children: [] }
  if (kind !== 'if') return fail()
  const when: Condition =
    is === undefined
      ? { path: named(bare), is: word === 'unless' ? 'unset' : 'set' }
      : {
          path: named(path),
          is: is as If['when']['is'],
          value: quoted ?? (truth === undefined ? Number(number) : truth === 'true'),
        }
  return { kind, id, when, children: [] }
}

function readBlock(element: MarkupElement, kind: string | undefined, id: string | undefined): Block {
  if (!id) return fail()
  const { attributes } = element
  const align = (attributes.align ?? 'left') as Align
  switch (`${element.name} ${kind}`) {
    case 'mj-text heading': {
      const found = /^<h([123]) style="[^"]*">([^]*)<\/h\1>$/.exec(inner(element)) ?? fail()
      return { kind: 'heading', id, text: unescaped(found[2]!), level: Number(found[1]) as 1 | 2 | 3, align }
    }
    case 'mj-text text':
      return { kind: 'text', id, rich: parseRich(inner(element)) ?? fail(), align }
    case 'mj-button button':
      return { kind: 'button', id, text: unescaped(inner(element)), url: attributes.href ?? '', align }
    case 'mj-image image': {
      const width = pixels(attributes.width)
      return {
        kind: 'image',
        id,
        src: attributes.src ?? '',
        alt: attributes.alt ?? '',
        href: attributes.href ?? '',
        ...(width !== undefined && { width }),
        align,
      }
    }
    case 'mj-divider divider':
      return { kind: 'divider', id }
    case 'mj-spacer spacer':
      return { kind: 'spacer', id, height: pixels(attributes.height) ?? 0 }
    default:
      return fail()
  }
}

/** Text within an element; anything but text is not ours. */
function unescaped(text: string): string {
  const nodes = parseMarkup(text) ?? fail()
  return nodes.map(node => (typeof node === 'string' ? node : fail())).join('')
}
