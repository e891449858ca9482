import { hash } from 'node:crypto'
import type { AddressedContent } from '../ledger/plan.ts'
import type { Json, JsonObject } from '../types.ts'

/** One of the devices that a delivery goes to. */
export interface Target {
  to: string
  settings?: JsonObject
  /** Tells it from the others, between processes too, without telling its token. */
  name: string
  /** What its idempotency key has beside the delivery's: the first device has the plain one. */
  suffix: string
}

/** How far a delivery to several devices is; kept with its job between two tries, where there is something to keep. */
export interface DeviceProgress {
  /** Names of those that have the message. */
  taken: ReadonlySet<string>
  /** Names of those that will never have it. */
  ended: ReadonlySet<string>
}

const NOTHING: DeviceProgress = { taken: new Set(), ended: new Set() }

export function targetsOf({ to, settings, others }: AddressedContent): Target[] {
  return [{ to, settings }, ...others!].map((device, at) => {
    const name = hash('sha256', device.to, 'base64url').slice(0, 16)
    return { ...device, name, suffix: at === 0 ? '' : `.${name}` }
  })
}

/** Those that neither have it nor will never have it. */
export const pending = (targets: readonly Target[], { taken, ended }: DeviceProgress): Target[] =>
  targets.filter(({ name }) => !taken.has(name) && !ended.has(name))

/** What a job keeps of it; undefined while every device is still to be asked. */
export const progressState = ({ taken, ended }: DeviceProgress): JsonObject | undefined =>
  taken.size + ended.size === 0 ? undefined : { devices: { taken: [...taken], ended: [...ended] } }

/** What a job kept of it. */
export function progressIn(state: JsonObject | undefined): DeviceProgress {
  const kept = state?.devices as JsonObject | undefined
  if (kept === undefined) return NOTHING
  return { taken: namesIn(kept.taken), ended: namesIn(kept.ended) }
}

const namesIn = (list: Json | undefined): Set<string> =>
  new Set(Array.isArray(list) ? list.filter(each => typeof each === 'string') : [])
