import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type History, change, historyOf, redo, settle, undo } from './history.ts'

test('as often as something changed, undoing leads back to where it began, and redoing to where it was', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(), { maxLength: 50 }), values => {
      const begun: History<number> = historyOf(-1)
      let history = begun
      for (const [at, value] of values.entries()) history = change(history, value, '', at)
      const last = history.present
      const steps = history.past.length
      for (let n = 0; n < steps; n++) history = undo(history)
      assert.equal(history.present, -1)
      assert.equal(undo(history).present, -1)
      for (let n = 0; n < steps; n++) history = redo(history)
      assert.equal(history.present, last)
      assert.equal(redo(history).present, last)
    }),
  )
})

test('typing is undone by the word, not by the letter; a pause or another field begins anew', () => {
  let history = historyOf('')
  history = change(history, 'a', 'title', 0)
  history = change(history, 'ab', 'title', 900)
  history = change(history, 'abc', 'title', 1_800)
  assert.equal(undo(history).present, '')
  history = change(history, 'abcd', 'title', 5_000)
  assert.equal(undo(history).present, 'abc')
  history = change(history, 'x', 'body', 5_100)
  assert.equal(undo(history).present, 'abcd')
  history = change(settle(history), 'xy', 'body', 5_150)
  assert.equal(undo(history).present, 'x')
  history = undo(history)
  // What comes after an undo is a change of its own.
  history = change(undo(history), 'y', 'body', 5_200)
  assert.equal(history.future.length, 0)
  assert.equal(undo(history).present, 'abcd')
})

test('it does not grow without end', () => {
  let history = historyOf(0)
  for (let n = 1; n <= 1_000; n++) history = change(history, n, '', n)
  assert.equal(history.past.length, 200)
})
