import type { Action, Content, Id, Json, JsonObject } from '../../types.ts'
import { fit, permanent } from '../provider.ts'
import { isHttpUrl, isObject, textAt } from './answers.ts'

/**
 * What Slack takes at most, in characters and items
 * (https://docs.slack.dev/reference/block-kit/blocks and the pages of the single blocks below it).
 */
export const SLACK_LIMITS = {
  blocks: 50,
  blockId: 255,
  header: 150,
  sectionText: 3_000,
  sectionFields: 10,
  fieldText: 2_000,
  imageUrl: 3_000,
  imageAlt: 2_000,
  imageTitle: 2_000,
  actions: 25,
  context: 10,
  markdown: 12_000,
  actionId: 255,
  buttonText: 75,
  buttonUrl: 3_000,
  buttonValue: 2_000,
  videoTitle: 200,
  /** Asked for up to 4,000, cut after 40,000: https://docs.slack.dev/reference/methods/chat.postMessage#truncating */
  text: 4_000,
} as const

/** Text of ours takes so many sections at most; what is longer is cut. */
const MAX_SECTIONS = 4
export const SLACK_BODY_CHARS = SLACK_LIMITS.sectionText * MAX_SECTIONS

/** What both ways of posting to Slack carry. `text` is what phones, lists and screen readers show of it. */
export interface SlackMessage {
  text: string
  blocks: JsonObject[]
}

/**
 * A message in Block Kit. Where the template brought its own blocks (`content.data.blocks`) they are checked and
 * their texts cut to size; otherwise they are built from subject, body, `data.fields`, picture, actions and
 * `data.context`.
 *
 * Text comes as mrkdwn whose values were escaped when it was rendered, so nothing is escaped twice: links and
 * mentions stay, and every other `&`, `<` and `>` is written as an entity
 * (https://docs.slack.dev/messaging/formatting-message-text#escaping).
 *
 * @param broadcasts whether `<!channel>`, `<!here>` and `<!everyone>` may call everybody
 * @throws DeliveryError permanent, naming the block, where the given ones cannot be sent
 */
export function slackMessage(content: Content, notificationId: Id, broadcasts: boolean): SlackMessage {
  const safe = (text: string) => safeMrkdwn(text, broadcasts)
  const data = content.data ?? {}
  const text = fitMrkdwn(fallbackText(content, safe), SLACK_LIMITS.text)
  const given = data.blocks
  const blocks = given === undefined ? builtBlocks(content, safe) : checkedBlocks(given, safe)
  nameActions(blocks, notificationId)
  return { text, blocks }
}

/** Slack shows no title of its own, so the subject goes first, unless the body begins with it. */
function fallbackText({ subject, body }: Content, safe: (text: string) => string): string {
  const rest = safe(body)
  if (subject === undefined || subject === '') return rest === '' ? ' ' : rest
  const title = safe(subject)
  if (rest === '') return title
  return rest.startsWith(title) || rest.startsWith(`*${title}*`) ? rest : `*${title}*\n${rest}`
}

/* ---------------------------------------------------------------- building */

function builtBlocks(content: Content, safe: (text: string) => string): JsonObject[] {
  const data = content.data ?? {}
  const blocks: JsonObject[] = []
  const subject = safe(content.subject ?? '').trim()
  let body = safe(content.body)
  if (subject !== '') {
    // A header is one line.
    const line = subject.replaceAll(/\s+/g, ' ')
    blocks.push({ type: 'header', text: plain(fitMrkdwn(line, SLACK_LIMITS.header)) })
    // Text that carries its title for those who show no header need not say it twice.
    for (const title of [`*${subject}*`, subject]) {
      if (body === title || body.startsWith(`${title}\n`)) {
        body = body.slice(title.length).trimStart()
        break
      }
    }
  }
  for (const part of sections(body)) blocks.push({ type: 'section', text: mrkdwn(part) })

  const fields = fieldTexts(data.fields, safe)
  for (let at = 0; at < fields.length; at += SLACK_LIMITS.sectionFields) {
    const some = fields.slice(at, at + SLACK_LIMITS.sectionFields)
    blocks.push({ type: 'section', fields: some.map(mrkdwn) })
  }
  const { image, actions = [] } = content
  if (image !== undefined && isHttpUrl(image) && image.length <= SLACK_LIMITS.imageUrl) {
    const alt = fit(textAt(data, 'imageAlt') ?? (subject || 'Image'), SLACK_LIMITS.imageAlt)
    blocks.push({ type: 'image', image_url: image, alt_text: alt })
  }
  const buttons = buttonsOf(actions.slice(0, SLACK_LIMITS.actions))
  if (buttons.length > 0) blocks.push({ type: 'actions', elements: buttons })

  const context = contextTexts(data.context, safe)
  if (context.length > 0) blocks.push({ type: 'context', elements: context.map(mrkdwn) })
  // A message of blocks alone must have one.
  if (blocks.length === 0) blocks.push({ type: 'section', text: mrkdwn(' ') })
  return blocks
}

