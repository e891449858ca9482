import { readFile, readdir } from 'node:fs/promises'
import { basename, join, relative, resolve } from 'node:path'
import type { Static } from 'typebox'
import { LineCounter, parseAllDocuments } from 'yaml'
import type { InhibitionDefinition } from '../alerts/inhibition.ts'
import type { InhibitionBody, SilenceBody } from '../alerts/routes.ts'
import { type TimedSilence, standingMemory } from '../alerts/standing-memory.ts'
import { checkInhibition, checkSilence } from '../alerts/store.ts'
import { AppError } from '../errors.ts'
import { validatorCompiler } from '../http/validator.ts'
import { limitDefinition } from '../limits/routes.ts'
import type { LimitDefinition } from '../limits/store.ts'
import { type RuleBody, define } from '../match/routes.ts'
import { compileRule } from '../match/rules.ts'
import type { Rule } from '../match/rules.ts'
import { canonicalLocale, compileRevision, normalizeRevision } from '../render/content.ts'
import type { CompiledRevision } from '../render/content.ts'
import { readTemplates, shippedTemplates } from '../render/default-book.ts'
import { withFileTexts } from '../render/file-texts.ts'
import { checkCatalogue, readLocale } from '../render/message-store.ts'
import { type Messages, NO_MESSAGES, type SharedMessages, sharedMessages } from '../render/messages.ts'
import type { MessagesBody } from '../render/messages-routes.ts'
import { templateDefinition } from '../render/routes.ts'
import { calledIn, takenInFirst } from '../render/partials.ts'
import { compileMarkup } from '../render/publish.ts'
import { type TemplateDefinition, layoutsAmong, publishable } from '../render/templates.ts'
import type { Id } from '../types.ts'
import { BODIES } from './schemas.ts'

/**
 * Rules as code: a folder of YAML whose documents are exactly the bodies that the API takes. What a folder's name says
 * is what its files hold; `*.test.yaml`, anywhere, are stories (story.ts).
 */
export const KINDS = {
  messages: { path: '/api/messages', name: 'locale' },
  templates: { path: '/api/templates', name: 'name' },
  rules: { path: '/api/rules', name: 'name' },
  limits: { path: '/api/limits', name: 'name' },
  silences: { path: '/api/silences', name: 'comment' },
  inhibitions: { path: '/api/inhibitions', name: 'name' },
} as const
export type Kind = keyof typeof KINDS

export interface Resource {
  kind: Kind
  /** Below the folder. */
  file: string
  line: number
  name: string
  body: Record<string, unknown>
}

export interface StoryFile {
  file: string
  line: number
  story: Record<string, unknown>
}

export interface Problem {
  file: string
  line: number
  /** JSON pointer into the document. */
  field: string
  message: string
}

export interface Folder {
  resources: Resource[]
  stories: StoryFile[]
  problems: Problem[]
}

const MAX_FILES = 10_000
const MAX_FILE_BYTES = 1 << 20

/** Reads everything there is; what cannot be read is a problem with its place, not an exception. */
export async function readFolder(dir: string): Promise<Folder> {
  const found: Folder = { resources: [], stories: [], problems: [] }
  const entries = await readdir(dir, { recursive: true, withFileTypes: true })
  const files = entries
    .filter(entry => entry.isFile() && /\.ya?ml$/.test(entry.name))
    .map(entry => relative(dir, join(entry.parentPath, entry.name)))
    .filter(file => !file.split(/[\\/]/).some(part => part === 'node_modules' || part.startsWith('.')))
    .sort()
  if (files.length > MAX_FILES) throw new Error(`There are more than ${MAX_FILES} files in ${dir}`)
  for (const file of files) await readInto(found, dir, file, await readFile(join(dir, file), 'utf8'))
  const seen = new Map<string, Resource>()
  for (const resource of found.resources) {
    const key = `${resource.kind} ${resource.name}`
    const first = seen.get(key)
    if (first) {
      found.problems.push({
        ...place(resource),
        field: '/name',
        message: `"${resource.name}" stands in ${first.file} as well`,
      })
    } else seen.set(key, resource)
  }
  return found
}

const place = ({ file, line }: { file: string; line: number }) => ({ file, line })

