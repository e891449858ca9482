import type { AssetBook, AssetUrls } from '../assets/asset-book.ts'
import type { Queryable } from '../db/pool.ts'
import type { Standing } from '../decide/candidate.ts'
import { suppressionsFor } from '../people/facts.ts'
import type { AddressFact, BatchFacts, PeopleFacts } from '../people/facts.ts'
import type { CompiledRevision } from '../render/content.ts'
import type { MessageBook } from '../render/message-book.ts'
import type { SharedMessages } from '../render/messages.ts'
import type { TextLinks } from '../render/template.ts'
import type { Templates, WantedTemplate } from '../render/templates.ts'
import type { Channel, Event, Id, TenantId, UserId } from '../types.ts'
import type { Draft, Telling } from './draft.ts'
import type { Route } from './route.ts'

/** What is read for a batch, before anything is decided. */
export interface World {
  facts: BatchFacts
  templates: Map<string, CompiledRevision | undefined>
  addresses: Map<string, AddressFact>
  standing(event: Event): Standing | null
  /** What all texts of a tenant may show and say. */
  common(tenantId: TenantId): Common
}

/** Addresses of pictures by name, and messages besides a template's own. */
export interface Common {
  assets: AssetUrls
  messages?: SharedMessages | undefined
  /** Of one message on one channel: its links. */
  links?: TextLinks
}

export interface WorldParts {
  people: PeopleFacts
  templates: Templates
  /** Pictures that templates name. */
  assets?: AssetBook
  /** What templates say by name. */
  messages?: MessageBook
  /** Silences and inhibitions in force for these events. */
  standing?(q: Queryable, events: readonly Event[], now: Date): Promise<(event: Event) => Standing | null>
}

/** People, templates, bare addresses, silences: one statement of each kind for all drafts. */
export async function readWorld(
  q: Queryable,
  { people, templates, assets, messages, standing }: WorldParts,
  drafts: readonly Draft[],
  now: Date,
): Promise<World> {
  const wanted = new Map<TenantId, Set<UserId>>()
  const wantedTemplates = new Map<string, WantedTemplate>()
  const bare = new Map<TenantId, { channel: Channel; address: string }[]>()
  for (const draft of drafts) {
    const { tenantId } = draft.event
    let users = wanted.get(tenantId)
    if (!users) wanted.set(tenantId, (users = new Set()))
    for (const [at, route] of draft.routes.entries()) {
      for (const id of route.users) users.add(id)
      for (const id of draft.audiences[at]!.keys()) users.add(id)
      for (const step of route.policy.escalation ?? []) for (const id of step.users ?? []) users.add(id)
      for (const wish of textsOf(route)) wantedTemplates.set(textKey(tenantId, wish), { tenantId, ...wish })
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
  const anyText = wantedTemplates.size > 0
  const urls = anyText ? await assets?.load(q, wanted.keys(), now) : undefined
  const said = anyText ? await messages?.load(q, wanted.keys()) : undefined
  return {
    facts,
    templates: new Map(names.map(([name], at) => [name, revisions[at]])),
    addresses,
    standing: stands ?? NOTHING_STANDS,
    common: tenantId => ({ assets: urls?.(tenantId) ?? NO_URLS, messages: said?.(tenantId) }),
  }
}

/** A template, at its current revision where none is named. */
interface Text {
  templateId: Id
  revision?: number
}

const textKey = (tenantId: TenantId, { templateId, revision }: Text): string =>
  revision === undefined ? `${tenantId} ${templateId}` : `${tenantId} ${templateId} ${revision}`

/** Every text that somebody may be told because of a route. */
function* textsOf({ templateId, experiment }: Route): Iterable<Text> {
  if (templateId) yield { templateId }
  for (const says of experiment?.variants ?? []) {
    const id = says.templateId ?? templateId
    if (id) yield says.revision === null ? { templateId: id } : { templateId: id, revision: says.revision }
  }
}

/** What this person is told; undefined: without a template, or one that is out of use. */
export function textFor(
  { tenantId }: Event,
  { route, part }: Telling,
  world: World,
): CompiledRevision | undefined {
  const templateId = part?.says.templateId ?? route.templateId
  if (!templateId) return undefined
  const current = world.templates.get(textKey(tenantId, { templateId }))
  const revision = part?.says.revision ?? null
  if (current === undefined || revision === null) return current
  return world.templates.get(textKey(tenantId, { templateId, revision }))
}

const NOTHING_STANDS = () => null
const NO_URLS: AssetUrls = Object.freeze({})
