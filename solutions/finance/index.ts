import { join } from 'node:path'
import { readWebUrl, setting, solution } from '../../server/solution.ts'
import { ALERT_EVENT, alertData } from './alert.ts'

/** Alerts about money: what they say, and where their button leads. Rules that send them are in `rules/`. */
export const finance = solution({
  id: 'finance',
  title: 'Finance',
  settings: {
    frontendUrl: setting(
      'FRONTEND_URL',
      'https://app.pfm.com',
      'https://app.pfm.com',
      "Where readers have their accounts, goals, budgets and bills: the beginning of every alert's button.",
      readWebUrl,
    ),
  },
  templates: join(import.meta.dirname, 'templates'),
  beside: ({ frontendUrl }) => ({
    [ALERT_EVENT]: ({ data, time }) => alertData(data, time, frontendUrl),
  }),
})
