import type { Why } from './explain.ts'
import type { Channel } from '../types.ts'

/**
 * The reasons as they are said to the person themself: no rules, no operators, nobody else. `{channel}` and `{time}`
 * are filled in; a sentence with `{time}` is only used where there is one.
 */
export const LANGUAGES = ['en', 'pt', 'zh'] as const
export type Language = (typeof LANGUAGES)[number]

type Said = Record<Language, string>

/** Several internal reasons mean the same to the person. */
const NOT_FOR_YOU: Said = {
  en: 'This was not meant for you, so nothing was sent.',
  pt: 'Isto não se destinava a você; nada foi enviado.',
  zh: '此事与您无关，因此没有发送任何内容。',
}
const NOT_POSSIBLE: Said = {
  en: 'It could not be prepared. Whoever sends you these messages has been told.',
  pt: 'Não foi possível prepará-la. Quem envia estas mensagens foi avisado.',
  zh: '消息未能生成，发送方已收到通知。',
}
const SOON: Said = {
  en: 'It is on its way by {channel} and should arrive shortly.',
  pt: 'Está a caminho por {channel} e deve chegar em breve.',
  zh: '消息正通过{channel}发送，很快就会送达。',
}
const TRYING: Said = {
  en: 'Sending it by {channel} did not work yet. It will be tried again at {time}.',
  pt: 'O envio por {channel} ainda não funcionou. Nova tentativa às {time}.',
  zh: '通过{channel}发送暂未成功，将于{time}重试。',
}
const LATER: Said = {
  en: 'It will come by {channel} at {time}, as planned.',
  pt: 'Chegará por {channel} às {time}, como planejado.',
  zh: '消息将按计划于{time}通过{channel}发送。',
}
const ENDED: Said = {
  en: 'It was cancelled before it was sent by {channel}.',
  pt: 'Foi cancelada antes do envio por {channel}.',
  zh: '消息在通过{channel}发送之前已被取消。',
}