const mrkdwn = (text: string): JsonObject => ({ type: 'mrkdwn', text })
const plain = (text: string): JsonObject => ({ type: 'plain_text', text, emoji: true })

/** Long text in sections of at most 3,000 characters, parted at lines where there are any. */
function sections(text: string): string[] {
  const parts: string[] = []
  let rest = text
  while (rest.length > SLACK_LIMITS.sectionText && parts.length < MAX_SECTIONS - 1) {
    const line = rest.lastIndexOf('\n', SLACK_LIMITS.sectionText)
    const at = line > SLACK_LIMITS.sectionText / 2 ? line : wholeLength(rest, SLACK_LIMITS.sectionText)
    parts.push(rest.slice(0, at))
    rest = rest.slice(at).replace(/^\n/, '')
  }
  if (rest !== '') parts.push(fitMrkdwn(rest, SLACK_LIMITS.sectionText))
  return parts.filter(part => part.trim() !== '')
}

const MAX_FIELDS = 20

/** `["*Service*\ndb"]`, or `[{ "title": "Service", "value": "db" }]`, or `{ "Service": "db" }`. */
function fieldTexts(given: Json | undefined, safe: (text: string) => string): string[] {
  const list = Array.isArray(given)
    ? given
    : isObject(given)
      ? Object.entries(given).map(([title, value]) => ({ title, value }))
      : []
  return list
    .slice(0, MAX_FIELDS)
    .map(each => {
      if (!isObject(each)) return safe(shown(each))
      const title = shown(each.title)
      const value = safe(shown(each.value))
      return title === '' ? value : `*${safe(title)}*\n${value}`
    })
    .filter(text => text.trim() !== '')
    .map(text => fitMrkdwn(text, SLACK_LIMITS.fieldText))
}

function contextTexts(given: Json | undefined, safe: (text: string) => string): string[] {
  const list = Array.isArray(given) ? given : given === undefined ? [] : [given]
  return list
    .map(each => safe(shown(each)))
    .filter(text => text.trim() !== '')
    .slice(0, SLACK_LIMITS.context)
    .map(text => fitMrkdwn(text, SLACK_LIMITS.sectionText))
}

const shown = (value: Json | undefined): string =>
  typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? `${value}` : ''

function buttonsOf(actions: readonly Action[]): JsonObject[] {
  const taken = new Set<string>()
  return actions.map(({ id, label, url }, at) => {
    // Within one block each action id may stand once.
    let actionId = id.slice(0, SLACK_LIMITS.actionId) || `action-${at}`
    if (taken.has(actionId)) actionId = `${id.slice(0, SLACK_LIMITS.actionId - 4)}-${at}`
    taken.add(actionId)
    const button: JsonObject = {
      type: 'button',
      text: plain(fit(label.trim() || id || 'Open', SLACK_LIMITS.buttonText)),
      action_id: actionId,
    }
    if (url !== undefined && isHttpUrl(url) && url.length <= SLACK_LIMITS.buttonUrl) button.url = url
    else button.value = id.slice(0, SLACK_LIMITS.buttonValue) || actionId
    return button
  })
}

/* ---------------------------------------------------------------- checking */

