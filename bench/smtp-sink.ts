import { createServer } from 'node:net'

/**
 * A mail server that takes everything and keeps nothing, as a process of its own and as cheap as it can be: it looks for
 * line ends and for the dot that ends a message, never into one. Prints its port.
 */
const END = Buffer.from('\r\n.\r\n')

const server = createServer(socket => {
  let pending = Buffer.alloc(0)
  let inMessage = false
  socket.setNoDelay(true)
  socket.on('error', () => {})
  socket.write('220 sink\r\n')
  socket.on('data', chunk => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
    for (;;) {
      const end = inMessage ? pending.indexOf(END) : pending.indexOf('\r\n')
      if (end < 0) return
      if (inMessage) {
        inMessage = false
        pending = pending.subarray(end + END.length)
        socket.write('250 2.0.0 taken\r\n')
        continue
      }
      const verb = pending.toString('latin1', 0, Math.min(end, 4)).toUpperCase()
      pending = pending.subarray(end + 2)
      inMessage = verb === 'DATA'
      if (verb === 'EHLO') socket.write('250-sink\r\n250-8BITMIME\r\n250 DSN\r\n')
      else if (inMessage) socket.write('354 go on\r\n')
      else if (verb === 'QUIT') socket.end('221 bye\r\n')
      else socket.write('250 ok\r\n')
    }
  })
}).listen(0, '127.0.0.1', () => console.log(`port ${(server.address() as { port: number }).port}`))