export const WORDS: Record<Why, Said> = {
  schema_violation: NOT_POSSIBLE,
  event_type_disabled: NOT_FOR_YOU,
  no_rule_matched: NOT_FOR_YOU,
  pattern_false: NOT_FOR_YOU,
  pattern_error: NOT_FOR_YOU,
  outside_validity: NOT_FOR_YOU,
  rule_disabled: NOT_FOR_YOU,
  no_recipients: NOT_FOR_YOU,
  recipients_error: NOT_POSSIBLE,
  user_not_named: NOT_FOR_YOU,
  not_planned: {
    en: 'It has arrived and is being worked on.',
    pt: 'Foi recebida e está sendo processada.',
    zh: '已收到，正在处理。',
  },
  planning_failed: NOT_POSSIBLE,
  duplicate_recipient: {
    en: 'You were told about this already.',
    pt: 'Você já foi avisado sobre isto.',
    zh: '此事此前已通知过您。',
  },
  expired: {
    en: 'It was no longer true before it could be sent by {channel}.',
    pt: 'Deixou de valer antes que pudesse ser enviada por {channel}.',
    zh: '在能够通过{channel}发送之前，消息已过期。',
  },
  unknown_user: {
    en: 'Your account was not known when it happened.',
    pt: 'Sua conta ainda não era conhecida quando isto aconteceu.',
    zh: '事件发生时尚无您的账户。',
  },
  user_disabled: {
    en: 'Your account was switched off when it happened.',
    pt: 'Sua conta estava desativada quando isto aconteceu.',
    zh: '事件发生时您的账户已停用。',
  },
  user_erased: {
    en: 'Your data was erased, so nothing can be sent to you.',
    pt: 'Seus dados foram apagados; nada pode ser enviado a você.',
    zh: '您的数据已被删除，无法向您发送消息。',
  },
  preference_global_off: {
    en: 'You switched all notifications off.',
    pt: 'Você desativou todas as notificações.',
    zh: '您已关闭所有通知。',
  },
  preference_channel_off: {
    en: 'Messages by {channel} are switched off for you.',
    pt: 'As mensagens por {channel} estão desativadas para você.',
    zh: '您的{channel}通知已关闭。',
  },
  preference_category_off: {
    en: 'Messages of this kind by {channel} are switched off for you.',
    pt: 'Mensagens deste tipo por {channel} estão desativadas para você.',
    zh: '您已关闭此类{channel}通知。',
  },
  preference_scope_off: {
    en: 'Messages from this source by {channel} are switched off for you.',
    pt: 'Mensagens desta origem por {channel} estão desativadas para você.',
    zh: '您已关闭来自此来源的{channel}通知。',
  },
  topic_important_only: {
    en: 'You follow this topic for important messages only.',
    pt: 'Você segue este assunto apenas para mensagens importantes.',
    zh: '对此主题，您只接收重要消息。',
  },
  below_minimum_priority: {
    en: 'It is less important than what you asked to hear about by {channel}.',
    pt: 'É menos importante do que você pediu para receber por {channel}.',
    zh: '其重要程度低于您为{channel}设定的标准。',
  },
  no_consent: {
    en: 'You have not agreed to advertising by {channel}.',
    pt: 'Você não autorizou publicidade por {channel}.',
    zh: '您未同意通过{channel}接收推广信息。',
  },
  missing_address: {
    en: 'There is no address of yours for {channel}.',
    pt: 'Não há um endereço seu para {channel}.',
    zh: '没有您的{channel}地址。',
  },
  unverified_address: {
    en: 'Your address for {channel} is not confirmed yet.',
    pt: 'Seu endereço para {channel} ainda não foi confirmado.',
    zh: '您的{channel}地址尚未验证。',
  },
  suppressed_address: {
    en: 'Your address for {channel} takes no messages: an earlier one came back, or you asked to stop.',
    pt: 'Seu endereço para {channel} não recebe mensagens: uma anterior voltou, ou você pediu para parar.',
    zh: '您的{channel}地址不再接收消息：此前的消息被退回，或您已要求停止。',
  },
  channel_unavailable: {
    en: 'Messages by {channel} are not offered here.',
    pt: 'Mensagens por {channel} não são oferecidas aqui.',
    zh: '此处不提供{channel}通知。',
  },
  channel_not_allowed: {
    en: 'Messages by {channel} are not part of your plan.',
    pt: 'Mensagens por {channel} não fazem parte do seu plano.',
    zh: '您的套餐不包含{channel}通知。',
  },
  render_failed: NOT_POSSIBLE,
  holdout: NOT_FOR_YOU,
  silenced: {
    en: 'Messages about this were switched off for a while for everybody.',
    pt: 'Mensagens sobre isto foram silenciadas por um tempo para todos.',
    zh: '此类消息已对所有人暂时静默。',
  },
  inhibited: {
    en: 'A more important message about the same thing covers it.',
    pt: 'Uma mensagem mais importante sobre o mesmo assunto já a inclui.',
    zh: '同一事项已有更重要的消息覆盖。',
  },
  muted: {
    en: 'You muted these messages by {channel} for now.',
    pt: 'Você silenciou estas mensagens por {channel} por enquanto.',
    zh: '您已暂时将此类{channel}消息静音。',
  },
  cooldown: {
    en: 'You were told about the same thing a short time ago.',
    pt: 'Você foi avisado sobre o mesmo assunto há pouco.',
    zh: '不久前已就同一事项通知过您。',
  },
  repeated: {
    en: 'The same text was sent to you a short time ago.',
    pt: 'O mesmo texto foi enviado a você há pouco.',
    zh: '相同的内容不久前已发送给您。',
  },
  similar: {
    en: 'Almost the same text was sent to you a short time ago.',
    pt: 'Um texto quase igual foi enviado a você há pouco.',
    zh: '几乎相同的内容不久前已发送给您。',
  },
  spam: {
    en: 'There were so many messages of this kind that it was held back.',
    pt: 'Havia tantas mensagens deste tipo que ela foi retida.',
    zh: '此类消息过多，因此未发送。',
  },
  over_limit: {
    en: 'The limit for messages by {channel} was reached.',
    pt: 'O limite de mensagens por {channel} foi atingido.',
    zh: '{channel}消息已达到上限。',
  },
  scheduled: LATER,
  rule_schedule: LATER,
  quiet_hours: {
    en: 'It waits for the end of your quiet hours and will come by {channel} at {time}.',
    pt: 'Espera o fim do seu horário de silêncio e chegará por {channel} às {time}.',
    zh: '正值您的免打扰时段，消息将于{time}通过{channel}发送。',
  },
  delivery_window: {
    en: 'It waits for the hours at which messages may come and will come by {channel} at {time}.',
    pt: 'Espera o horário permitido e chegará por {channel} às {time}.',
    zh: '当前不在允许发送的时段，消息将于{time}通过{channel}发送。',
  },
  limit: {
    en: 'A limit is reached for now; it will come by {channel} at {time}.',
    pt: 'Um limite foi atingido por agora; chegará por {channel} às {time}.',
    zh: '目前已达到上限，消息将于{time}通过{channel}发送。',
  },
  minimum_gap: {
    en: 'The message before it is too recent; it will come by {channel} at {time}.',
    pt: 'A mensagem anterior é muito recente; chegará por {channel} às {time}.',
    zh: '与上一条消息间隔过短，将于{time}通过{channel}发送。',
  },
  throttled: {
    en: 'There is much of this kind at the moment; it will come by {channel} at {time}.',
    pt: 'Há muitas deste tipo no momento; chegará por {channel} às {time}.',
    zh: '目前此类消息较多，将于{time}通过{channel}发送。',
  },
  digest: {
    en: 'It is collected and will come together with others by {channel} at {time}.',
    pt: 'Está sendo reunida e chegará com outras por {channel} às {time}.',
    zh: '消息已汇总，将于{time}与其他消息一起通过{channel}发送。',
  },
  frequency: {
    en: 'You asked for a summary by {channel}; it will be part of the next one at {time}.',
    pt: 'Você pediu um resumo por {channel}; fará parte do próximo, às {time}.',
    zh: '您选择了{channel}摘要，它将包含在{time}的下一份摘要中。',
  },
  attention: {
    en: 'You had enough interruptions for now; it will be part of the next summary by {channel} at {time}.',
    pt: 'Você já teve interrupções suficientes; fará parte do próximo resumo por {channel} às {time}.',
    zh: '目前的打扰已够多，它将包含在{time}的下一份{channel}摘要中。',
  },
  group: {
    en: 'It will come by {channel} at {time} together with others about the same thing.',
    pt: 'Chegará por {channel} às {time} junto com outras sobre o mesmo assunto.',
    zh: '它将于{time}与同一事项的其他消息一起通过{channel}发送。',
  },
  escalation: {
    en: 'It will come by {channel} at {time}, unless you have reacted by then.',
    pt: 'Chegará por {channel} às {time}, a menos que você reaja antes.',
    zh: '如果届时您仍未处理，消息将于{time}通过{channel}发送。',
  },
  retry: TRYING,
  rate_limited: TRYING,
  provider_rate: SOON,
  breaker_open: TRYING,
  fallback: {
    en: 'Other ways did not reach you, so it comes by {channel}.',
    pt: 'Outros meios não chegaram até você, por isso vem por {channel}.',
    zh: '其他方式未能送达，因此改用{channel}发送。',
  },
  redriven: SOON,
  spilled: SOON,
  cancelled: ENDED,
  in_digest: {
    en: 'It came to you as part of a summary by {channel}.',
    pt: 'Chegou a você como parte de um resumo por {channel}.',
    zh: '它已作为{channel}摘要的一部分发送给您。',
  },
  not_retained: {
    en: 'A newer or more important message about the same thing came by {channel} instead.',
    pt: 'Uma mensagem mais nova ou mais importante sobre o mesmo assunto veio por {channel} em seu lugar.',
    zh: '已改为通过{channel}发送同一事项更新或更重要的消息。',
  },
  condition_met: {
    en: 'You had seen it before, so {channel} was not needed.',
    pt: 'Você já a tinha visto; {channel} não foi necessário.',
    zh: '您此前已查看，因此无需通过{channel}发送。',
  },
  acknowledged: {
    en: 'Somebody took care of it, so {channel} was not needed.',
    pt: 'Alguém já cuidou disso; {channel} não foi necessário.',
    zh: '已有人处理，因此无需通过{channel}发送。',
  },
  retracted: {
    en: 'It was no longer true, so it was not sent by {channel}.',
    pt: 'Deixou de ser verdade; não foi enviada por {channel}.',
    zh: '内容已失效，因此未通过{channel}发送。',
  },
  preference_changed: {
    en: 'While it waited you decided not to get it by {channel}.',
    pt: 'Enquanto esperava, você decidiu não recebê-la por {channel}.',
    zh: '在等待期间，您选择不通过{channel}接收。',
  },
}