/** A template's blocks, as far as Slack has told what it refuses; kinds it adds later go through unseen. */
function checkedBlocks(given: Json, safe: (text: string) => string): JsonObject[] {
  if (!Array.isArray(given) || given.length === 0) throw refused('/blocks', 'is no list of blocks')
  if (given.length > SLACK_LIMITS.blocks) {
    throw refused('/blocks', `holds ${given.length} blocks, Slack takes ${SLACK_LIMITS.blocks}`)
  }
  const ids = new Set<string>()
  return given.map((each, at) => {
    const path = `/blocks/${at}`
    if (!isObject(each)) throw refused(path, 'is no block')
    const block = structuredClone(each)
    const id = block.block_id
    if (id !== undefined) {
      if (typeof id !== 'string' || id.length > SLACK_LIMITS.blockId || ids.has(id)) {
        throw refused(`${path}/block_id`, 'is too long, no text, or there twice')
      }
      ids.add(id)
    }
    checkBlock(block, path, safe)
    return block
  })
}

function checkBlock(block: JsonObject, path: string, safe: (text: string) => string): void {
  switch (block.type) {
    case 'header':
      return checkText(block.text, `${path}/text`, SLACK_LIMITS.header, safe)
    case 'section': {
      const { text, fields, accessory } = block
      if (text === undefined && fields === undefined) throw refused(path, 'has neither text nor fields')
      if (text !== undefined) checkText(text, `${path}/text`, SLACK_LIMITS.sectionText, safe)
      if (fields !== undefined) {
        listAt(block, 'fields', path, SLACK_LIMITS.sectionFields).forEach((field, at) =>
          checkText(field, `${path}/fields/${at}`, SLACK_LIMITS.fieldText, safe),
        )
      }
      if (accessory !== undefined) checkElement(accessory, `${path}/accessory`, safe)
      return
    }
    case 'image':
      checkImage(block, path)
      if (block.title !== undefined) checkText(block.title, `${path}/title`, SLACK_LIMITS.imageTitle, safe)
      return
    case 'actions':
      return listAt(block, 'elements', path, SLACK_LIMITS.actions).forEach((element, at) =>
        checkElement(element, `${path}/elements/${at}`, safe),
      )
    case 'context':
      return listAt(block, 'elements', path, SLACK_LIMITS.context).forEach((element, at) => {
        const below = `${path}/elements/${at}`
        if (isObject(element) && element.type === 'image') checkImage(element, below)
        else checkText(element, below, SLACK_LIMITS.sectionText, safe)
      })
    case 'markdown': {
      const text = textAt(block, 'text')
      if (text === undefined) throw refused(`${path}/text`, 'is missing')
      block.text = fit(text, SLACK_LIMITS.markdown)
      return
    }
    case 'video':
      return checkText(block.title, `${path}/title`, SLACK_LIMITS.videoTitle, safe)
    default:
      if (typeof block.type !== 'string' || block.type === '') throw refused(`${path}/type`, 'is missing')
  }
}

/** A text object; what is too long is cut, as a message that says less is better than none. */
function checkText(given: Json | undefined, path: string, max: number, safe: (text: string) => string): void {
  if (!isObject(given)) throw refused(path, 'is no text object')
  const { type, text } = given
  if ((type !== 'mrkdwn' && type !== 'plain_text') || typeof text !== 'string' || text === '') {
    throw refused(path, 'is no text object with a text')
  }
  given.text = fitMrkdwn(type === 'mrkdwn' ? safe(text) : text, max)
}

function checkElement(given: Json, path: string, safe: (text: string) => string): void {
  if (!isObject(given) || typeof given.type !== 'string') throw refused(path, 'is no element')
  const { action_id: id, url, value } = given
  if (id !== undefined && (typeof id !== 'string' || id.length > SLACK_LIMITS.actionId)) {
    throw refused(`${path}/action_id`, `has more than ${SLACK_LIMITS.actionId} characters`)
  }
  if (given.type === 'image') return checkImage(given, path)
  if (given.type !== 'button') return
  checkText(given.text, `${path}/text`, SLACK_LIMITS.buttonText, safe)
  if (url !== undefined && (typeof url !== 'string' || !isLink(url) || url.length > SLACK_LIMITS.buttonUrl)) {
    throw refused(`${path}/url`, 'is no URL that Slack takes')
  }
  if (value !== undefined && (typeof value !== 'string' || value.length > SLACK_LIMITS.buttonValue)) {
    throw refused(`${path}/value`, `has more than ${SLACK_LIMITS.buttonValue} characters`)
  }
}

