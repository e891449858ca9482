import { hash } from 'node:crypto'
import { MESSAGE_CLASSES, type MessageClass } from './preference-scopes.ts'
import type { PreferencesInput, PreferencesView } from './preferences.ts'

/**
 * The page on which people choose what they are told, reached by the signed link of any message. It is a plain form:
 * it needs no script, works with a keyboard and a screen reader (WCAG 2.2 AA), and speaks the reader's language.
 */

interface Words {
  title: string
  intro: string
  saved: string
  all: string
  channels: string
  channelNames: Record<string, string>
  classes: string
  classNames: Record<MessageClass, string>
  quiet: string
  quietOn: string
  from: string
  until: string
  summary: string
  summaryNames: Record<'INSTANT' | 'HOURLY' | 'DAILY' | 'WEEKLY', string>
  save: string
  required: string
}

const WORDS: Record<'en' | 'pt' | 'zh', Words> = {
  en: {
    title: 'What you are told, and how',
    intro: 'Choose what may reach you. Changes hold as soon as you save them.',
    saved: 'Your choices are saved.',
    all: 'Send me notifications',
    channels: 'Ways to reach you',
    channelNames: {
      inApp: 'Inbox',
      email: 'E-mail',
      sms: 'SMS',
      whatsapp: 'WhatsApp',
      voice: 'Telephone',
      push: 'Mobile push',
      webPush: 'Browser',
    },
    classes: 'Kinds of messages',
    classNames: {
      marketing: 'News and offers',
      transactional: 'About what I do here',
      alerts: 'Alerts',
      social: 'From other people',
    },
    quiet: 'Quiet hours',
    quietOn: 'Do not disturb me at these times',
    from: 'From',
    until: 'Until',
    summary: 'How often',
    summaryNames: {
      INSTANT: 'At once',
      HOURLY: 'A summary every hour',
      DAILY: 'A summary every day',
      WEEKLY: 'A summary every week',
    },
    save: 'Save',
    required: 'Some messages, such as those about security, are sent in any case.',
  },
  pt: {
    title: 'O que você recebe, e como',
    intro: 'Escolha o que pode chegar até você. As mudanças valem assim que forem salvas.',
    saved: 'Suas escolhas foram salvas.',
    all: 'Enviar-me notificações',
    channels: 'Meios de contato',
    channelNames: {
      inApp: 'Caixa de entrada',
      email: 'E-mail',
      sms: 'SMS',
      whatsapp: 'WhatsApp',
      voice: 'Telefone',
      push: 'Celular',
      webPush: 'Navegador',
    },
    classes: 'Tipos de mensagens',
    classNames: {
      marketing: 'Novidades e ofertas',
      transactional: 'Sobre o que faço aqui',
      alerts: 'Alertas',
      social: 'De outras pessoas',
    },
    quiet: 'Horário de silêncio',
    quietOn: 'Não me perturbe neste horário',
    from: 'Das',
    until: 'Às',
    summary: 'Frequência',
    summaryNames: {
      INSTANT: 'Imediatamente',
      HOURLY: 'Um resumo por hora',
      DAILY: 'Um resumo por dia',
      WEEKLY: 'Um resumo por semana',
    },
    save: 'Salvar',
    required: 'Algumas mensagens, como as de segurança, são enviadas em todo caso.',
  },
  zh: {
    title: '您接收的内容与方式',
    intro: '选择哪些消息可以联系您。保存后立即生效。',
    saved: '您的选择已保存。',
    all: '向我发送通知',
    channels: '联系方式',
    channelNames: {
      inApp: '站内信',
      email: '电子邮件',
      sms: '短信',
      whatsapp: 'WhatsApp',
      voice: '电话',
      push: '手机推送',
      webPush: '浏览器',
    },
    classes: '消息类型',
    classNames: {
      marketing: '资讯与优惠',
      transactional: '与我的操作相关',
      alerts: '提醒',
      social: '来自他人',
    },
    quiet: '免打扰时段',
    quietOn: '在此时段请勿打扰',
    from: '从',
    until: '至',
    summary: '频率',
    summaryNames: { INSTANT: '立即发送', HOURLY: '每小时汇总', DAILY: '每天汇总', WEEKLY: '每周汇总' },
    save: '保存',
    required: '部分消息（例如安全消息）在任何情况下都会发送。',
  },
}

const languageOf = (locale: string): keyof typeof WORDS => {
  const language = locale.toLowerCase().split(/[-_]/)[0]!
  return Object.hasOwn(WORDS, language) ? (language as keyof typeof WORDS) : 'en'
}

/** Channels of people; what only machines read has no place on a page for people. */
export const SHOWN_CHANNELS = ['inApp', 'email', 'sms', 'whatsapp', 'voice', 'push', 'webPush'] as const

// Contrast: text on background 16:1 in light and 13:1 in dark; the button's 7:1; its focus ring 3 px (WCAG 1.4.3, 2.4.13).
const STYLE =
  ':root{color-scheme:light dark;--fg:#1a1a1a;--bg:#fff;--accent:#0b4f9e;--on:#fff}' +
  '@media(prefers-color-scheme:dark){:root{--fg:#eee;--bg:#161616;--accent:#9cc8ff;--on:#10233a}}' +
  'body{font:1.0625rem/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:36rem;margin:2rem auto;padding:0 1.25rem}' +
  'h1{font-size:1.5rem;line-height:1.25}fieldset{border:1px solid;border-radius:.5rem;margin:1.25rem 0;padding:.75rem 1rem}' +
  'legend{font-weight:600;padding:0 .35rem}label{display:flex;gap:.6rem;align-items:center;min-height:2.75rem}' +
  'input[type=checkbox],input[type=radio]{width:1.35rem;height:1.35rem;flex:none}input[type=time]{font:inherit;padding:.35rem}' +
  'button{font:inherit;font-weight:600;padding:.7rem 1.6rem;min-height:2.75rem;border:0;border-radius:.5rem;background:var(--accent);color:var(--on)}' +
  ':focus-visible{outline:3px solid var(--accent);outline-offset:2px}.saved{border-left:.3rem solid var(--accent);padding:.5rem .9rem}'

