import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Block, DEFAULT_STYLE, type Mail, newBlock } from './block.ts'
import { parseMail, printMail } from './mjml.ts'
import { mail } from './test-mails.ts'
import {
  TOP,
  allBlocks,
  allWords,
  duplicateBlock,
  findBlock,
  inOtherWords,
  isInColumns,
  mayStand,
  moveBlock,
  placeOf,
  removeBlock,
  stepBlock,
} from './tree.ts'

const ids = (of: Mail) => [...allBlocks(of.blocks)].map(block => block.id)
const sorted = (of: Mail) => ids(of).toSorted()

/** A mail whose blocks all have ids of their own, with one of them. */
const withOne = mail
  .map(made => {
    let n = 0
    const named = (blocks: Block[]): Block[] =>
      blocks.map(block => ({
        ...block,
        id: `block${100 + n++}`,
        ...('children' in block && { children: named(block.children) }),
        ...('columns' in block && { columns: block.columns.map(named) }),
      })) as Block[]
    return { ...made, blocks: named(made.blocks) }
  })
  .filter(made => made.blocks.length > 0 && made.blocks.every(block => mayStand(made, block, TOP)))
  .chain(made => fc.record({ made: fc.constant(made), id: fc.constantFrom(...ids(made)) }))

const sound = (of: Mail) => {
  assert.equal(new Set(ids(of)).size, ids(of).length)
  for (const block of allBlocks(of.blocks)) {
    if (block.kind === 'columns') assert.ok(!isInColumns(of, placeOf(of, block.id)!.place))
  }
  assert.deepEqual(parseMail(printMail(of)), of)
}

test('stepping up and down keeps every block, once, and all of it can be saved', () => {
  fc.assert(
    fc.property(
      withOne,
      fc.array(fc.constantFrom(-1 as const, 1 as const), { maxLength: 12 }),
      ({ made, id }, steps) => {
        let moved = made
        for (const by of steps) moved = stepBlock(moved, id, by)
        assert.deepEqual(sorted(moved), sorted(made))
        sound(moved)
      },
    ),
  )
})

test('a block can be brought to either end by stepping alone', () => {
  fc.assert(
    fc.property(withOne, ({ made, id }) => {
      let moved = made
      for (let n = 0; n < 200; n++) moved = stepBlock(moved, id, 1)
      assert.deepEqual(placeOf(moved, id), { place: TOP, index: moved.blocks.length - 1 })
      for (let n = 0; n < 200; n++) moved = stepBlock(moved, id, -1)
      assert.deepEqual(placeOf(moved, id), { place: TOP, index: 0 })
    }),
    { numRuns: 50 },
  )
})

test('a block goes anywhere it may stand, and nowhere else', () => {
  fc.assert(
    fc.property(withOne, fc.nat(), fc.nat(), ({ made, id }, n, index) => {
      const containers = [...allBlocks(made.blocks)].filter(
        block => 'children' in block || 'columns' in block,
      )
      const target = containers[n % Math.max(containers.length, 1)]
      const place = target ? { parent: target.id, column: 0 } : TOP
      const moved = moveBlock(made, id, place, index % 10)
      assert.deepEqual(sorted(moved), sorted(made))
      sound(moved)
      if (mayStand(made, findBlock(made, id)!, place)) assert.deepEqual(placeOf(moved, id)!.place, place)
      else assert.equal(moved, made)
    }),
  )
})

test('removing takes a block with all that is in it; a copy has ids of its own', () => {
  fc.assert(
    fc.property(withOne, ({ made, id }) => {
      const gone = [...allBlocks([findBlock(made, id)!])].length
      assert.equal(ids(removeBlock(made, id)).length, ids(made).length - gone)
      let n = 0
      const copied = duplicateBlock(made, id, () => `copy${1000 + n++}`)
      assert.equal(ids(copied).length, ids(made).length + gone)
      sound(copied)
    }),
  )
})

test('a translation is built as the original is, whatever has been moved, added or removed since', () => {
  const [heading, text, button] = [newBlock('heading'), newBlock('text'), newBlock('button')] as const
  const source: Mail = { preheader: 'x', style: DEFAULT_STYLE, blocks: [heading, text, button] }
  const words = new Map([[heading.id, { text: 'Überschrift' }]])
  const german = inOtherWords(source, words, 'y')
  assert.deepEqual(allWords(german).get(heading.id), { text: 'Überschrift' })
  const changed: Mail = { ...source, blocks: [newBlock('divider'), button, heading] }
  const again = inOtherWords(changed, allWords(german), 'y')
  assert.deepEqual(ids(again), ids(changed))
  assert.equal((findBlock(again, heading.id) as { text: string }).text, 'Überschrift')
  fc.assert(
    fc.property(mail, made => assert.deepEqual(inOtherWords(made, allWords(made), made.preheader), made)),
  )
})
