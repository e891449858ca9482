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

/**
 * As many people again, `d0` and so on, and rules of types `decided.t0` and so on, for whom everything is decided: each
 * has quiet hours, which are not now, falls under two limits, far off, and each rule has a cooldown.
 */
export async function prepareDecided(
  server: BenchServer,
  db: Db,
  { users, rules, webhook }: Scene,
): Promise<void> {
  for (let first = 0; first < users; first += 1000) {
    await server.call('POST', '/api/users/bulk', {
      users: Array.from({ length: Math.min(1000, users - first) }, (_, i) => ({
        userId: `d${first + i}`,
        addresses: [{ channel: 'webhook', address: webhook, verified: true }],
      })),
    })
  }
  const hour = (after: number) => `${String((new Date().getUTCHours() + after) % 24).padStart(2, '0')}:00`
  await db.pool.query(
    `insert into preferences (tenant_id, user_id, channel, enabled, settings) select tenant_id, user_id, c, true, s
     from users, (values (0, '{}'::jsonb), (8, '{}'), (-1, $1::jsonb)) as v (c, s) where user_id like 'd%'
     on conflict (tenant_id, user_id, scope, channel) do update set enabled = excluded.enabled, settings = excluded.settings`,
    [
      JSON.stringify({
        quietHours: { enabled: true, start: hour(8), end: hour(16) },
        quietAppliesToInApp: true,
      }),
    ],
  )
  for (const window of ['hour', 'day']) {
    await server.call('POST', '/api/limits', {
      name: `a million a ${window}`,
      scope: 'user',
      eventTypes: ['decided.*'],
      max: 1_000_000,
      window,
    })
  }
  const template = await db.pool.query<{ id: string }>(`select id from templates where name = 'order'`)
  for (let i = 0; i < rules; i++) {
    await server.call('POST', '/api/rules', {
      name: `decided ${i}`,
      eventTypes: [`decided.t${i}`],
      eventPattern: 'event.data.amount > 10.0 && event.data.name != "nobody"',
      channels: ['in_app'],
      templateId: template.rows[0]!.id,
      recipientSelector: { expression: 'event.data.userId' },
      policy: { cooldown: { seconds: 1 } },
    })
  }
  await db.pool.query('analyze users, addresses, preferences')
}

/** Runs the load to its end. */
export async function load(options: LoadOptions): Promise<LoadResult> {
  const child = program('load.ts', JSON.stringify(options))
  return JSON.parse(await said(child, '{', options.seconds + 90)) as LoadResult
}
