import { createServer } from 'node:net'
import { latencyOf, MARK, sharedClock, STAMP_DIGITS } from './load.ts'

/**
 * An endpoint that takes every POST, as a process of its own and as cheap as it can be: it reads heads and lengths,
 * never JSON. `GET /` answers how many requests came since the last GET, and how long the events in them took from
 * when their own request was due (load.ts) until they were here, for those that bear that instant. Prints its port.
 */
let requests = 0
let latencies: number[] = []
const OK = Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')

function arrived(body: Buffer): void {
  requests++
  for (let at = body.indexOf(MARK); at >= 0; at = body.indexOf(MARK, at + 1)) {
    const from = at + MARK.length
    const due = Number(body.toString('latin1', from, from + STAMP_DIGITS))
    if (due > 0) latencies.push(sharedClock() - due)
  }
}

const server = createServer(socket => {
  let pending = Buffer.alloc(0)
  socket.on('error', () => {})
  socket.on('data', chunk => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
    for (;;) {
      const end = pending.indexOf('\r\n\r\n')
      if (end < 0) return
      const head = pending.toString('latin1', 0, end)
      if (head.startsWith('GET')) {
        const body = JSON.stringify({ requests, latency: latencyOf(latencies) })
        requests = 0
        latencies = []
        socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
        pending = pending.subarray(end + 4)
        continue
      }
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
      const next = end + 4 + length
      if (pending.length < next) return
      arrived(pending.subarray(end + 4, next))
      pending = pending.subarray(next)
      socket.write(OK)
    }
  })
}).listen(0, '127.0.0.1', () => console.log(`port ${(server.address() as { port: number }).port}`))
