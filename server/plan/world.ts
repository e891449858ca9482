import type { Queryable } from '../db/pool.ts'
import type { Standing } from '../decide/candidate.ts'
import { suppressionsFor } from '../people/facts.ts'
import type { AddressFact, BatchFacts, PeopleFacts } from '../people/facts.ts'
import type { CompiledRevision } from '../render/content.ts'
import type { Templates } from '../render/templates.ts'
import type { Channel, Event, Id, TenantId, UserId } from '../types.ts'
import type { Draft } from './draft.ts'

/** What is read for a batch, before anything is decided. */
export interface World {
  facts: BatchFacts
  templates: Map<string, CompiledRevision | undefined>
  addresses: Map<string, AddressFact>
  standing(event: Event): Standing | null
}

export interface WorldParts {
  people: PeopleFacts
  templates: Templates
  /** Silences and inhibitions in force for these events. */
  standing?(q: Queryable, events: readonly Event[], now: Date): Promise<(event: Event) => Standing | null>
}

/** People, templates, bare addresses, silences: one statement of each kind for all drafts. */
export async function readWorld(
  q: Queryable,
  { people, templates, standing }: WorldParts,
  drafts: readonly Draft[],
  now: Date,
): Promise<World> {
  const wanted = new Map<TenantId, Set<UserId>>()
  const wantedTemplates = new Map<string, { tenantId: TenantId; templateId: Id }>()
  const bare = new Map<TenantId, { channel: Channel; address: string }[]>()
  for (const draft of drafts) {
    const { tenantId } = draft.event
    let users = wanted.get(tenantId)
    if (!users) wanted.set(tenantId, (users = new Set()))
    for (const [at, route] of draft.routes.entries()) {
      for (const id of route.users) users.add(id)
      for (const id of draft.audiences[at]!.keys()) users.add(id)
      for (const step of route.policy.escalation ?? []) for (const id of step.users ?? []) users.add(id)
      if (route.templateId)
        wantedTemplates.set(`${tenantId} ${route.templateId}`, { tenantId, templateId: route.templateId })
      if (route.addresses.length > 0) bare.set(tenantId, [...(bare.get(tenantId) ?? []), ...route.addresses])
    }
  }
  const facts = await people.load(
    q,
    [...wanted].map(([tenantId, userIds]) => ({ tenantId, userIds })),
  )
  const names = [...wantedTemplates]
  const revisions = await templates.load(
    q,
    names.map(([, wish]) => wish),
  )
  const addresses = new Map<string, AddressFact>()
  for (const [tenantId, list] of bare) {
    const suppressions = await suppressionsFor(q, tenantId, list)
    for (const [at, { channel, address }] of list.entries()) {
      addresses.set(`${tenantId} ${channel} ${address}`, {
        id: address,
        address,
        verification: 'verified',
        settings: {},
        suppression: suppressions[at],
      })
    }
  }
  const stands = await standing?.(
    q,
    drafts.map(({ event }) => event),
    now,
  )
  return {
    facts,
    templates: new Map(names.map(([name], at) => [name, revisions[at]])),
    addresses,
    standing: stands ?? NOTHING_STANDS,
  }
}

const NOTHING_STANDS = () => null
