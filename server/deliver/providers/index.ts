// Every provider there is, one line each; nothing else lists them (server/deliver/catalog.ts reads this file).
export { slackWebhook } from './slack-webhook/slack-webhook.ts'
export { smtp } from './smtp/smtp.ts'
export { twilioVoice } from './twilio-voice/twilio-voice.ts'
export { twilioWhatsApp } from './twilio-whatsapp/twilio-whatsapp.ts'
export { twilio } from './twilio/twilio.ts'
export { webhook } from './webhook/webhook.ts'
export { whatsAppCloud } from './whatsapp-cloud/whatsapp-cloud.ts'