async function readInto(found: Folder, dir: string, file: string, text: string): Promise<void> {
  const problem = (line: number, message: string, field = '') =>
    void found.problems.push({ file, line, field, message })
  if (Buffer.byteLength(text) > MAX_FILE_BYTES)
    return problem(1, `The file is larger than ${MAX_FILE_BYTES} bytes`)
  const isStory = /\.test\.ya?ml$/.test(basename(file))
  // The folder itself may be called so.
  const kind = [...file.split(/[\\/]/), basename(resolve(dir))].find((part): part is Kind =>
    Object.hasOwn(KINDS, part),
  )
  if (!isStory && kind === undefined) {
    return problem(1, `Its folder is none of ${Object.keys(KINDS).join(', ')}, and it is no *.test.yaml`)
  }
  const lines = new LineCounter()
  for (const document of parseAllDocuments(text, { lineCounter: lines, uniqueKeys: true })) {
    const line = lines.linePos(document.contents?.range?.[0] ?? document.range?.[0] ?? 0).line
    const [error] = document.errors
    if (error) {
      problem(lines.linePos(error.pos[0]).line, error.message.split('\n')[0]!.replace(/ at line \d+.*$/, ''))
      continue
    }
    const body: unknown = document.toJS({ maxAliasCount: 100 })
    if (body === null) continue
    if (typeof body !== 'object' || Array.isArray(body)) {
      problem(line, 'A document is a mapping of names to values')
      continue
    }
    const fields = body as Record<string, unknown>
    if (isStory) {
      found.stories.push({ file, line, story: fields })
      continue
    }
    const given = fields['name'] ?? (kind && fields[KINDS[kind].name])
    // A language may be spelled in several ways.
    const name = (kind === 'messages' && typeof given === 'string' && canonicalLocale(given)) || given
    if (typeof name !== 'string' || name === '') problem(line, 'It needs a name', '/name')
    else if (kind !== 'templates') found.resources.push({ kind: kind!, file, line, name, body: fields })
    else {
      try {
        const body = (await withFileTexts(fields, join(dir, file))) as typeof fields
        found.resources.push({ kind, file, line, name, body })
      } catch (error) {
        if (!(error instanceof AppError)) throw error
        for (const { field, message } of error.errors!) problem(line, message, field)
      }
    }
  }
}

/** What the stories run on: everything as the server would hold it. */
export interface Compiled {
  rules: Rule[]
  templates: Map<string, CompiledRevision>
  /** What they say besides their own messages. */
  messages: SharedMessages
  limits: (LimitDefinition & { id: Id })[]
  /** One without `startsAt` is in force from the beginning. */
  silences: TimedSilence[]
  inhibitions: InhibitionDefinition[]
}

/** An id that is the same for the same thing, so that two runs can be compared. */
const idOf = (kind: number, n: number) =>
  `00000000-0000-7000-8000-${kind.toString(16).padStart(2, '0')}${n.toString(16).padStart(10, '0')}`

const bodyChecks = validatorCompiler()
const checks = Object.fromEntries(
  Object.entries(BODIES).map(([kind, schema]) => [
    kind,
    bodyChecks({ schema, httpPart: 'body', method: 'POST', url: KINDS[kind as Kind].path }),
  ]),
) as Record<Kind, (body: unknown) => { error?: Error }>

/**
 * The document as the server would take it: of the right shape, with its defaults.
 *
 * @throws AppError naming each wrong field
 */
function checked<T>({ kind, name, body }: Resource): T {
  // YAML has dates of its own; the API has text. A silence has no name but its comment, messages none but their language.
  const given = JSON.parse(JSON.stringify({ ...body, [KINDS[kind].name]: name })) as unknown
  const { error } = checks[kind](given) ?? {}
  if (error) throw error
  return given as T
}

