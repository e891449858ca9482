import type { Json, JsonObject } from '../../server/solution.ts'

/** The kinds of alerts that have texts of their own; all others, and `system`, are said by the general one. */
export const ALERT_TYPES = [
  'account_threshold',
  'goal',
  'merchant_name',
  'spending_target',
  'transaction_limit',
  'upcoming_bill',
] as const
export type AlertType = (typeof ALERT_TYPES)[number]

/** What is said where a kind is unknown. */
export const FALLBACK = 'alert_triggered'

/** The event of an alert that fired. */
export const ALERT_EVENT = 'finance.alert.triggered'

/** A kind from the outside: only what is on the list ever chooses a text. */
export const alertTypeOf = (given: unknown): AlertType | typeof FALLBACK =>
  ALERT_TYPES.find(type => type === given) ?? FALLBACK

/** The name of the template of a kind: `finance-upcoming-bill`. */
export const templateOf = (type: AlertType | typeof FALLBACK): string =>
  `finance-${type.replaceAll('_', '-')}`

/** An alert that fired, as its event says it; a title and a message are made where there are none. */
export interface Alert {
  alert_type?: Json
  title?: Json
  message?: Json
  metadata?: Json
}

/** What templates are written with. */
export interface AlertData {
  [name: string]: Json
  title: string
  message: string
  metadata: JsonObject
  /** ISO 8601. */
  timestamp: string
  /** Absolute. */
  actionUrl: string
}

/**
 * All that a text about an alert needs. Pure.
 *
 * @param at when it fired, ISO 8601
 * @param frontendUrl where the reader's own pages are, absolute
 */
export function alertData(alert: Readonly<Alert>, at: string, frontendUrl: string): AlertData {
  const metadata = isObject(alert.metadata) ? alert.metadata : {}
  const type = alertTypeOf(alert.alert_type ?? metadata['alert_type'])
  return {
    title: text(alert.title) || titleOf(type),
    message: text(alert.message) || messageOf(type, metadata),
    metadata,
    timestamp: at,
    actionUrl: actionUrl(type, metadata, frontendUrl),
  }
}

/** The member of `metadata` that is the thing an alert is about, and where that is shown. */
const PAGES: Record<AlertType, [id: string, path: string]> = {
  account_threshold: ['account_id', 'accounts'],
  goal: ['goal_id', 'goals'],
  merchant_name: ['transaction_id', 'transactions'],
  spending_target: ['budget_id', 'budgets'],
  transaction_limit: ['transaction_id', 'transactions'],
  upcoming_bill: ['bill_id', 'cashflow/bills'],
}

/** The page of what an alert is about; of all notifications where that is not known. */
export function actionUrl(
  type: AlertType | typeof FALLBACK,
  metadata: Readonly<JsonObject>,
  frontendUrl: string,
): string {
  const root = frontendUrl.replace(/\/+$/, '')
  if (type !== FALLBACK) {
    const [member, path] = PAGES[type]
    const id = text(metadata[member])
    // A path of dots would lead elsewhere.
    if (id !== '' && !/^\.+$/.test(id)) return `${root}/${path}/${encodeURIComponent(id.toWellFormed())}`
  }
  return `${root}/notifications`
}

const TITLES: Record<AlertType | typeof FALLBACK, string> = {
  account_threshold: 'Account balance alert',
  goal: 'Goal progress',
  merchant_name: 'Merchant alert',
  spending_target: 'Budget alert',
  transaction_limit: 'Large transaction',
  upcoming_bill: 'Upcoming bill',
  alert_triggered: 'Alert',
}

const titleOf = (type: AlertType | typeof FALLBACK): string => TITLES[type]

function messageOf(type: AlertType | typeof FALLBACK, metadata: Readonly<JsonObject>): string {
  const say = (name: string) => text(metadata[name])
  const money = (name: string) => amount(say(name), say('currency'))
  switch (type) {
    case 'account_threshold':
      return `Your ${say('account_name')} balance is ${say('direction')} ${money('threshold')}. Current balance: ${money('current_balance')}`
    case 'goal':
      return `Your goal '${say('goal_name')}' has reached ${say('progress')}% completion!`
    case 'merchant_name':
      return `Transaction detected: ${say('merchant_name')} for ${money('amount')}`
    case 'spending_target':
      return `Your '${say('budget_name')}' budget is at ${say('percent_used')}% (${money('spent')} of ${money('budget_amount')})`
    case 'transaction_limit':
      return `Large transaction detected: ${say('description')} for ${money('amount')} exceeds your limit of ${money('limit')}`
    case 'upcoming_bill':
      return `Bill '${say('bill_name')}' for ${money('amount')} is due ${dueIn(metadata['days_until_due'])}`
    default:
      return 'One of your alerts was triggered'
  }
}

/** Dollars unless another currency is named; who reads it is not known here, so that is named by its code. */
const amount = (value: string, currency: string): string =>
  currency === '' || currency === 'USD' ? `$${value}` : `${value} ${currency}`

function dueIn(days: Json | undefined): string {
  if (text(days) === '') return 'soon'
  const n = Number(days)
  return n <= 0 ? 'today' : n <= 1 ? 'tomorrow' : `in ${text(days)} days`
}

const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Texts and numbers as they are, everything else as nothing. */
const text = (value: Json | undefined): string =>
  typeof value === 'string' ? value : typeof value === 'number' ? String(value) : ''
