import { type Block, type Mail, newBlockId } from './block.ts'
import type { Rich } from './rich.ts'

/** A list of blocks within a mail: of a block's children or of one of its columns; `''` is the mail itself. */
export interface Place {
  parent: string
  column: number
}

export const TOP: Place = { parent: '', column: 0 }

export type Container = Extract<Block, { children: Block[] } | { columns: Block[][] }>

export const isContainer = (block: Block): block is Container => 'children' in block || 'columns' in block

/** The lists a block has. */
export const listsOf = (block: Block): Block[][] =>
  'children' in block ? [block.children] : 'columns' in block ? block.columns : []

const withLists = (block: Block, map: (list: Block[], column: number) => Block[]): Block =>
  'children' in block
    ? { ...block, children: map(block.children, 0) }
    : 'columns' in block
      ? { ...block, columns: block.columns.map(map) }
      : block

/** Every block, in reading order. */
export function* allBlocks(blocks: readonly Block[]): Iterable<Block> {
  for (const block of blocks) {
    yield block
    for (const list of listsOf(block)) yield* allBlocks(list)
  }
}

export const findBlock = (mail: Mail, id: string): Block | undefined => {
  for (const block of allBlocks(mail.blocks)) if (block.id === id) return block
  return undefined
}

export interface Found {
  place: Place
  index: number
}

/** Where a block is. */
export function placeOf(mail: Mail, id: string): Found | undefined {
  const look = (blocks: readonly Block[], place: Place): Found | undefined => {
    const index = blocks.findIndex(block => block.id === id)
    if (index >= 0) return { place, index }
    for (const block of blocks) {
      for (const [column, list] of listsOf(block).entries()) {
        const found = look(list, { parent: block.id, column })
        if (found) return found
      }
    }
    return undefined
  }
  return look(mail.blocks, TOP)
}

const listAt = (mail: Mail, { parent, column }: Place): Block[] =>
  parent === '' ? mail.blocks : ((findBlock(mail, parent) && listsOf(findBlock(mail, parent)!)[column]) ?? [])

function changeList(mail: Mail, place: Place, change: (list: Block[]) => Block[]): Mail {
  if (place.parent === '') return { ...mail, blocks: change(mail.blocks) }
  const walk = (blocks: Block[]): Block[] =>
    blocks.map(block =>
      withLists(block, (list, column) =>
        block.id === place.parent && column === place.column ? change(list) : walk(list),
      ),
    )
  return { ...mail, blocks: walk(mail.blocks) }
}

export function updateBlock(mail: Mail, id: string, change: (block: Block) => Block): Mail {
  const walk = (blocks: Block[]): Block[] =>
    blocks.map(block => (block.id === id ? change(block) : withLists(block, walk)))
  return { ...mail, blocks: walk(mail.blocks) }
}

const hasColumns = (block: Block): boolean => [...allBlocks([block])].some(one => one.kind === 'columns')

/** Whether a place is within columns, at any depth. */
export function isInColumns(mail: Mail, place: Place): boolean {
  for (let at: Place | undefined = place; at && at.parent !== ''; at = placeOf(mail, at.parent)?.place) {
    if (findBlock(mail, at.parent)?.kind === 'columns') return true
  }
  return false
}

/** Of lists within lists the server shows two (server/render/template.ts). */
const MAX_EACH = 2
const eachDepth = (block: Block): number =>
  (block.kind === 'each' ? 1 : 0) + Math.max(0, ...listsOf(block).flat().map(eachDepth))

/** Whether a block may stand at a place: columns never within columns, nothing within itself, two lists deep at most. */
export function mayStand(mail: Mail, block: Block, place: Place): boolean {
  if (hasColumns(block) && isInColumns(mail, place)) return false
  let around = 0
  for (let at: Place | undefined = place; at && at.parent !== ''; at = placeOf(mail, at.parent)?.place) {
    if (at.parent === block.id) return false
    if (findBlock(mail, at.parent)?.kind === 'each') around++
  }
  return around + eachDepth(block) <= MAX_EACH
}

export function insertBlock(mail: Mail, block: Block, place: Place, index: number): Mail {
  if (!mayStand(mail, block, place)) return mail
  return changeList(mail, place, list => list.toSpliced(Math.max(0, Math.min(index, list.length)), 0, block))
}

export function removeBlock(mail: Mail, id: string): Mail {
  const found = placeOf(mail, id)
  return found ? changeList(mail, found.place, list => list.toSpliced(found.index, 1)) : mail
}

