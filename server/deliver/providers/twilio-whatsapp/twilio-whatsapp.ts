import { type Static, Type } from 'typebox'
import { permanent, type Provider, type Sent } from '../../provider.ts'
import { costOf, phoneNumber } from '../phone.ts'
import { costSettings } from '../sms-text.ts'
import { accountSettings, checkAccount, create, type Fields, messageCallback } from '../twilio-api.ts'
import { whatsappContent } from '../whatsapp-content.ts'

const settings = Type.Object(
  {
    ...accountSettings,
    from: Type.Optional(
      Type.String({
        title: 'From',
        description: 'The WhatsApp sender of the account, such as +15551234567.',
        pattern: '^\\+[1-9]\\d{6,14}$',
      }),
    ),
    messagingServiceSid: Type.Optional(
      Type.String({
        title: 'Messaging service',
        description: 'Twilio picks the sender from its pool.',
        pattern: '^MG[0-9a-fA-F]{32}$',
      }),
    ),
    ...costSettings('Where the vendor names no price.'),
  },
  { additionalProperties: false, anyOf: [{ required: ['from'] }, { required: ['messagingServiceSid'] }] },
)

export type TwilioWhatsAppSettings = Static<typeof settings>

/**
 * WhatsApp through Twilio: text, media, and templates (`content.data.template.contentSid`, `variables`).
 * https://www.twilio.com/docs/whatsapp/api
 */
export const twilioWhatsApp: Provider<TwilioWhatsAppSettings> = {
  id: 'twilio-whatsapp',
  channel: 'whatsapp',
  title: 'Twilio WhatsApp',
  settings,
  // https://www.twilio.com/docs/messaging/api/message-resource, the same for every channel.
  limits: { bodyChars: 1_600 },

  async send(message, ctx) {
    const { settings: own } = ctx
    const { text, template, media } = whatsappContent(message)
    const fields: Fields = [['To', `whatsapp:${phoneNumber(message.to)}`]]
    if (own.messagingServiceSid !== undefined) fields.push(['MessagingServiceSid', own.messagingServiceSid])
    if (own.from !== undefined) fields.push(['From', `whatsapp:${own.from}`])
    if (template !== undefined) {
      if (template.contentSid === undefined) {
        throw permanent('content_refused', 'Twilio knows templates by data.template.contentSid')
      }
      fields.push(['ContentSid', template.contentSid])
      if (Object.keys(template.variables).length > 0) {
        fields.push(['ContentVariables', JSON.stringify(template.variables)])
      }
    } else {
      if (text !== '') fields.push(['Body', text])
      if (media !== undefined) fields.push(['MediaUrl', media.link])
    }
    const created = await create('Messages', fields, message, ctx)
    const sent: Sent = {
      outcome: 'sent',
      providerMessageId: created.sid,
      code: created.status,
      response: created.status,
    }
    const cost = created.cost ?? costOf(1, own)
    return cost === undefined ? sent : { ...sent, cost }
  },

  callback: messageCallback,
  check: checkAccount,
}
