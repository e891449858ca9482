import { type PageLanguage, escapeText, languageOf, pageOf } from './page.ts'
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
  tracking: string
  save: string
  required: string
}

const WORDS: Record<PageLanguage, Words> = {
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
    tracking: 'Let the sender see when I open messages and which links I follow',
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
    tracking: 'Permitir que o remetente veja quando abro mensagens e quais links sigo',
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
    tracking: '允许发送方了解我何时打开消息以及点击了哪些链接',
    save: '保存',
    required: '部分消息（例如安全消息）在任何情况下都会发送。',
  },
}

/** Channels of people; what only machines read has no place on a page for people. */
export const SHOWN_CHANNELS = ['inApp', 'email', 'sms', 'whatsapp', 'voice', 'push', 'webPush'] as const

/** Nothing of the person but their choices is shown: whoever has the link need not learn an address. */
export function preferencePage(view: PreferencesView, more: { saved?: boolean; tracked?: boolean }): string {
  const language = languageOf(view.language)
  const words = WORDS[language]
  const box = (name: string, label: string, checked: boolean) =>
    `<label><input type="checkbox" name="${name}" value="on"${checked ? ' checked' : ''}>${escapeText(label)}</label>`
  const channels = SHOWN_CHANNELS.filter(
    name => name === 'inApp' || view.channels[name]?.address !== undefined,
  )
  const frequency = view.frequency.digestEnabled ? view.frequency.digestFrequency : 'INSTANT'
  const { quietHours } = view
  return pageOf(
    language,
    words.title,
    (more.saved ? `<p class="saved" role="status">${escapeText(words.saved)}</p>` : '') +
      `<p>${escapeText(words.intro)}</p><form method="post">` +
      box('all', words.all, view.globalEnabled) +
      `<fieldset><legend>${escapeText(words.channels)}</legend>` +
      channels
        .map(name => box(`channel.${name}`, words.channelNames[name]!, view.channels[name]?.enabled ?? true))
        .join('') +
      `</fieldset><fieldset><legend>${escapeText(words.classes)}</legend>` +
      MESSAGE_CLASSES.map(name => box(`class.${name}`, words.classNames[name], classOn(view, name))).join(
        '',
      ) +
      `</fieldset><fieldset><legend>${escapeText(words.quiet)}</legend>` +
      box('quiet', words.quietOn, quietHours.enabled) +
      `<label>${escapeText(words.from)} <input type="time" name="quietFrom" required value="${escapeText(quietHours.startTime)}"></label>` +
      `<label>${escapeText(words.until)} <input type="time" name="quietUntil" required value="${escapeText(quietHours.endTime)}"></label>` +
      `</fieldset><fieldset><legend>${escapeText(words.summary)}</legend>` +
      (['INSTANT', 'HOURLY', 'DAILY', 'WEEKLY'] as const)
        .map(
          value =>
            `<label><input type="radio" name="summary" value="${value}"${value === frequency ? ' checked' : ''}>` +
            `${escapeText(words.summaryNames[value])}</label>`,
        )
        .join('') +
      '</fieldset>' +
      (more.tracked === undefined ? '' : box('tracking', words.tracking, more.tracked)) +
      `<p>${escapeText(words.required)}</p><button type="submit">${escapeText(words.save)}</button></form>`,
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
