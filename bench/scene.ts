import type { Db } from '../server/db/pool.ts'
import type { LoadOptions, LoadResult } from './load.ts'
import { type BenchServer, program, said } from './server.ts'

/**
 * What pipeline.ts and peers.ts play on: so many people with an address and an opinion, one template, one rule for
 * each event type. Every event of load.ts matches one rule and concerns one person.
 */
export interface Scene {
  users: number
  rules: number
  /** Where webhooks go. */
  webhook: string
}

export async function prepare(server: BenchServer, db: Db, { users, rules, webhook }: Scene): Promise<void> {
  for (let first = 0; first < users; first += 1000) {
    await server.call('POST', '/api/users/bulk', {
      users: Array.from({ length: Math.min(1000, users - first) }, (_, i) => ({
        userId: `u${first + i}`,
        addresses: [{ channel: 'webhook', address: webhook, verified: true }],
      })),
    })
  }
  // Everybody has said something: the channels the benches send on are wanted.
  await db.pool.query(
    `insert into preferences (tenant_id, user_id, channel, enabled) select tenant_id, user_id, c, true
     from users, (values (0), (8)) as v (c) on conflict do nothing`,
  )
  const template = await server.call('POST', '/api/templates', {
    name: 'order',
    channels: {
      default: {
        subject: 'Order for {{name}}',
        body: 'Dear {{name}},\n{{#if title}}{{title}}.{{/if}} {{body}}\n{{#each items}}{{count}} × {{name}}; {{/each}}\nThank you.',
      },
    },
  })
  for (let i = 0; i < rules; i++) {
    await server.call('POST', '/api/rules', {
      name: `rule ${i}`,
      eventTypes: [`shop.t${i}`],
      eventPattern: 'event.data.amount > 10.0 && event.data.name != "nobody"',
      channels: ['in_app'],
      templateId: template.id,
      recipientSelector: { expression: 'event.data.userId' },
    })
  }
  await db.pool.query('analyze users, addresses, preferences')
}

/** Runs the load to its end. */
export async function load(options: LoadOptions): Promise<LoadResult> {
  const child = program('load.ts', JSON.stringify(options))
  return JSON.parse(await said(child, '{', options.seconds + 90)) as LoadResult
}
