import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newId } from '../db/ids.ts'
import type { Queryable } from '../db/pool.ts'
import { revisionCache } from './cache.ts'
import type { TemplateRevision } from './content.ts'
import { templates } from './templates.ts'

const revision = (body: string, more: Partial<TemplateRevision> = {}): TemplateRevision => ({
  templateId: newId(),
  name: 'x',
  revision: 1,
  channels: { default: { body } },
  ...more,
})

test('what partials come to counts once it is compiled: a short text may be a long one', () => {
  const cache = revisionCache(60_000)
  const large = () => revision('{{> x}}'.repeat(40), { partials: { x: '{{a}}'.repeat(50) } })
  const [first, second] = [large(), large()]
  const kept = ({ templateId }: TemplateRevision) => cache.get(7, templateId, 1) !== undefined
  const compiled = [first, second].map(one => cache.compile(7, one))
  assert.deepEqual([kept(first), kept(second)], [true, true], 'nothing is compiled yet')
  for (const one of compiled) one.select('sms', 'en')
  assert.deepEqual([kept(first), kept(second)], [false, true])
  // It makes no room for itself again by being used on.
  compiled[0]!.select('email', 'en')
  assert.deepEqual([kept(first), kept(second)], [false, true])
})

test('messages of a template count as its texts do', () => {
  const cache = revisionCache(10_000)
  const large = revision('{{t "a"}}', { messages: { en: { a: 'x'.repeat(9_990) } } })
  cache.compile(7, large)
  assert.equal(cache.get(7, large.templateId, 1), undefined)
})

test('a current revision that made room is read again, held by nobody else', async () => {
  const cache = revisionCache(1_000)
  const all = templates(cache)
  const made = [revision('a'.repeat(600)), revision('b'.repeat(600))]
  const asked: string[][] = []
  const q = {
    rows: async (_: unknown, [tenants, ids]: [number[], string[]]) => {
      asked.push(ids)
      return ids.map((id, i) => {
        const of = made.find(({ templateId }) => templateId === id)!
        return { nr: i + 1, tenant_id: tenants[i], id, locale: 'en', ...of }
      })
    },
  } as unknown as Queryable
  const [a, b] = made.map(({ templateId }) => templateId) as [string, string]
  const load = async (templateId: string) => {
    const [found] = await all.load(q, [{ tenantId: 7, templateId }])
    return found!.revision.templateId
  }
  for (const id of [a, a, b, b, a]) assert.equal(await load(id), id)
  assert.deepEqual(asked, [[a], [b], [a]])
})
