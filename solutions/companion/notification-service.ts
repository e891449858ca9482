import { AppError, ERRORS } from '../../server/solution.ts'
import type { Core, ErrorCode, Event, Explanation, Id } from '../../server/solution.ts'
import type {
  Asked,
  ChannelAdapter,
  DeliveryProblem,
  DeliveryResult,
  NotificationChannel,
} from './channel.ts'
import { eventOf } from './payload.ts'

/** Sends what auras say over the core: decided, limited, retried and explained like everything else. */
export interface NotificationService {
  /** On all channels of the payload, as one notification. */
  deliver(asked: Asked): Promise<DeliveryResult[]>
  deliverInApp(asked: Asked): Promise<DeliveryResult>
  deliverWebPush(asked: Asked): Promise<DeliveryResult>
  deliverSMS(asked: Asked): Promise<DeliveryResult>
  deliverWhatsApp(asked: Asked): Promise<DeliveryResult>
  deliverEmail(asked: Asked): Promise<DeliveryResult>
}

type Sending = Pick<Core, 'accept' | 'explain' | 'now'>
type Adapters = Readonly<Record<NotificationChannel, ChannelAdapter>>

export function notificationService(core: Sending, adapters: Adapters): NotificationService {
  return {
    async deliver(asked) {
      const channels = asked.payload.channels ?? ['in_app']
      const off = channels.map(channel => adapters[channel]).filter(({ enabled }) => !enabled)
      if (off.length === channels.length) throw switchedOff(off)
      return send(core, asked)
    },
    deliverInApp: adapters.in_app.deliver,
    deliverWebPush: adapters.web_push.deliver,
    deliverSMS: adapters.sms.deliver,
    deliverWhatsApp: adapters.whatsapp.deliver,
    deliverEmail: adapters.email.deliver,
  }
}

/** Channels with their switches; they hold for what auras say and for nothing else. */
export function channelAdapters(
  core: Sending,
  switches: Readonly<Record<NotificationChannel, boolean>>,
): Adapters {
  const adapter = (channel: NotificationChannel): ChannelAdapter => {
    const own: ChannelAdapter = {
      channel,
      setting: SETTING_OF[channel],
      enabled: switches[channel],
      async deliver(asked) {
        if (!own.enabled) throw switchedOff([own])
        const [result] = await send(core, { ...asked, payload: { ...asked.payload, channels: [channel] } })
        return result!
      },
    }
    return own
  }
  return {
    in_app: adapter('in_app'),
    web_push: adapter('web_push'),
    sms: adapter('sms'),
    whatsapp: adapter('whatsapp'),
    email: adapter('email'),
  }
}

async function send(
  { accept, explain, now }: Sending,
  { tenantId, payload, id }: Asked,
): Promise<DeliveryResult[]> {
  const { body } = await accept({
    tenantId,
    events: [eventOf(tenantId, payload, id, now())],
    answer: ([accepted]) => ({ status: 202, body: accepted }),
  })
  const { eventId, status, error } = body as Accepted
  if (status === 'refused') throw new AppError('invalid_request', error!.message, { field: error!.field })
  const explained = await explain(tenantId, payload.userId, eventId)
  return [...new Set<NotificationChannel>(payload.channels ?? ['in_app'])].map(channel =>
    resultOf(channel, eventId, explained),
  )
}

const switchedOff = (off: readonly ChannelAdapter[]): AppError =>
  new AppError(
    'channel_unavailable',
    `Switched off: ${[...new Set(off.map(({ setting }) => setting))].join(', ')}.`,
    { field: '/channels' },
  )

export const SETTING_OF: Record<NotificationChannel, string> = {
  in_app: 'ENABLE_IN_APP_NOTIFICATIONS',
  web_push: 'ENABLE_WEB_PUSH',
  sms: 'ENABLE_SMS',
  whatsapp: 'ENABLE_WHATSAPP',
  email: 'ENABLE_EMAIL',
}

/** Whether it is an aura that speaks: a rule of it, or somebody who tries its voice out. */
export const isCompanions = ({ type, direct }: Pick<Event, 'type' | 'direct'>): boolean =>
  type.startsWith('companion.') || typeof direct?.metadata?.auraId === 'string'

/** Of the acceptor's answer, what is read of it. */
interface Accepted {
  eventId: Id
  status: string
  error?: { field: string; message: string }
}

/** What was decided about a channel, and how far it has come. */
export function resultOf(
  channel: NotificationChannel,
  eventId: Id,
  { rules, why, text }: Explanation,
): DeliveryResult {
  const to = rules.flatMap(({ recipients }) => recipients)[0]
  const base = { channel, eventId, notificationId: to?.notificationId ?? null }
  const decided = to?.decisions.find(one => one.channel === channel)
  if (decided === undefined) {
    // Not planned yet, or the event was never to tell anybody.
    return why === 'not_planned'
      ? { ...base, status: 'queued' }
      : { ...base, status: 'failed', error: problem('delivery_failed', why ?? 'unknown', text) }
  }
  const delivery = to!.deliveries.find(one => one.channel === channel)
  if (delivery === undefined) {
    const reason = decided.reason ?? 'unknown'
    const message = [decided.text, decided.detail].filter(Boolean).join(': ')
    return { ...base, status: 'suppressed', error: problem(codeOf(reason), reason, message) }
  }
  const { status, waitsFor, attempts, ended } = delivery
  switch (status) {
    case 'delivered':
    case 'sent':
      return { ...base, status }
    case 'in_flight':
    case 'held':
    case 'retrying': {
      const until = waitsFor?.until?.toISOString()
      return {
        ...base,
        status: 'queued',
        ...(until !== undefined && { until }),
        ...(waitsFor?.reason === 'quiet_hours' && {
          error: problem('quiet_hours_active', 'quiet_hours', waitsFor.text),
        }),
      }
    }
    default: {
      const last = attempts.at(-1)
      const reason = ended?.reason ?? last?.code ?? status
      const code = last?.provider ? 'external_service_error' : 'delivery_failed'
      return { ...base, status: 'failed', error: problem(code, reason, ended?.text ?? last?.error) }
    }
  }
}

const CODES: Partial<Record<string, NumberedCode>> = {
  channel_unavailable: 'channel_unavailable',
  channel_not_allowed: 'channel_not_allowed',
  missing_address: 'missing_preferences',
  unverified_address: 'missing_preferences',
}
const codeOf = (reason: string): NumberedCode => CODES[reason] ?? 'delivery_failed'

/** The errors with a documented number. */
type NumberedCode = {
  [C in ErrorCode]: (typeof ERRORS)[C] extends { numeric: number } ? C : never
}[ErrorCode]

const problem = (code: NumberedCode, reason: string, message?: string | null): DeliveryProblem => ({
  code: ERRORS[code].numeric,
  name: code.toUpperCase(),
  reason,
  message: message ?? ERRORS[code].title,
})
