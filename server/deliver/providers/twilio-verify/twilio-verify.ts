import { verifyProvider } from '../twilio-verify-api.ts'

/** By SMS. */
export const twilioVerify = verifyProvider({
  id: 'twilio-verify',
  channel: 'sms',
  title: 'Twilio Verify, SMS',
  by: 'sms',
})
