import { sql } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'
import type { Id, Message } from '../types.ts'
import type { OpenedProvider } from './open-provider.ts'
import { DeliveryError, type Sent, temporary } from './provider.ts'

const findEarlier = sql(
  'find_channel_message',
  `select message_id, notification_id from channel_messages
   where tenant_id = $1 and key = $2 and recipient_id = $3 and provider = $4`,
)
// A later word that got here first stays.
const remember = sql(
  'remember_channel_message',
  `insert into channel_messages as m (tenant_id, key, recipient_id, provider, message_id, notification_id, at)
   values ($1, $2, $3, $4, $5, $6, $7)
   on conflict (tenant_id, key, recipient_id, provider) do update
   set message_id = excluded.message_id, notification_id = excluded.notification_id, at = excluded.at
   where excluded.notification_id >= m.notification_id`,
)

/**
 * A provider whose vendor can change what it was given: the next word about the same thing (a rule's `policy.state`)
 * takes the place of the message before it, as it does in the inbox. Where the vendor has threads, a message of a thread
 * goes under the first one. Two statements for such a message, none for others.
 *
 * What is remembered is written after the vendor took the message and before that is settled: where a process dies in
 * between, the same message is changed once more, and the first of a thread is known to be there.
 */
export function stateful(
  provider: OpenedProvider,
  { db, now, onError }: { db: Db; now: () => Date; onError(error: unknown): void },
): OpenedProvider {
  const { update, retract, reply } = provider
  if (update === undefined && reply === undefined) return provider

  const lookUp = (name: unknown[]) =>
    db.one<{ message_id: string; notification_id: Id }>(findEarlier, name).catch((error: unknown) => {
      throw temporary('unavailable', 'What was said before cannot be looked up', { cause: error })
    })

  /** It has gone: whatever happens here, it is not to go again. */
  async function keep(name: unknown[], sent: Sent, { notificationId }: Message): Promise<Sent> {
    const { providerMessageId } = sent
    if (providerMessageId !== undefined) {
      await db.run(remember, [...name, providerMessageId, notificationId, now()]).catch(onError)
    }
    return sent
  }

  async function tell(message: Message, earlierId: string, signal: AbortSignal): Promise<Sent> {
    if (message.about!.earlier === 'retract') {
      // It comes as new. That the one before could not be taken away is no reason to leave it out.
      await retract?.(earlierId, signal).catch(() => {})
      return provider.send(message, signal)
    }
    try {
      return await update!(message, earlierId, signal)
    } catch (error) {
      // Somebody removed it, or it may not be changed any more.
      if (error instanceof DeliveryError && error.code === 'gone') return provider.send(message, signal)
      throw error
    }
  }

  async function inPlace(message: Message, key: string, signal: AbortSignal): Promise<Sent> {
    const { tenantId, recipient, notificationId } = message
    const name = [tenantId, key, recipient.id, provider.id]
    const earlier = await lookUp(name)
    if (earlier && earlier.notification_id > notificationId) {
      return { outcome: 'delivered', code: 'superseded', providerMessageId: earlier.message_id }
    }
    const sent = earlier
      ? await tell(message, earlier.message_id, signal)
      : await provider.send(message, signal)
    return keep(name, sent, message)
  }

  /** Only the first message of a thread is remembered: at the vendor, too, all others hang on it. */
  async function inThread(message: Message, thread: string, signal: AbortSignal): Promise<Sent> {
    const name = [message.tenantId, `thread ${thread}`, message.recipient.id, provider.id]
    const first = await lookUp(name)
    if (first) {
      // It is the first one, and died before that was settled: put under itself it would be there twice.
      if (first.notification_id === message.notificationId) {
        return { outcome: 'sent', code: 'repeated', providerMessageId: first.message_id }
      }
      try {
        return await reply!(message, first.message_id, signal)
      } catch (error) {
        // Somebody removed it, or its reader is written to elsewhere by now: another thread begins.
        if (!(error instanceof DeliveryError && error.code === 'gone')) throw error
      }
    }
    return keep(name, await provider.send(message, signal), message)
  }

  /** What holds for a state takes the place of what held before, wherever that stands. */
  function placeOf({ about, thread }: Message): { state: string } | { thread: string } | undefined {
    if (about !== undefined && update !== undefined) return { state: about.key }
    return thread !== undefined && reply !== undefined ? { thread } : undefined
  }

  return {
    ...provider,
    // One by one: each may have another message to take the place of, or to go under.
    group: message => (placeOf(message) === undefined ? provider.group(message) : undefined),
    send(message, signal) {
      const place = placeOf(message)
      if (place === undefined) return provider.send(message, signal)
      return 'state' in place
        ? inPlace(message, place.state, signal)
        : inThread(message, place.thread, signal)
    },
  }
}

const findMessages = sql(
  'messages_of_notification',
  `select distinct on (a.channel) a.channel, a.provider, a.message_id
   from attempts a
   where a.tenant_id = $1 and a.notification_id = $2 and a.message_id is not null and a.outcome in (0, 1)
   order by a.channel, a.attempt desc`,
)

/** Takes what a notification said away from the vendors that can do that; answers the channels' codes. */
export async function takeBack(
  db: Db,
  providerNamed: (name: string) => OpenedProvider | undefined,
  tenantId: number,
  notificationId: Id,
  onError: (error: unknown) => void,
): Promise<number[]> {
  const rows = await db.rows<{ channel: number; provider: string; message_id: string }>(findMessages, [
    tenantId,
    notificationId,
  ])
  const taken: number[] = []
  for (const { channel, provider, message_id } of rows) {
    const { retract } = providerNamed(provider) ?? {}
    if (retract === undefined) continue
    try {
      await retract(message_id, AbortSignal.timeout(15_000))
      taken.push(channel)
    } catch (error) {
      // Already gone is as good as taken back.
      if (error instanceof DeliveryError && error.code === 'gone') taken.push(channel)
      else onError(error)
    }
  }
  return taken
}
