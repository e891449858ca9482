import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { breaker } from './breaker.ts'

const at = (seconds: number) => new Date(seconds * 1000)

// covers: PFM-190, PFM-191
test('five failures in a row open it; a success between them starts the count anew', () => {
  const one = breaker()
  for (let i = 0; i < 4; i++) assert.equal(one.failed(at(0)), null)
  one.succeeded(at(0))
  for (let i = 0; i < 4; i++) assert.equal(one.failed(at(1)), null)
  assert.equal(one.failed(at(1)), 'opened')
  assert.deepEqual(one.ask(at(2)), { kind: 'wait', until: at(61) })
})

// covers: DIC-134, PFM-190, PFM-191, PFM-196
test('after its time one probe at a time goes out, and two good ones close it', () => {
  const one = breaker()
  for (let i = 0; i < 5; i++) one.failed(at(0))
  assert.equal(one.ask(at(59)).kind, 'wait')
  assert.equal(one.ask(at(60)).kind, 'probe')
  assert.equal(one.ask(at(60)).kind, 'wait', 'the second one waits for the probe')
  assert.equal(one.succeeded(at(61)), null)
  assert.equal(one.ask(at(61)).kind, 'probe')
  assert.equal(one.succeeded(at(62)), 'closed')
  assert.equal(one.ask(at(62)).kind, 'go')
})

// covers: PFM-195
test('any failure while half open opens it again for the whole time', () => {
  const one = breaker()
  for (let i = 0; i < 5; i++) one.failed(at(0))
  one.ask(at(60))
  one.succeeded(at(60))
  one.ask(at(61))
  assert.equal(one.failed(at(61)), null, 'it was not closed, so nothing new is announced')
  assert.deepEqual(one.ask(at(62)), { kind: 'wait', until: at(121) })
})

test('a probe that says nothing about the far end frees its place', () => {
  const one = breaker()
  for (let i = 0; i < 5; i++) one.failed(at(0))
  one.ask(at(60))
  one.neither()
  assert.equal(one.ask(at(60)).kind, 'probe')
})

test('whatever happens, never two probes at once and never a send while open', () => {
  const step = fc.constantFrom('ask', 'ok', 'bad', 'neither', 'wait')
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), steps => {
      const one = breaker({ failures: 3, successes: 2, openMs: 10_000 })
      let seconds = 0
      let probes = 0
      for (const what of steps) {
        if (what === 'wait') seconds += 3
        else if (what === 'ask') {
          const { state, until } = one
          const answer = one.ask(at(seconds))
          if (state === 'open' && at(seconds) < until!) assert.equal(answer.kind, 'wait')
          if (answer.kind === 'probe') assert.equal(++probes, 1)
          if (answer.kind === 'go') assert.equal(one.state, 'closed')
        } else {
          if (what === 'ok') one.succeeded(at(seconds))
          else if (what === 'bad') one.failed(at(seconds))
          else one.neither()
          probes = 0
        }
      }
    }),
  )
})
