import { readFile, readdir } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import { LineCounter, parseAllDocuments } from 'yaml'
import { AppError } from '../errors.ts'
import { compileRule, ruleDefinition } from '../match/rules.ts'
import type { Rule } from '../match/rules.ts'
import { compileRevision } from '../render/content.ts'
import type { CompiledRevision } from '../render/content.ts'
import { publishable } from '../render/templates.ts'
import { readChannel } from '../spelling.ts'

/**
 * Rules as code: a folder of YAML whose documents are exactly the bodies that the API takes. What a folder's name says
 * is what its files hold; `*.test.yaml`, anywhere, are stories (story.ts).
 */
export const KINDS = {
  templates: { path: '/api/templates' },
  rules: { path: '/api/rules' },
  limits: { path: '/api/limits' },
  silences: { path: '/api/silences' },
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
  for (const file of files) readInto(found, file, await readFile(join(dir, file), 'utf8'))
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

function readInto(found: Folder, file: string, text: string): void {
  const problem = (line: number, message: string, field = '') =>
    void found.problems.push({ file, line, field, message })
  if (Buffer.byteLength(text) > MAX_FILE_BYTES)
    return problem(1, `The file is larger than ${MAX_FILE_BYTES} bytes`)
  const isStory = /\.test\.ya?ml$/.test(basename(file))
  const kind = file.split(/[\\/]/).find((part): part is Kind => Object.hasOwn(KINDS, part))
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
    const name = fields['name'] ?? (kind === 'silences' ? fields['comment'] : undefined)
    if (typeof name !== 'string' || name === '') problem(line, 'It needs a name', '/name')
    else found.resources.push({ kind: kind!, file, line, name, body: fields })
  }
}

/** What the stories run on: rules and templates as the server would hold them. */
export interface Compiled {
  rules: Rule[]
  templates: Map<string, CompiledRevision>
}

/** An id that is the same for the same thing, so that two runs can be compared. */
const idOf = (kind: number, n: number) =>
  `00000000-0000-7000-8000-${kind.toString(16).padStart(2, '0')}${n.toString(16).padStart(10, '0')}`

/** Checks and compiles rules and templates as the server does when they are saved; problems name file and field. */
export async function compileFolder(
  { resources }: Folder,
  now: Date,
): Promise<Compiled & { problems: Problem[] }> {
  const problems: Problem[] = []
  const templates = new Map<string, CompiledRevision>()
  const ids = new Map<string, string>()
  const attempt = async (resource: Resource, work: () => Promise<void>) => {
    try {
      await work()
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      const details = error.errors ?? [{ field: '', message: error.message }]
      for (const { field, message } of details) {
        const pointer = field === '' || field.startsWith('/') ? field : `/${field.replaceAll('.', '/')}`
        problems.push({
          ...place(resource),
          field: pointer.replace(/^\/recipients\b/, '/recipientSelector'),
          message,
        })
      }
    }
  }

  for (const [n, resource] of resources.filter(({ kind }) => kind === 'templates').entries()) {
    await attempt(resource, async () => {
      const { body, name } = resource
      const definition = await publishable({
        description: '',
        category: '',
        tags: [],
        enabled: true,
        locale: 'en',
        channels: {},
        translations: {},
        variables: [],
        ...body,
        name,
      })
      const templateId = idOf(1, n + 1)
      ids.set(name, templateId)
      templates.set(templateId, compileRevision({ ...definition, templateId, revision: 1 }))
    })
  }
  const rules: Rule[] = []
  for (const [n, resource] of resources.filter(({ kind }) => kind === 'rules').entries()) {
    await attempt(resource, async () => {
      const { recipientSelector, validFrom, ...body } = resource.body
      const names = (list: unknown) =>
        Array.isArray(list) ? list.map(one => readChannel(String(one)) ?? one) : list
      const definition = ruleDefinition(
        {
          ...body,
          channels: names(body['channels']),
          fallbackChannels: names(body['fallbackChannels'] ?? []),
          recipients: recipientSelector,
          // A rule holds from when it is saved; in stories it holds from the beginning.
          validFrom: validFrom ?? new Date(0),
        },
        now,
      )
      const { templateId } = definition
      if (templateId !== undefined && !ids.has(templateId)) {
        throw new AppError('invalid_rule', `There is no template "${templateId}" in this folder`, {
          field: '/templateId',
        })
      }
      if (definition.enabled) {
        rules.push(
          compileRule(
            { ...definition, ...(templateId === undefined ? {} : { templateId: ids.get(templateId)! }) },
            { id: idOf(2, n + 1), no: n + 1, revision: 1, tenantId: 1 },
          ),
        )
      }
    })
  }
  return { rules, templates, problems }
}