const isLink = (url: string): boolean => isHttpUrl(url) || /^(mailto|tel|slack):/i.test(url)

function checkImage(image: JsonObject, path: string): void {
  const { image_url: url, slack_file: file, alt_text: alt } = image
  const urlHolds = typeof url === 'string' && isHttpUrl(url) && url.length <= SLACK_LIMITS.imageUrl
  if (!urlHolds && !isObject(file)) throw refused(`${path}/image_url`, 'is no URL that Slack takes')
  if (typeof alt !== 'string') throw refused(`${path}/alt_text`, 'is missing')
  image.alt_text = fit(alt, SLACK_LIMITS.imageAlt)
}

function listAt(block: JsonObject, name: string, path: string, max: number): Json[] {
  const list = block[name]
  if (!Array.isArray(list) || list.length === 0) throw refused(`${path}/${name}`, 'is no list')
  if (list.length > max) throw refused(`${path}/${name}`, `holds ${list.length}, Slack takes ${max}`)
  return list
}

const refused = (path: string, what: string) => permanent('content_refused', `${path} ${what}`)

/* ---------------------------------------------------------------- text */

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;' }
// Entities, links, mentions of one person, channel or group, and dates stay; then whatever else is special.
const SPECIAL =
  /&(?:amp|lt|gt);|<(?:https?:\/\/|mailto:|tel:)[^<>\s|]+(?:\|[^<>\n]*)?>|<(?:@[UW][A-Z0-9]+|#[CG][A-Z0-9]+|!subteam\^[A-Z0-9]+|!date\^\d+\^[^<>]*|!(?:channel|here|everyone))(?:\|[^<>\n]*)?>|[&<>]/g

/** Slack's three control characters as entities, wherever they are not already part of its own notation. */
export function safeMrkdwn(text: string, broadcasts: boolean): string {
  if (!/[&<>]/.test(text)) return text
  return text.replace(SPECIAL, found => {
    if (found.length === 1) return ENTITIES[found]!
    if (!broadcasts && /^<!(?:channel|here|everyone)/.test(found))
      return found.replaceAll(/[<>]/g, c => ENTITIES[c]!)
    return found
  })
}

/** Like `fit`, but never ends within an entity or a link, which would show as rubbish. */
export function fitMrkdwn(text: string, max: number): string {
  if (text.length <= max) return text
  return `${text.slice(0, wholeLength(text, max - 1))}…`
}

/** The longest length of at most `max` that parts no character, entity or link. */
function wholeLength(text: string, max: number): number {
  const head = fit(text, max + 1).slice(0, -1)
  const entity = /&[a-z]{0,3}$/.exec(head)
  const link = /<[^<>]*$/.exec(head)
  const at = Math.min(entity?.index ?? head.length, link?.index ?? head.length)
  // Should the whole of it be one link, a cut through it is still better than nothing.
  return at > 0 ? at : head.length
}

/* ---------------------------------------------------------------- what comes back */

const OURS = /^carillon:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?::|$)/

/** Buttons come back with the id of their block, which therefore names the notification. */
function nameActions(blocks: readonly JsonObject[], notificationId: Id): void {
  blocks.forEach((block, at) => {
    const interactive =
      block.type === 'actions' || (block.type === 'section' && block.accessory !== undefined)
    if (interactive && block.block_id === undefined) block.block_id = `carillon:${notificationId}:${at}`
  })
}

/** The notification that a block's id names, where we named the block. */
export const notificationOf = (blockId: string | undefined): Id | undefined =>
  blockId === undefined ? undefined : OURS.exec(blockId)?.[1]
