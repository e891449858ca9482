import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import type { Json, JsonObject } from '../../types.ts'
import type { HttpReply } from './conformance.ts'

/** For tests: Slack's side of a message. */

/** What Slack shows of a text. */
export const decodeSlack = (text: string): string =>
  text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&')

/** A vendor's contract that lies beside the checkout, or undefined where there is none. */
export function contract(name: string): Json | undefined {
  try {
    const file = new URL(`../../../../shared/contracts/${name}`, import.meta.url)
    return JSON.parse(readFileSync(file, 'utf8')) as Json
  } catch {
    return undefined
  }
}

/** What Slack answers to blocks or a text that it does not take: its own numbers, not ours. */
export function refusesMessage(body: JsonObject): string | undefined {
  const { text, blocks } = body
  if (typeof text !== 'string' || text === '') return 'no_text'
  if (text.length > 40_000) return 'msg_too_long'
  if (blocks === undefined) return undefined
  try {
    checkBlocks(blocks)
    return undefined
  } catch {
    return 'invalid_blocks'
  }
}

export function checkBlocks(blocks: Json): void {
  assert.ok(Array.isArray(blocks) && blocks.length > 0 && blocks.length <= 50, 'blocks')
  const ids = blocks.map(block => (block as JsonObject).block_id).filter(id => id !== undefined)
  assert.equal(new Set(ids).size, ids.length, 'a block_id stands twice')
  for (const block of blocks as JsonObject[]) checkBlock(block)
}

function checkBlock(block: JsonObject): void {
  const { type, text, fields, elements, block_id: id } = block
  if (id !== undefined) bounded(id, 255)
  switch (type) {
    case 'header':
      assert.equal((text as JsonObject).type, 'plain_text')
      return textObject(text, 150)
    case 'section':
      assert.ok(text !== undefined || fields !== undefined)
      if (text !== undefined) textObject(text, 3_000)
      if (fields !== undefined) {
        assert.ok(Array.isArray(fields) && fields.length > 0 && fields.length <= 10)
        for (const field of fields) textObject(field, 2_000)
      }
      return
    case 'image':
      bounded(block.image_url, 3_000)
      return bounded(block.alt_text, 2_000)
    case 'actions': {
      assert.ok(Array.isArray(elements) && elements.length > 0 && elements.length <= 25)
      const actions = (elements as JsonObject[]).map(element => element.action_id)
      assert.equal(new Set(actions).size, actions.length, 'an action_id stands twice')
      for (const element of elements as JsonObject[]) {
        assert.equal((element.text as JsonObject).type, 'plain_text')
        textObject(element.text, 75)
        bounded(element.action_id, 255)
        if (element.url !== undefined) bounded(element.url, 3_000)
        if (element.value !== undefined) bounded(element.value, 2_000)
      }
      return
    }
    case 'context':
      assert.ok(Array.isArray(elements) && elements.length > 0 && elements.length <= 10)
      for (const element of elements) textObject(element, 3_000)
      return
    default:
      assert.fail(`no block of the kind ${JSON.stringify(type)}`)
  }
}

function textObject(given: Json | undefined, max: number): void {
  const { type, text } = given as JsonObject
  assert.ok(type === 'mrkdwn' || type === 'plain_text')
  bounded(text, max)
}

function bounded(text: Json | undefined, max: number): void {
  assert.ok(typeof text === 'string' && text.length > 0 && text.length <= max, `longer than ${max}`)
}

export const slackError = (error: string, status = 200): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json; charset=utf-8' },
  body: JSON.stringify({ ok: false, error }),
})
