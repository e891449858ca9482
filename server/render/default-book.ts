import { existsSync } from 'node:fs'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Value } from 'typebox/value'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Id, TenantId } from '../types.ts'
import { readBy } from './content.ts'
import { withFileTexts } from './file-texts.ts'
import { tenantMessages } from './message-store.ts'
import type { SharedMessages } from './messages.ts'
import { layoutNames, takenInFirst } from './partials.ts'
import { TemplateBody, templateDefinition } from './routes.ts'
import {
  createTemplate,
  findTemplate,
  layoutsAmong,
  layoutsOf,
  publishable,
  resolveTemplates,
} from './templates.ts'
import type { TemplateDefinition } from './templates.ts'

/**
 * Templates for tenants that have written none of that name: the operator's, else one from a file. Whoever names it
 * first gets a copy, which is the tenant's own from then on: to change it, and to be left alone when a default changes.
 * What a default takes in of others comes with it, unless the tenant has one of that name.
 */
export interface DefaultBook {
  /** Copies what is missing of these names and has a default; ids and unknown names are passed over. */
  adopt(tenantId: TenantId, names: readonly (string | null | undefined)[]): Promise<void>
  /** What comes as files, by name: to begin with. */
  list(): Promise<readonly TemplateDefinition[]>
}

const MAX_FILES = 1_000
const MAX_FILE_BYTES = 1 << 20

export function defaultBook({
  db,
  operator,
  folders,
}: {
  db: Db
  operator: TenantId
  /** Of YAML files, one template each; a later folder's goes before an earlier one's. */
  folders: readonly string[]
}): DefaultBook {
  let files: Promise<ReadonlyMap<string, TemplateDefinition>> | undefined

  function allFiles(): Promise<ReadonlyMap<string, TemplateDefinition>> {
    files ??= readTemplates(folders)
    // A folder that cannot be read now may be mended later.
    files.catch(() => (files = undefined))
    return files
  }
  const fileOf = async (name: string) => (await allFiles()).get(name)

  async function operatorsOf(
    name: string,
    id: Id | undefined,
    takenIn: boolean,
  ): Promise<TemplateDefinition | undefined> {
    const found = id && (await findTemplate(db, operator, id))
    // By its name alone: an id of the operator's says nothing to others.
    if (!found || found.name !== name || found.publishedRevision === null) return undefined
    // What others take in need not be something to send.
    if (!found.enabled && !takenIn) return undefined
    return withMessages(found, await tenantMessages(db, operator))
  }

  async function adoptOne(tenantId: TenantId, definition: TemplateDefinition): Promise<void> {
    const actor = { tenantId, kind: 'system', id: 'defaults' } as const
    const copy = await publishable(
      { ...definition, version: undefined },
      layoutsOf(db, tenantId),
      await tenantMessages(db, tenantId),
    )
    try {
      await db.tx(tx => createTemplate(tx, actor, copy))
    } catch (error) {
      // Somebody else was faster.
      if (!(error instanceof AppError && error.code === 'already_exists')) throw error
    }
  }

  return {
    list: async () => [...(await allFiles()).values()].sort((a, b) => (a.name < b.name ? -1 : 1)),
    async adopt(tenantId, names) {
      let wanted = [...new Set(names.filter((name): name is string => Boolean(name)))]
      const found = new Map<string, TemplateDefinition>()
      let takenIn = false
      // One statement for however many unknown names a bulk brings, and again for what those take in.
      while (wanted.length > 0) {
        const known = await resolveTemplates(db, tenantId, wanted)
        const missing = wanted.filter(name => !known.has(name))
        const theirs =
          tenantId === operator ? new Map<string, Id>() : await resolveTemplates(db, operator, missing)
        wanted = []
        for (const name of missing) {
          const definition = (await operatorsOf(name, theirs.get(name), takenIn)) ?? (await fileOf(name))
          if (!definition) continue
          found.set(name, definition)
          wanted.push(...layoutNames(definition).filter(layout => !found.has(layout)))
        }
        takenIn = true
      }
      for (const definition of takenInFirst([...found.values()], layoutNames)) {
        await adoptOne(tenantId, definition)
      }
    },
  }
}

/** Folders of the templates that come with the product and its solutions, in the order in which they are read. */
export async function shippedTemplates(): Promise<string[]> {
  const root = join(import.meta.dirname, '..', '..')
  const solutions = (await readdir(join(root, 'solutions'), { withFileTypes: true }))
    .filter(entry => entry.isDirectory())
    .map(({ name }) => join(root, 'solutions', name, 'templates'))
    .filter(folder => existsSync(folder))
  return [join(root, 'templates'), ...solutions.sort()]
}

/** What it says of the messages that its owner keeps for all templates becomes its own: whoever copies it has none. */
function withMessages(definition: TemplateDefinition, shared: SharedMessages): TemplateDefinition {
  const base = definition.locale
  const said = readBy(definition, shared).messages
  if (said.length === 0) return definition
  const messages = new Map(Object.entries(definition.messages).map(([tag, byKey]) => [tag, { ...byKey }]))
  const put = (tag: string, key: string, source: string) =>
    void messages.set(tag, { ...messages.get(tag), [key]: source })
  for (const key of said) {
    for (const [tag, byKey] of Object.entries(shared.sources)) {
      if (Object.hasOwn(byKey, key)) put(tag, key, byKey[key]!)
    }
    // A template's own messages end with its own language, so that must have each.
    const [, source] = shared.inWhich(key, base) ?? []
    if (source !== undefined && !Object.hasOwn(messages.get(base) ?? {}, key)) put(base, key, source)
  }
  return { ...definition, messages: Object.fromEntries(messages) }
}

/** @throws Error naming the file and what is wrong with it */
export async function readTemplates(
  folders: readonly string[],
): Promise<ReadonlyMap<string, TemplateDefinition>> {
  const { parse } = await import('yaml')
  const written = new Map<string, TemplateDefinition>()
  const files = new Map<string, string>()
  const naming = async <T>(file: string, work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      throw new Error(`${file}: ${(error as Error).message}`, { cause: error })
    }
  }
  for (const folder of folders) {
    const names = (await readdir(folder)).filter(name => /\.ya?ml$/.test(name)).sort()
    if (names.length > MAX_FILES) throw new Error(`There are more than ${MAX_FILES} templates in ${folder}`)
    for (const name of names) {
      const file = join(folder, name)
      await naming(file, async () => {
        const text = await readFile(file, 'utf8')
        if (text.length > MAX_FILE_BYTES) throw new Error(`It has more than ${MAX_FILE_BYTES} characters`)
        const body = await withFileTexts(parse(text), file)
        if (!Value.Check(TemplateBody, body)) {
          const [error] = Value.Errors(TemplateBody, body)
          throw new Error(`${error?.instancePath || '/'} ${error?.message ?? 'is not a template'}`)
        }
        const definition = templateDefinition(body)
        written.set(definition.name, definition)
        files.set(definition.name, file)
      })
    }
  }
  const found = new Map<string, TemplateDefinition>()
  const layoutsFor = layoutsAmong(written)
  for (const [name, definition] of written) {
    found.set(name, await naming(files.get(name)!, () => publishable(definition, layoutsFor)))
  }
  return found
}
