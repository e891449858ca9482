import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { coverage, ranges, report } from './coverage-requirements.ts'

// Put together here, because this file is read like every other test.
const covers = (list: string) => `// ${'covers'}: ${list}`

const documents = [
  { file: 'one.md', text: '- **ONE-001** first\n- **ONE-002** see **ONE-001**\n- **ONE-003** third' },
  { file: 'two.md', text: '- **TWO-001** only; ONE-009 is only mentioned' },
]

test('counts what tests cite, per system, and names what is missing', () => {
  const found = coverage(documents, [
    { file: 'a.test.ts', text: `${covers('ONE-003, TWO-001')}\ntest()\n  ${covers('ONE-003')}` },
  ])
  assert.deepEqual(found, {
    systems: [
      { name: 'ONE', covered: ['ONE-003'], missing: ['ONE-001', 'ONE-002'] },
      { name: 'TWO', covered: ['TWO-001'], missing: [] },
    ],
    unknown: [],
  })
  const lines = report(found).split('\n')
  assert.ok(lines.includes('ONE missing: 001–002'))
  assert.match(lines.at(-1)!, /all\s+2 of\s+4\s+50 %/)
})

test('what does not exist is named with its place; a mention in code is no citation', () => {
  const found = coverage(documents, [
    { file: 'a.test.ts', text: `const text = 'covers: ONE-777'\n\n${covers('ONE-001, ONE-009 ONE-1')}` },
  ])
  assert.deepEqual(found.unknown, [
    { file: 'a.test.ts', line: 3, id: 'ONE-009' },
    { file: 'a.test.ts', line: 3, id: 'ONE-1' },
  ])
  assert.match(report(found), /a\.test\.ts:3: there is no requirement ONE-009/)
})

test('ranges say exactly the ids they were made from', () => {
  assert.equal(ranges(['AUR-001', 'AUR-002', 'AUR-003', 'AUR-007']), '001–003, 007')
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 60 })), numbers => {
      const text = ranges(numbers.map(number => `AUR-${String(number).padStart(3, '0')}`))
      const back =
        text === ''
          ? []
          : text.split(', ').flatMap(part => {
              const [from, to = from] = part.split('–').map(Number)
              return Array.from({ length: to! - from! + 1 }, (_, index) => from! + index)
            })
      assert.deepEqual(
        back,
        numbers.sort((a, b) => a - b),
      )
    }),
  )
})

test('this repository cites only what exists', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    join(import.meta.dirname, 'coverage-requirements.ts'),
  ])
  assert.match(stdout, /AUR\s+\d+ of\s+224/)
  assert.match(stdout, /PFM\s+\d+ of\s+324/)
})
