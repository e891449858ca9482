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
 * takes the place of the message before it, as it does in the inbox. Two statements for such a message, none for others.
 *
 * What is remembered is written after the vendor took the message and before that is settled: a process that dies in
 * between changes the same message once more.
 */
export function stateful(
  provider: OpenedProvider,
  { db, now, onError }: { db: Db; now: () => Date; onError(error: unknown): void },
): OpenedProvider {
  const { update, retract } = provider
  if (update === undefined) return provider

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

  return {
    ...provider,
    // One by one: each may have another message to take the place of.
    group: message => (message.about ? undefined : provider.group(message)),
    async send(message, signal) {
      const { about, tenantId, recipient, notificationId } = message
      if (about === undefined) return provider.send(message, signal)
      const name = [tenantId, about.key, recipient.id, provider.id]
      const earlier = await db
        .one<{ message_id: string; notification_id: Id }>(findEarlier, name)
        .catch((error: unknown) => {
          throw temporary('unavailable', 'What was said before cannot be looked up', { cause: error })
        })
      if (earlier && earlier.notification_id > notificationId) {
        return { outcome: 'delivered', code: 'superseded', providerMessageId: earlier.message_id }
      }
      const sent = earlier
        ? await tell(message, earlier.message_id, signal)
        : await provider.send(message, signal)
      if (sent.providerMessageId !== undefined) {
        // It has gone: whatever happens here, it is not to go again.
        await db.run(remember, [...name, sent.providerMessageId, notificationId, now()]).catch(onError)
      }
      return sent
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
