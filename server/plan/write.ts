import type { Sealer } from '../db/seal.ts'
import type { AddressedContent } from '../ledger/plan.ts'
import { openAddressSettings } from '../people/addresses.ts'
import { openDeviceSettings } from '../people/devices.ts'
import type { AddressFact, DeviceFact, UserFacts } from '../people/facts.ts'
import type { TenantBook, TenantFacts } from '../people/tenant-book.ts'
import { render } from '../render/content.ts'
import type { CompiledRevision } from '../render/content.ts'
import { renderDefault } from '../render/default-templates.ts'
import { templateView } from '../render/view.ts'
import type { EventView } from '../render/view.ts'
import type { Channel, Content, Event, Id, JsonObject, Recipient } from '../types.ts'
import type { Route } from './route.ts'
import type { Common } from './world.ts'

export type Writer = ReturnType<typeof writer>

export interface WriterParts {
  sealer: Sealer
  tenants: TenantBook
  /** By event type: what templates see of such an event, before what it says itself. */
  beside?: ReadonlyMap<string, (event: EventView) => JsonObject>
}

/** What a notification says, where to, and under whose key it is kept. Pure but for what it remembers. */
export function writer({ sealer, tenants, beside }: WriterParts) {
  // Of an event that many people hear of it is found out once.
  const known = new WeakMap<EventView, Readonly<JsonObject>>()

  function besideOf(event: EventView): Readonly<JsonObject> | undefined {
    const find = beside?.get(event.type)
    if (!find) return undefined
    let found = known.get(event)
    if (!found) known.set(event, (found = find(event)))
    return found
  }

  function write(
    channel: Channel,
    route: Route,
    compiled: CompiledRevision | undefined,
    event: EventView,
    recipient: Recipient,
    user: UserFacts | null,
    id: Id,
    tenant: TenantFacts,
    now: Date,
    { assets, messages, links }: Common,
  ): Content {
    const view = templateView({
      event,
      vars: route.vars,
      beside: besideOf(event),
      user: user
        ? { id: user.userId, locale: user.locale, timezone: user.timezone, attributes: user.attributes }
        : { id: recipient.id },
      notification: { id, priority: route.priority },
      tenant,
      now,
      assets,
      messages,
      links,
    })
    if (compiled?.has(channel)) return render(compiled, channel, view.locale, view)
    const content = renderDefault(channel, view, route.inline)
    return links?.wanted ? { ...content, body: links.shorten(content.body) } : content
  }

  const deviceAddresses = new WeakMap<DeviceFact, AddressFact>()
  // An address's secrets are opened once for as long as its facts are at hand.
  const opened = new WeakMap<AddressFact, JsonObject>()

  /** A person's devices as addresses, the one used last first: apps register devices, people do not write them down. */
  function devicesOf(user: UserFacts, channel: Channel): AddressFact[] {
    if (channel !== 'push' && channel !== 'web_push') return []
    return user.devices
      .filter(({ kind }) => (kind === 'web_push') === (channel === 'web_push'))
      .slice(0, MAX_DEVICES)
      .map(device => {
        let made = deviceAddresses.get(device)
        if (!made) {
          made = { id: device.id, address: device.token, verification: 'verified', settings: NO_SETTINGS }
          deviceAddresses.set(device, made)
          const tenant = tenants.get(user.tenantId)
          if (tenant) opened.set(made, openDeviceSettings(sealer, tenant.dataKey, device))
        }
        return made
      })
  }

  /** The other devices that the same message goes to, when it goes to one of them. */
  function othersOf(
    address: AddressFact,
    user: UserFacts | null,
    channel: Channel,
    tenant: TenantFacts,
  ): Pick<AddressedContent, 'others'> | undefined {
    const devices = user === null ? [] : devicesOf(user, channel)
    if (devices.length < 2 || devices[0] !== address) return undefined
    return {
      others: devices.slice(1).map(other => ({ to: other.address, ...settingsOf(other, tenant) })),
    }
  }

  function settingsOf(
    address: AddressFact,
    tenant: TenantFacts,
  ): Pick<AddressedContent, 'settings'> | undefined {
    let settings = opened.get(address)
    if (!settings && Object.keys(address.settings).length === 0) return undefined
    if (!settings) {
      settings = openAddressSettings(sealer, tenant.dataKey, address) as JsonObject
      opened.set(address, settings)
    }
    return { settings }
  }

  function seal(event: Event, person?: UserFacts): Buffer {
    const key = person?.dataKey ?? tenants.get(event.tenantId)!.dataKey
    return sealer.seal(
      key,
      JSON.stringify({ data: event.data, direct: event.direct, maxRetries: event.maxRetries }),
    )
  }

  return { write, devicesOf, othersOf, settingsOf, seal }
}

/** More than anybody carries; those unused for longest are left out. */
const MAX_DEVICES = 20
const NO_SETTINGS: JsonObject = Object.freeze({})
