import type { JsonObject, Message } from '../../types.ts'
import { openHttp } from '../http.ts'
import { openProvider } from '../open-provider.ts'
import type { AnyProvider, DeliveryError, Sent } from '../provider.ts'
import { type Behaviour, exampleMessage, type Received, type Vendor } from './conformance.ts'

export const NOW = new Date('2026-11-21T12:00:00.000Z')

/** For tests: one message to a local vendor, what came of it and what arrived. */
export async function deliverOne(
  provider: AnyProvider,
  openVendor: () => Promise<Vendor>,
  settingsFor: (vendor: Vendor) => JsonObject,
  messageFor: (vendor: Vendor) => Partial<Message>,
  behaviour: Behaviour = 'accept',
): Promise<{ outcome: Sent | DeliveryError; received: Received[]; bodies: JsonObject[] }> {
  const vendor = await openVendor()
  vendor.behave(behaviour)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const opened = await openProvider(provider, settingsFor(vendor), { http, now: () => NOW })
  try {
    const message = exampleMessage({ channel: provider.channel, ...messageFor(vendor) })
    const outcome = await opened
      .send(message, new AbortController().signal)
      .catch((error: unknown) => error as DeliveryError)
    const bodies = vendor.received.map(({ raw }) => {
      const text = raw.slice(raw.indexOf('\r\n\r\n') + 4)
      return (text === '' ? {} : JSON.parse(text)) as JsonObject
    })
    return { outcome, received: vendor.received, bodies }
  } finally {
    await opened.close()
    await http.close()
    await vendor.close()
  }
}
