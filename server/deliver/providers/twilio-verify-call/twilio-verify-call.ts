import { verifyProvider } from '../twilio-verify-api.ts'

/** By a call that speaks the code. */
export const twilioVerifyCall = verifyProvider({
  id: 'twilio-verify-call',
  channel: 'voice',
  title: 'Twilio Verify, calls',
  by: 'call',
})