/** The style may run because of its hash; nothing else may, and the form may come back to us alone. */
export const PAGE_POLICY =
  `default-src 'none'; style-src 'sha256-${hash('sha256', STYLE, 'base64')}'; form-action 'self'; ` +
  `frame-ancestors 'none'; base-uri 'none'`

const escape = (text: string): string =>
  text.replaceAll(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`)

/** Nothing of the person but their choices is shown: whoever has the link need not learn an address. */
export function preferencePage(view: PreferencesView, saved: boolean): string {
  const language = languageOf(view.language)
  const words = WORDS[language]
  const box = (name: string, label: string, checked: boolean) =>
    `<label><input type="checkbox" name="${name}" value="on"${checked ? ' checked' : ''}>${escape(label)}</label>`
  const channels = SHOWN_CHANNELS.filter(
    name => name === 'inApp' || view.channels[name]?.address !== undefined,
  )
  const frequency = view.frequency.digestEnabled ? view.frequency.digestFrequency : 'INSTANT'
  const { quietHours } = view
  return (
    `<!doctype html>\n<html lang="${language}"><head><meta charset="utf-8">` +
    `<meta name="viewport" content="width=device-width, initial-scale=1"><title>${escape(words.title)}</title>` +
    `<style>${STYLE}</style></head><body><main><h1>${escape(words.title)}</h1>` +
    (saved ? `<p class="saved" role="status">${escape(words.saved)}</p>` : '') +
    `<p>${escape(words.intro)}</p><form method="post">` +
    box('all', words.all, view.globalEnabled) +
    `<fieldset><legend>${escape(words.channels)}</legend>` +
    channels
      .map(name => box(`channel.${name}`, words.channelNames[name]!, view.channels[name]?.enabled ?? true))
      .join('') +
    `</fieldset><fieldset><legend>${escape(words.classes)}</legend>` +
    MESSAGE_CLASSES.map(name => box(`class.${name}`, words.classNames[name], classOn(view, name))).join('') +
    `</fieldset><fieldset><legend>${escape(words.quiet)}</legend>` +
    box('quiet', words.quietOn, quietHours.enabled) +
    `<label>${escape(words.from)} <input type="time" name="quietFrom" required value="${escape(quietHours.startTime)}"></label>` +
    `<label>${escape(words.until)} <input type="time" name="quietUntil" required value="${escape(quietHours.endTime)}"></label>` +
    `</fieldset><fieldset><legend>${escape(words.summary)}</legend>` +
    (['INSTANT', 'HOURLY', 'DAILY', 'WEEKLY'] as const)
      .map(
        value =>
          `<label><input type="radio" name="summary" value="${value}"${value === frequency ? ' checked' : ''}>` +
          `${escape(words.summaryNames[value])}</label>`,
      )
      .join('') +
    `</fieldset><p>${escape(words.required)}</p><button type="submit">${escape(words.save)}</button></form></main></body></html>\n`
  )
}

const classOn = (view: PreferencesView, name: MessageClass): boolean => {
  const said = view.categories[name]
  if (said !== undefined) return said.enabled
  return view.channels['email']?.preferences[name] ?? name !== 'marketing'
}

const TIME = /^(?:[01]\d|2[0-3]):[0-5]\d$/

/** What the form says, as a change; undefined when it is not our form. */
export function readPreferenceForm(
  form: URLSearchParams,
  view: PreferencesView,
): PreferencesInput | undefined {
  const [from, until, summary] = [form.get('quietFrom'), form.get('quietUntil'), form.get('summary')]
  if (!from || !until || !TIME.test(from) || !TIME.test(until)) return undefined
  if (summary !== 'INSTANT' && summary !== 'HOURLY' && summary !== 'DAILY' && summary !== 'WEEKLY')
    return undefined
  const on = (name: string) => form.get(name) === 'on'
  // Only what differs from what was shown is an opinion: what the tenant's default says stays the default.
  const channels: NonNullable<PreferencesInput['channels']> = {}
  for (const name of SHOWN_CHANNELS) {
    const shown = view.channels[name]
    if ((name !== 'inApp' && shown?.address === undefined) || shown === undefined) continue
    if (shown.enabled !== on(`channel.${name}`)) channels[name] = { enabled: on(`channel.${name}`) }
  }
  const changedClasses = MESSAGE_CLASSES.filter(name => classOn(view, name) !== on(`class.${name}`))
  for (const name of SHOWN_CHANNELS) {
    if (changedClasses.length === 0 || view.channels[name] === undefined) continue
    channels[name] = {
      ...channels[name],
      preferences: Object.fromEntries(changedClasses.map(one => [one, on(`class.${one}`)])),
    }
  }
  return {
    ...(view.globalEnabled !== on('all') && { globalEnabled: on('all') }),
    channels,
    quietHours: { enabled: on('quiet'), startTime: from, endTime: until },
    frequency:
      summary === 'INSTANT' ? { digestEnabled: false } : { digestEnabled: true, digestFrequency: summary },
  }
}
