import type { AddressInfo } from 'node:net'
import { callbackify } from 'node:util'
import { SMTPServer } from 'smtp-server'
import type { SMTPServerAddress, SMTPServerDataStream, SMTPServerSession } from 'smtp-server'
import type { Receipt } from '../deliver/provider.ts'
import type { BounceAddresses } from './bounce-address.ts'
import { readReport } from './bounce-report.ts'

export interface BounceDoor {
  port: number
  close(): Promise<void>
}

/** Of a report the status comes first and the returned message last; no more than this is kept of it. */
const KEPT_BYTES = 512 * 1024
/** A larger message is refused: some servers return all of what they could not deliver. */
const MAX_BYTES = 50_000_000
const MAX_CLIENTS = 50
const IDLE_MS = 60_000

/**
 * A small SMTP server that takes bounces and complaints, and nothing else: it answers for the bounce address alone,
 * relays nothing, and believes a report only about the message that its address, or the returned message, proves.
 */
export async function bounceDoor(parts: {
  addresses: BounceAddresses
  host: string
  /** 0: any free one. */
  port: number
  take(receipts: Receipt[]): Promise<unknown>
  now(): Date
  onError(error: unknown): void
}): Promise<BounceDoor> {
  const { addresses, take, now, onError } = parts

  const knows = async ({ address }: SMTPServerAddress): Promise<void> => {
    if (!addresses.isBare(address) && addresses.read(address) === undefined)
      throw reply(550, '5.1.1 There is no such address')
  }

  const takeMessage = async (stream: SMTPServerDataStream, session: SMTPServerSession): Promise<void> => {
    const raw = await beginningOf(stream)
    if (stream.sizeExceeded) throw reply(552, `5.3.4 Larger than ${MAX_BYTES} bytes`)
    const named = session.envelope.rcptTo.map(({ address }) => addresses.read(address))
    // Complaints come to the bare address; the message they return came from one of ours.
    const id = named.find(one => one !== undefined) ?? addresses.find(raw.toString('latin1'))
    if (id === undefined) return
    try {
      const receipts = await readReport(raw, id, now())
      if (receipts.length > 0) await take(receipts)
    } catch (error) {
      onError(error)
      throw reply(451, '4.3.0 Cannot be taken now')
    }
  }

  const server = new SMTPServer({
    banner: 'Carillon bounces',
    disabledCommands: ['AUTH', 'STARTTLS'],
    authOptional: true,
    disableReverseLookup: true,
    size: MAX_BYTES,
    maxClients: MAX_CLIENTS,
    socketTimeout: IDLE_MS,
    closeTimeout: 1_000,
    logger: false,
    onRcptTo: (address, _session, done) => callbackify(knows)(address, done),
    onData: callbackify(takeMessage),
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(parts.port, parts.host, () => {
      server.off('error', reject)
      resolve()
    })
  })
  // From now on: clients that break off, which is their business.
  server.on('error', () => {})
  return {
    port: (server.server.address() as AddressInfo).port,
    close: () => new Promise(resolve => server.close(() => resolve())),
  }
}

async function beginningOf(stream: SMTPServerDataStream): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (bytes < KEPT_BYTES) chunks.push(chunk)
    bytes += chunk.length
  }
  return Buffer.concat(chunks).subarray(0, KEPT_BYTES)
}

const reply = (responseCode: number, message: string): Error =>
  Object.assign(new Error(message), { responseCode })
