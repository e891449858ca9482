import { type Static, Type } from 'typebox'
import { DeliveryError, permanent, type Provider, type Sent } from '../../provider.ts'
import { costOf, phoneNumber } from '../phone.ts'
import { costSettings } from '../sms-text.ts'
import {
  accountSettings,
  checkAccount,
  create,
  type Created,
  type Fields,
  messageCallback,
  messageStatus,
} from '../twilio-api.ts'
import {
  sessionOpen,
  sessionSettings,
  variableOf,
  whatsappContent,
  type WhatsAppContent,
  type WhatsAppTemplate,
} from '../whatsapp-content.ts'

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
    fallbackTemplate: Type.Optional(
      Type.Object(
        {
          contentSid: Type.String({ title: 'Content SID', pattern: '^HX[0-9a-fA-F]{32}$' }),
          withText: Type.Boolean({
            title: 'With the text',
            description: 'The text becomes the variable 1 of the template.',
            default: true,
          }),
        },
        {
          title: 'Template outside the 24 hours',
          description:
            'Sent instead of free text unless the recipient is known to have written lately: let Twilio post incoming messages to /webhooks/<provider>.',
          additionalProperties: false,
        },
      ),
    ),
    ...costSettings('Where the vendor names no price.'),
  },
  { additionalProperties: false, anyOf: [{ required: ['from'] }, { required: ['messagingServiceSid'] }] },
)

export type TwilioWhatsAppSettings = Static<typeof settings>

/** Free text more than 24 hours after the recipient last wrote: https://www.twilio.com/docs/api/errors/63016 */
const WINDOW_CLOSED = '63016'

/**
 * WhatsApp through Twilio: text, media, and templates (`content.data.template.contentSid`, `variables`).
 * https://www.twilio.com/docs/whatsapp/api
 *
 * A closed 24-hour window is mostly told later, by callback, so with a fallback template free text goes out only while
 * the window is known to be open.
 */
export const twilioWhatsApp: Provider<TwilioWhatsAppSettings> = {
  id: 'twilio-whatsapp',
  channel: 'whatsapp',
  title: 'Twilio WhatsApp',
  settings,
  addressSettings: sessionSettings,
  // https://www.twilio.com/docs/messaging/api/message-resource, the same for every channel.
  limits: { bodyChars: 1_600, slowsLane: true },

  async send(message, ctx) {
    const { settings: own } = ctx
    const content = whatsappContent(message)
    const sender: Fields = [['To', `whatsapp:${phoneNumber(message.to)}`]]
    if (own.messagingServiceSid !== undefined) sender.push(['MessagingServiceSid', own.messagingServiceSid])
    if (own.from !== undefined) sender.push(['From', `whatsapp:${own.from}`])
    const post = (fields: Fields) => create('Messages', [...sender, ...fields], message, ctx)

    const fallback = content.template === undefined ? own.fallbackTemplate : undefined
    const instead = (): Fields =>
      templateFields({
        contentSid: fallback!.contentSid,
        variables: fallback!.withText ? { 1: variableOf(content.text) } : {},
      })
    let created: Created
    if (fallback !== undefined && !sessionOpen(message, ctx.now())) created = await post(instead())
    else {
      try {
        created = await post(fieldsOf(content))
      } catch (thrown) {
        const closed = thrown instanceof DeliveryError && thrown.vendorCode === WINDOW_CLOSED
        if (!closed || fallback === undefined) throw thrown
        // The refusal was an answer: nothing was sent, so this cannot become a second message.
        created = await post(instead())
      }
    }
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
  getDeliveryStatus: messageStatus,
  check: checkAccount,
}

function fieldsOf({ text, template, media }: WhatsAppContent): Fields {
  if (template !== undefined) return templateFields(template)
  const fields: Fields = []
  if (text !== '') fields.push(['Body', text])
  if (media !== undefined) fields.push(['MediaUrl', media.link])
  return fields
}

function templateFields({ contentSid, variables }: WhatsAppTemplate): Fields {
  if (contentSid === undefined) {
    throw permanent('content_refused', 'Twilio knows templates by data.template.contentSid')
  }
  const fields: Fields = [['ContentSid', contentSid]]
  if (Object.keys(variables).length > 0) fields.push(['ContentVariables', JSON.stringify(variables)])
  return fields
}
