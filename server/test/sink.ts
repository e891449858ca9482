import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A far end for webhooks. */
export interface Sink {
  url: string
  /** How often each idempotency key came, in the order in which they came first. */
  seen: Map<string, number>
  close(): void
}

/** @param takesMs how long it takes for each answer */
export async function openSink(takesMs: () => number = () => 0): Promise<Sink> {
  const seen = new Map<string, number>()
  const server = createServer((request, response) => {
    request.resume().on('end', () => {
      const id = String(request.headers['webhook-id'])
      seen.set(id, (seen.get(id) ?? 0) + 1)
      setTimeout(() => response.end('ok'), takesMs())
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    close() {
      server.close()
      server.closeAllConnections()
    },
  }
}
