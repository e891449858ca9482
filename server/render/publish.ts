import { AppError } from '../errors.ts'
import {
  type ChannelContent,
  type ChannelContents,
  type Messages,
  type TemplateProblem,
  type TemplateRevision,
  type TemplateVariable,
  readBy,
} from './content.ts'
import { type Layouts, calledIn, variablesWith } from './partials.ts'
import { smsSize } from '../sms-size.ts'
import { NO_MESSAGES, messageWarnings, sharedWarnings } from './messages.ts'

/**
 * What is done to markup once, when a template is saved, so that rendering never does it: MJML becomes HTML, and styles
 * move into the elements they are for, as mail clients read few style sheets. Handlebars tags in it stay as they are.
 *
 * The libraries are loaded when the first such template is saved: MJML alone is 40 MB of memory.
 *
 * @throws AppError invalid_template with each mistake, its field and line
 */
export async function compileMarkup<T extends Texts>(definition: T): Promise<T> {
  const problems: TemplateProblem[] = []
  const all = async (contents: ChannelContents, pointer: string): Promise<ChannelContents> => {
    const compiled: ChannelContents = {}
    for (const [channel, content] of Object.entries(contents)) {
      compiled[channel as keyof ChannelContents] = await compileContent(
        content,
        `${pointer}/${channel}`,
        problems,
      )
    }
    return compiled
  }
  const channels = await all(definition.channels, '/channels')
  const translations: Texts['translations'] = {}
  for (const [tag, contents] of Object.entries(definition.translations)) {
    const pointer = `/translations/${tag}`
    translations[tag] = isOne(contents)
      ? await compileContent(contents, pointer, problems)
      : await all(contents, pointer)
  }
  const [first] = problems
  if (first) {
    throw new AppError('invalid_template', `${first.field}: ${first.message}`, {
      errors: problems.slice(0, 50),
      ...(first.line !== undefined && { extra: { line: first.line, column: 1 } }),
    })
  }
  return { ...definition, channels, translations }
}

interface Texts {
  locale?: string
  channels: ChannelContents
  translations: NonNullable<TemplateRevision['translations']>
  messages?: Messages
  variables?: TemplateVariable[]
  partials?: Record<string, string>
  layouts?: Layouts
}

/** One content for all channels, rather than contents by channel. */
const isOne = (contents: ChannelContents | ChannelContent): contents is ChannelContent =>
  ['body', 'html', 'mjml', 'subject', 'title', 'data'].some(field => field in contents)

async function compileContent(
  content: ChannelContent,
  pointer: string,
  problems: TemplateProblem[],
): Promise<ChannelContent> {
  const { mjml, html } = content
  if (mjml !== undefined) {
    // The HTML beside it is what an earlier saving made of it.
    const compiled = await compileMjml(mjml, `${pointer}/mjml`, problems)
    return compiled === undefined ? content : { ...content, html: compiled }
  }
  if (html === undefined || !/<style[\s>]/i.test(html)) return content
  return { ...content, html: await inlineStyles(html) }
}

/** Loads the libraries that saving these texts will need. */
export async function loadMarkup({ channels, translations }: Texts): Promise<void> {
  const all = JSON.stringify([channels, translations])
  if (all.includes('"mjml"')) await import('mjml')
  if (/<style/i.test(all)) await import('juice')
}

/** Comments may stand before it. By hand: one expression for any number of them tries all ways to tell them apart. */
function beginsAsMjml(source: string): boolean {
  for (let at = 0; ; ) {
    while (/\s/.test(source.charAt(at))) at++
    if (!source.startsWith('<!--', at)) return /^<mjml[\s>]/.test(source.slice(at, at + 6))
    const end = source.indexOf('-->', at + 4)
    if (end < 0) return false
    at = end + 3
  }
}