/** What became of it, where no reason says more. */
export const STATES = {
  delivered: {
    en: 'It was delivered by {channel}.',
    pt: 'Foi entregue por {channel}.',
    zh: '消息已通过{channel}送达。',
  },
  sent: {
    en: 'It was sent by {channel}.',
    pt: 'Foi enviada por {channel}.',
    zh: '消息已通过{channel}发送。',
  },
  on_its_way: SOON,
  failed: {
    en: 'It could not be delivered by {channel}.',
    pt: 'Não pôde ser entregue por {channel}.',
    zh: '消息未能通过{channel}送达。',
  },
} as const satisfies Record<string, Said>

/** After a reason that rests on a setting: whose word it was. */
export const CHOSEN = {
  own: {
    en: 'You chose this in your settings.',
    pt: 'Você escolheu isto nas suas configurações.',
    zh: '这是您在设置中的选择。',
  },
  theirs: {
    en: 'This is the default for everybody; your own settings may say otherwise.',
    pt: 'Este é o padrão para todos; suas próprias configurações podem mudar isto.',
    zh: '这是面向所有人的默认设置，您可以在自己的设置中更改。',
  },
} as const satisfies Record<string, Said>

/** After a reason that rests on a limit: how full it was, by its window. */
export const COUNTED = {
  minute: {
    en: '{used} of {max} were used in that minute.',
    pt: 'Já foram usadas {used} de {max} nesse minuto.',
    zh: '该分钟内已使用{used}/{max}条。',
  },
  hour: {
    en: '{used} of {max} were used in that hour.',
    pt: 'Já foram usadas {used} de {max} nessa hora.',
    zh: '该小时内已使用{used}/{max}条。',
  },
  day: {
    en: '{used} of {max} were used on that day.',
    pt: 'Já foram usadas {used} de {max} nesse dia.',
    zh: '当日已使用{used}/{max}条。',
  },
  week: {
    en: '{used} of {max} were used in that week.',
    pt: 'Já foram usadas {used} de {max} nessa semana.',
    zh: '该周内已使用{used}/{max}条。',
  },
  month: {
    en: '{used} of {max} were used in that month.',
    pt: 'Já foram usadas {used} de {max} nesse mês.',
    zh: '当月已使用{used}/{max}条。',
  },
} as const satisfies Record<string, Said>

