import { verifyProvider } from '../twilio-verify-api.ts'

/** By WhatsApp, with the template that Twilio keeps for it. */
export const twilioVerifyWhatsApp = verifyProvider({
  id: 'twilio-verify-whatsapp',
  channel: 'whatsapp',
  title: 'Twilio Verify, WhatsApp',
  by: 'whatsapp',
})
