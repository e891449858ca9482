import { AppError, solution, toggle } from '../../server/solution.ts'
import type { NotificationChannel } from './channel.ts'
import { SETTING_OF, channelAdapters, isCompanions, notificationService } from './notification-service.ts'
import { CATEGORY, RULE_TRIGGERED, directOf, priorityOf, readPayload } from './payload.ts'
import { aura } from './realtime.ts'
import { companionRoutes } from './routes.ts'

const channel = (name: NotificationChannel, fallback: boolean, about: string) =>
  toggle(SETTING_OF[name], fallback, `What auras say ${about}. Nothing else is switched by it.`)

/** Auras that speak first: rules over sensors, and the conversation that their messages are. */
export const companion = solution({
  id: 'companion',
  title: 'Companion',
  settings: {
    in_app: channel('in_app', true, 'goes into the conversation'),
    web_push: channel('web_push', false, 'goes to browsers'),
    sms: channel('sms', false, 'goes out as SMS'),
    whatsapp: channel('whatsapp', false, 'goes out by WhatsApp'),
    email: channel('email', false, 'goes out by e-mail'),
  },
  open(core, switches) {
    const adapters = channelAdapters(core, switches)
    core.closeChannels((event, name) => {
      const adapter = isCompanions(event) ? adapters[name as NotificationChannel] : undefined
      return adapter === undefined || adapter.enabled ? undefined : `${adapter.setting} is off`
    })
    core.takeEvents(RULE_TRIGGERED, event => {
      try {
        const payload = readPayload(event.data)
        event.category ??= CATEGORY
        event.priority ??= priorityOf(payload.priority)
        event.direct = directOf(payload)
        return null
      } catch (error) {
        if (!(error instanceof AppError)) throw error
        return {
          reason: 'schema_violation',
          field: error.errors?.[0]?.field ?? '/',
          message: error.message,
        }
      }
    })
    core.speak('aura', aura)
    companionRoutes(core, notificationService(core, adapters))
  },
})