/** Checks and compiles everything as the server does when it is saved; problems name file and field. */
export async function compileFolder({ resources }: Folder): Promise<Compiled & { problems: Problem[] }> {
  const problems: Problem[] = []
  const compiled: Compiled = {
    rules: [],
    templates: new Map(),
    messages: NO_MESSAGES,
    limits: [],
    silences: [],
    inhibitions: [],
  }
  const ids = new Map<string, string>()
  const attempt = async (resource: Resource, work: () => Promise<void> | void) => {
    try {
      await work()
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      for (const { field, message } of error.errors ?? [{ field: '', message: error.message }]) {
        problems.push({ ...place(resource), field, message })
      }
    }
  }
  const each = async (kind: Kind, work: (resource: Resource, n: number) => Promise<void> | void) => {
    for (const [n, resource] of resources.filter(one => one.kind === kind).entries()) {
      await attempt(resource, () => work(resource, n + 1))
    }
  }

  const sources: Messages = {}
  await each('messages', resource => {
    const { locale: tag, messages = {} } = checked<Static<typeof MessagesBody>>(resource)
    const locale = readLocale(tag, '/locale')
    checkCatalogue(locale, messages)
    sources[locale] = messages
  })
  compiled.messages = sharedMessages(sources)
  const written = new Map<string, TemplateDefinition>()
  await each('templates', resource => {
    written.set(resource.name, templateDefinition(checked(resource)))
  })
  const layoutsFor = layoutsAmong(written)
  await each('templates', async (resource, n) => {
    const templateId = idOf(1, n)
    // A rule may name it even while it is wrong itself.
    ids.set(resource.name, templateId)
    const template = written.get(resource.name)
    if (!template) return
    const definition = await publishable(template, layoutsFor, compiled.messages)
    compiled.templates.set(templateId, compileRevision({ ...definition, templateId, revision: 1 }))
  })
  let shipped: ReadonlyMap<string, TemplateDefinition> | undefined
  /** A template that a rule may name without the folder having it, as on a server (default-book.ts). */
  const comesWithUs = async (name: string): Promise<boolean> => {
    shipped ??= await readTemplates(await shippedTemplates())
    const definition = shipped.get(name)
    if (!definition) return false
    const templateId = idOf(5, ids.size + 1)
    ids.set(name, templateId)
    compiled.templates.set(templateId, compileRevision({ ...definition, templateId, revision: 1 }))
    return true
  }

  await each('rules', async (resource, n) => {
    // A rule holds from when it is saved; in stories it holds from the beginning.
    const definition = define(checked<Static<typeof RuleBody>>(resource), new Date(0))
    const { templateId, policy } = definition
    for (const [field, template] of [
      ['/templateId', templateId],
      ['/policy/digest/template', policy.digest?.template],
    ] as const) {
      if (template !== undefined && !ids.has(template) && !(await comesWithUs(template))) {
        throw new AppError('invalid_rule', `There is no template "${template}" in this folder`, { field })
      }
    }
    if (!definition.enabled) return
    compiled.rules.push(
      compileRule(
        { ...definition, ...(templateId === undefined ? {} : { templateId: ids.get(templateId)! }) },
        { id: idOf(2, n), no: n, revision: 1, tenantId: 1 },
      ),
    )
  })
  await each('limits', (resource, n) => {
    const definition = limitDefinition(checked(resource))
    if (definition.enabled) compiled.limits.push({ ...definition, id: idOf(3, n) })
  })
  await each('silences', (resource, n) => {
    const { startsAt, endsAt, ...silence } = checked<Static<typeof SilenceBody>>(resource)
    const timed: TimedSilence = {
      ...silence,
      id: idOf(4, n),
      startsAt: new Date(startsAt ?? 0),
      endsAt: new Date(endsAt),
    }
    // What is over by now is left alone, but it must have been possible.
    if (startsAt !== undefined) checkSilence({ ...silence, ...timed }, timed.startsAt)
    else standingMemory([timed], [])
    compiled.silences.push(timed)
  })
  await each('inhibitions', resource => {
    const inhibition = checked<Static<typeof InhibitionBody>>(resource)
    checkInhibition(inhibition)
    if (inhibition.enabled) compiled.inhibitions.push(inhibition)
  })
  return { ...compiled, problems }
}

/**
 * The document as the server shows it once it is saved: the one spelling of channels, priorities, selectors and times,
 * and every default. Of a document that is valid.
 */
export async function asShown(resource: Resource): Promise<Record<string, unknown>> {
  const shown = async (): Promise<object> => {
    switch (resource.kind) {
      case 'messages': {
        const { messages = {} } = checked<Static<typeof MessagesBody>>(resource)
        return { locale: resource.name, messages }
      }
      case 'templates':
        // What it takes in of others is the server's to find.
        return normalizeRevision(await compileMarkup(templateDefinition(checked(resource))))
      case 'rules': {
        const { recipients, validFrom, ...rule } = define(checked(resource), new Date(0))
        // Unless the document says from when, it is from whenever the rule was made.
        return {
          ...rule,
          recipientSelector: recipients,
          ...(resource.body['validFrom'] != null && { validFrom }),
        }
      }
      case 'limits':
        return limitDefinition(checked(resource))
      case 'silences': {
        const { startsAt, endsAt, ...silence } = checked<Static<typeof SilenceBody>>(resource)
        return {
          ...silence,
          ...(startsAt !== undefined && { startsAt: new Date(startsAt) }),
          endsAt: new Date(endsAt),
        }
      }
      case 'inhibitions':
        return checked(resource)
    }
  }
  return JSON.parse(JSON.stringify(await shown())) as Record<string, unknown>
}

/** Templates in an order in which each can be saved. */
export const inOrder = (templates: readonly Resource[]): Resource[] =>
  takenInFirst(templates, ({ body }) => calledIn(body))
