import { type Static, Type } from 'typebox'
import type { Provider, Sent } from '../../provider.ts'
import { costOf, phoneNumber } from '../phone.ts'
import { smsSettings, smsText } from '../sms-text.ts'
import {
  accountSettings,
  checkAccount,
  create,
  type Fields,
  messageCallback,
  messageStatus,
} from '../twilio-api.ts'

const settings = Type.Object(
  {
    ...accountSettings,
    from: Type.Optional(
      Type.String({
        title: 'From',
        description: 'A number of the account (+15551234567), a short code, or an alphanumeric sender.',
        pattern: '^(\\+[1-9]\\d{6,14}|\\d{3,8}|(?=.*[A-Za-z])[A-Za-z0-9+_& -]{1,11})$',
      }),
    ),
    messagingServiceSid: Type.Optional(
      Type.String({
        title: 'Messaging service',
        description: 'Twilio picks the sender from its pool.',
        pattern: '^MG[0-9a-fA-F]{32}$',
      }),
    ),
    // Ten segments of 153 characters are the most that fits into Body.
    ...smsSettings(10),
  },
  { additionalProperties: false, anyOf: [{ required: ['from'] }, { required: ['messagingServiceSid'] }] },
)

export type TwilioSettings = Static<typeof settings>

/** SMS through Twilio. https://www.twilio.com/docs/messaging/api/message-resource */
export const twilio: Provider<TwilioSettings> = {
  id: 'twilio',
  channel: 'sms',
  title: 'Twilio SMS',
  settings,
  // "Body … can be up to 1,600 characters": https://www.twilio.com/docs/messaging/api/message-resource
  limits: { bodyChars: 1_600, slowsLane: true },

  async send(message, ctx) {
    const { settings: own } = ctx
    const { text, size } = smsText(message.content.body, own)
    const fields: Fields = [
      ['To', phoneNumber(message.to)],
      ['Body', text],
    ]
    if (own.messagingServiceSid !== undefined) fields.push(['MessagingServiceSid', own.messagingServiceSid])
    if (own.from !== undefined) fields.push(['From', own.from])
    const created = await create('Messages', fields, message, ctx)
    const sent: Sent = {
      outcome: 'sent',
      providerMessageId: created.sid,
      code: created.status,
      response: created.status,
    }
    const cost = created.cost ?? costOf(created.segments || size.segments, own)
    return cost === undefined ? sent : { ...sent, cost }
  },

  callback: messageCallback,
  getDeliveryStatus: messageStatus,
  check: checkAccount,
}
