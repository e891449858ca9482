import { createServer } from 'node:net'

/**
 * An endpoint that takes every POST, as a process of its own and as cheap as it can be: it reads heads and lengths,
 * never JSON. Counts requests; `GET /` answers the count. Prints its port.
 */
let requests = 0
const OK = Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')

const server = createServer(socket => {
  let pending = Buffer.alloc(0)
  socket.on('error', () => {})
  socket.on('data', chunk => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
    for (;;) {
      const end = pending.indexOf('\r\n\r\n')
      if (end < 0) return
      const head = pending.subarray(0, end).toString('latin1')
      if (head.startsWith('GET')) {
        const body = String(requests)
        socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
        pending = pending.subarray(end + 4)
        continue
      }
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (pending.length < end + 4 + length) return
      pending = pending.subarray(end + 4 + length)
      requests++
      socket.write(OK)
    }
  })
}).listen(0, '127.0.0.1', () => console.log(`port ${(server.address() as { port: number }).port}`))