/** To an index of a list as it is before; the mail as it was where the block may not stand there. */
export function moveBlock(mail: Mail, id: string, place: Place, index: number): Mail {
  const from = placeOf(mail, id)
  const block = findBlock(mail, id)
  if (!from || !block || !mayStand(mail, block, place)) return mail
  const same = from.place.parent === place.parent && from.place.column === place.column
  const to = same && index > from.index ? index - 1 : index
  if (same && to === from.index) return mail
  return insertBlock(removeBlock(mail, id), block, place, to)
}

/** One step up or down: past its neighbour, into a condition or list that stands there, or out of the one it is in. */
export function stepBlock(mail: Mail, id: string, by: -1 | 1): Mail {
  const from = placeOf(mail, id)
  const block = findBlock(mail, id)
  if (!from || !block) return mail
  const { place, index } = from
  const list = listAt(mail, place)
  const neighbour = list[index + by]
  if (neighbour) {
    const into = { parent: neighbour.id, column: by === 1 ? 0 : listsOf(neighbour).length - 1 }
    if (isContainer(neighbour) && mayStand(mail, block, into)) {
      return moveBlock(mail, id, into, by === 1 ? 0 : listAt(mail, into).length)
    }
    return moveBlock(mail, id, place, by === 1 ? index + 2 : index - 1)
  }
  if (place.parent === '') return mail
  const columns = findBlock(mail, place.parent)
  const beside = { parent: place.parent, column: place.column + by }
  if (columns?.kind === 'columns' && columns.columns[beside.column]) {
    return moveBlock(mail, id, beside, by === 1 ? 0 : listAt(mail, beside).length)
  }
  const out = placeOf(mail, place.parent)!
  return moveBlock(mail, id, out.place, by === 1 ? out.index + 1 : out.index)
}

/** The same again with ids of its own. */
export function copyOf(block: Block, newId: () => string = newBlockId): Block {
  return withLists({ ...structuredClone(block), id: newId() }, list =>
    list.map(child => copyOf(child, newId)),
  )
}

export function duplicateBlock(mail: Mail, id: string, newId: () => string = newBlockId): Mail {
  const found = placeOf(mail, id)
  const block = findBlock(mail, id)
  return found && block ? insertBlock(mail, copyOf(block, newId), found.place, found.index + 1) : mail
}

// ------------------------------------------------------------------------------------------ translations

/** The words of a block: what a translation changes. */
export interface Words {
  text?: string
  rich?: Rich
  alt?: string
}

export function wordsOf(block: Block): Words | undefined {
  switch (block.kind) {
    case 'heading':
    case 'button':
      return { text: block.text }
    case 'text':
      return { rich: block.rich }
    case 'image':
      return { alt: block.alt }
    default:
      return undefined
  }
}

/**
 * The mail in another language: as the original is built, with the words that the translation has for its blocks. What
 * it has no words for stays as it is in the original.
 */
export function inOtherWords(source: Mail, words: ReadonlyMap<string, Words>, preheader: string): Mail {
  const walk = (blocks: readonly Block[]): Block[] =>
    blocks.map(block => withLists({ ...block, ...words.get(block.id) }, walk))
  return { ...source, preheader, blocks: walk(source.blocks) }
}

/** By block. */
export function allWords(mail: Mail): Map<string, Words> {
  const found = new Map<string, Words>()
  for (const block of allBlocks(mail.blocks)) {
    const words = wordsOf(block)
    if (words) found.set(block.id, words)
  }
  return found
}

/** The blocks of a mail that still lack something, with what it is. */
export const lacksOf = (mail: Mail): { block: Block; lack: string }[] =>
  [...allBlocks(mail.blocks)].flatMap(block => {
    const lack = lackOf(block)
    return lack === undefined ? [] : [{ block, lack }]
  })

/** What a block still lacks before it can be sent, in words; undefined: nothing. */
export function lackOf(block: Block): string | undefined {
  switch (block.kind) {
    case 'image':
      return block.src === '' ? 'No picture is chosen yet.' : undefined
    case 'button':
      return /^(https?:\/\/)?$/.test(block.url.trim()) ? 'The button leads nowhere yet.' : undefined
    case 'each':
      return block.list === '' ? 'The list whose items it shows is not chosen yet.' : undefined
    case 'if':
      return block.when.path === '' ? 'What it depends on is not chosen yet.' : undefined
    default:
      return undefined
  }
}
