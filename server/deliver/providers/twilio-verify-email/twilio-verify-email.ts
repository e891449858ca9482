import { verifyProvider } from '../twilio-verify-api.ts'

/** By mail, with the mailer of the service: https://www.twilio.com/docs/verify/email */
export const twilioVerifyEmail = verifyProvider({
  id: 'twilio-verify-email',
  channel: 'email',
  title: 'Twilio Verify, mail',
  by: 'email',
})