async function compileMjml(
  source: string,
  field: string,
  problems: TemplateProblem[],
): Promise<string | undefined> {
  if (!beginsAsMjml(source) || !source.trimEnd().endsWith('</mjml>')) {
    problems.push({ field, message: 'MJML begins with <mjml> and ends with </mjml>', line: 1, column: 1 })
    return undefined
  }
  const { default: mjml2html } = await import('mjml')
  try {
    // Nothing of the server's files is to be read: no mj-include, no configuration.
    const { html, errors } = await mjml2html(source, {
      validationLevel: 'soft',
      ignoreIncludes: true,
      keepComments: false,
      // Of its own accord it would load Google's: whoever opens the mail would tell them. <mj-font> says otherwise.
      fonts: {},
    })
    // A colour or a width that is filled in later is not one yet.
    const mistakes = errors.filter(({ message }) => !/has invalid value: [^]*\{\{/.test(message))
    for (const { line, message } of mistakes) problems.push({ field, message, line, column: 1 })
    return mistakes.length > 0 ? undefined : html
  } catch (error) {
    problems.push({ field, message: (error as Error).message.split('\n')[0]!.slice(0, 300) })
    return undefined
  }
}

async function inlineStyles(html: string): Promise<string> {
  const { default: juice } = await import('juice')
  // Queries and pseudo classes cannot be inlined: they stay in the head for the clients that know them.
  return juice(html, {
    applyStyleTags: true,
    // What others put into a layout is styled by the reader's client, where that knows style sheets.
    removeStyleTags: !html.includes('@partial-block'),
    preserveMediaQueries: true,
    preserveFontFaces: true,
    preservePseudos: true,
    // Off, as they would fetch or rewrite what the author wrote.
    webResources: { links: false, scripts: false, images: false },
  })
}

/** Gmail cuts a mail off beyond this, "[Message clipped]" (https://support.google.com/mail/thread/3350132). */
export const CLIPPED_BYTES = 102 * 1024

/** What is worth knowing about texts that are otherwise fine. */
export interface TemplateWarning {
  /** JSON pointer. */
  field: string
  message: string
}

/** With a bound, or each of many that nothing closes would be looked for to the end. */
const TAGS = /\{\{[^}]{0,4000}\}\}/g

/** Names that always mean something (view.ts). */
const GIVEN = ['event', 'data', 'vars', 'user', 'notification', 'tenant', 'now']
/** More than this nobody reads. */
const MAX_WARNINGS = 100

/** @param shared the tenant's messages, which the texts may say besides their own */
export function warningsOf(given: Texts, shared = NO_MESSAGES): TemplateWarning[] {
  const { channels, translations, locale = 'en', messages = {}, variables = [], partials = {} } = given
  const warnings: TemplateWarning[] = []
  const each = (contents: ChannelContents, pointer: string) => {
    for (const [channel, content] of Object.entries(contents)) {
      const field = `${pointer}/${channel}`
      if (content.html !== undefined && Buffer.byteLength(content.html) > CLIPPED_BYTES) {
        warnings.push({
          field: `${field}/html`,
          message: `Gmail shows only the first ${CLIPPED_BYTES} bytes of a mail`,
        })
      }
      if (channel === 'sms' && content.body !== undefined) {
        const text = content.body.replaceAll(TAGS, '')
        const { encoding, segments } = smsSize(text)
        if (encoding === 'ucs2') {
          const wide = [...text].find(character => smsSize(character).encoding === 'ucs2')
          warnings.push({
            field: `${field}/body`,
            message: `"${wide}" is not in GSM-7: a segment then holds 70 characters, not 160`,
          })
        } else if (segments > 1)
          warnings.push({ field: `${field}/body`, message: 'It takes more than one SMS' })
      }
    }
  }
  each(channels, '/channels')
  for (const [tag, contents] of Object.entries(translations)) {
    if (isOne(contents)) continue
    each(contents, `/translations/${tag}`)
    const missing = Object.keys(channels).filter(
      channel => !(channel in contents) && !('default' in contents),
    )
    if (missing.length > 0) {
      warnings.push({
        field: `/translations/${tag}`,
        message: `Nothing for ${missing.join(', ')}: those are sent in ${locale}`,
      })
    }
  }
  warnings.push(...messageWarnings(messages, locale))
  const called = calledIn(channels, translations, partials)
  for (const name of Object.keys(partials)) {
    if (!called.has(name)) {
      warnings.push({ field: `/partials/${name}`, message: `No text takes in "${name}"` })
    }
  }
  const read = readBy(given, shared)
  warnings.push(...sharedWarnings(read.messages, messages, locale, shared))
  if (variables.length > 0) warnings.push(...variableWarnings(read.fields, variables, given.layouts))
  return warnings.slice(0, MAX_WARNINGS)
}

/** Where variables are declared, what the texts read and what is declared should be the same. */
function* variableWarnings(
  fields: readonly string[],
  variables: readonly TemplateVariable[],
  layouts: Texts['layouts'],
): Iterable<TemplateWarning> {
  const read = new Set<string>()
  for (const path of fields) {
    const [first = '', second] = path.replaceAll('[]', '').split('.')
    if (first === 'data' || first === 'vars') {
      if (second !== undefined) read.add(second)
    } else if (!GIVEN.includes(first)) read.add(first)
  }
  const declared = new Set(variablesWith(variables, layouts).map(({ name }) => name))
  for (const name of read) {
    if (!declared.has(name)) {
      yield { field: '/variables', message: `The texts read "${name}", which is not among the variables` }
    }
  }
  for (const [i, { name }] of variables.entries()) {
    if (!read.has(name)) yield { field: `/variables/${i}`, message: `No text reads "${name}"` }
  }
}
