import type { Id, Message } from '../../types.ts'
import { type Cost, permanent, type Receipt } from '../provider.ts'

/** What every provider that speaks to phone numbers shares. */

/** ITU-T E.164: up to 15 digits, none of which leads with 0; fewer than 7 are local or short numbers. */
const E164 = /^\+[1-9]\d{6,14}$/

/** @throws DeliveryError `invalid_address` */
export function phoneNumber(to: string): string {
  if (E164.test(to)) return to
  throw permanent('invalid_address', 'The number is not in E.164 form, such as +15551234567')
}

/** A vendor's words without the number and the text, which attempts and logs would keep longer than they may. */
export function withoutPerson(words: string, message: Pick<Message, 'to' | 'content'>): string {
  const digits = message.to.replaceAll(/\D/g, '')
  const { body, subject } = message.content
  let clean = words
  for (const each of [message.to, ...(digits.length >= 7 ? [digits] : [])]) {
    if (each !== '') clean = clean.replaceAll(each, '<address>')
  }
  for (const text of [body, subject]) {
    if (text !== undefined && text !== '') clean = clean.replaceAll(text, '<content>')
  }
  return clean
}

export function costOf(
  units: number,
  { costPerMessage, currency }: { costPerMessage?: number; currency: string },
): Cost | undefined {
  if (costPerMessage === undefined) return undefined
  // To a millionth: 3 × 0.0079 is 0.0237, not 0.023700000000000002.
  return { amount: Math.round(costPerMessage * units * 1e6) / 1e6, currency }
}

/** The notification in what a vendor carries for us, when it was ours: `<notification>.<channel>`. */
export function notificationOf(reference: string | null | undefined): Id | undefined {
  return /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.|$)/.exec(reference ?? '')?.[1]
}

// What carriers and vendors take for "no more", compared as a whole message and without its punctuation
// (https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out, CTIA Messaging Principles §5.1.3).
const STOP = new Set(['stop', 'stopall', 'unsubscribe', 'cancel', 'end', 'quit', 'revoke', 'optout', 'arret'])

// And for "again". Not "yes", which Twilio takes as well: it may answer a question of ours.
const START = new Set(['start', 'unstop', 'subscribe', 'optin'])

const wordOf = (text: string): string =>
  text
    .normalize('NFKD')
    .toLowerCase()
    .replaceAll(/[^a-z]/g, '')

/** What somebody wrote back: their wish to hear no more, to hear again, or a reply. */
export function inbound(said: {
  from: string
  text: string
  at: Date
  /** The vendor's id of what came in. */
  id?: string
  /** The vendor's id of our message that it answers. */
  about?: string
  /** What the vendor itself took it for. */
  optOut?: 'stop' | 'start'
}): Receipt {
  const word = wordOf(said.text)
  const wish = said.optOut ?? (STOP.has(word) ? 'stop' : START.has(word) ? 'start' : undefined)
  const receipt: Receipt = {
    kind: wish === 'stop' ? 'unsubscribed' : wish === 'start' ? 'resubscribed' : 'replied',
    at: said.at,
    address: said.from,
    detail: said.text.slice(0, 2_000),
  }
  if (said.about !== undefined) receipt.providerMessageId = said.about
  if (said.id !== undefined) receipt.receiptId = said.id
  return receipt
}