const CHANNEL_WORDS: Record<Channel, Said> = {
  in_app: { en: 'your inbox', pt: 'sua caixa de entrada', zh: '站内信' },
  email: { en: 'e-mail', pt: 'e-mail', zh: '电子邮件' },
  sms: { en: 'SMS', pt: 'SMS', zh: '短信' },
  whatsapp: { en: 'WhatsApp', pt: 'WhatsApp', zh: 'WhatsApp' },
  voice: { en: 'telephone', pt: 'telefone', zh: '电话' },
  push: { en: 'push message', pt: 'notificação no celular', zh: '手机推送' },
  web_push: { en: 'browser message', pt: 'notificação no navegador', zh: '浏览器推送' },
  slack: { en: 'Slack', pt: 'Slack', zh: 'Slack' },
  webhook: { en: 'webhook', pt: 'webhook', zh: 'Webhook' },
  pagerduty: { en: 'PagerDuty', pt: 'PagerDuty', zh: 'PagerDuty' },
  discord: { en: 'Discord', pt: 'Discord', zh: 'Discord' },
  telegram: { en: 'Telegram', pt: 'Telegram', zh: 'Telegram' },
  teams: { en: 'Teams', pt: 'Teams', zh: 'Teams' },
  ntfy: { en: 'ntfy', pt: 'ntfy', zh: 'ntfy' },
}

/** `pt-BR` reads Portuguese; a language we do not have reads English. */
export const languageOf = (locale: string): Language =>
  LANGUAGES.find(language => language === locale.toLowerCase().split(/[-_]/)[0]) ?? 'en'

/** The sentence, with the time as the person's own clock and language write it. */
export function say(
  said: Said,
  { locale, timezone, channel, at }: { locale: string; timezone: string; channel?: Channel; at?: Date },
): string {
  const language = languageOf(locale)
  // Without an instant, the part that would name it is left out.
  const sentence = at === undefined ? said[language].replace(WITHOUT_TIME[language], '') : said[language]
  return sentence
    .replaceAll('{channel}', channel === undefined ? '' : CHANNEL_WORDS[channel][language])
    .replaceAll('{time}', at === undefined ? '' : clock(at, locale, timezone))
}

const WITHOUT_TIME: Record<Language, RegExp> = {
  en: / at \{time\}/,
  pt: /,? às \{time\}/,
  zh: /(?:将)?于\{time\}|\{time\}的/,
}

function clock(at: Date, locale: string, timezone: string): string {
  const style = { dateStyle: 'medium', timeStyle: 'short', timeZone: timezone } as const
  try {
    return new Intl.DateTimeFormat(locale, style).format(at)
  } catch {
    // A stored locale or zone that this Node does not know.
    return new Intl.DateTimeFormat('en', { ...style, timeZone: 'UTC' }).format(at)
  }
}
