import { open, realpath } from 'node:fs/promises'
import { dirname, join, sep } from 'node:path'
import { AppError } from '../errors.ts'
import { MAX_SOURCE } from './template.ts'

/** Texts of a template that may stand in files of their own: all but its data, which are objects anyway. */
export const FILE_FIELDS = ['subject', 'title', 'body', 'html', 'htmlBody', 'mjml']
/** A character takes at most three bytes for each of its UTF-16 units. */
const MAX_BYTES = 3 * MAX_SOURCE

/**
 * A template as its YAML file has it, with the texts that stand beside it in place of `{ file: email/goal.hbs }`. Paths
 * are below the folder of the YAML file, and so is what they lead to, through links as well.
 *
 * @param file the YAML file
 * @throws AppError invalid_template naming the field of each file that cannot be read
 */
export async function withFileTexts(body: unknown, file: string): Promise<unknown> {
  if (!isObject(body)) return body
  const errors: { field: string; message: string }[] = []
  const text = async (value: unknown, field: string): Promise<unknown> => {
    if (!isObject(value) || typeof value['file'] !== 'string' || Object.keys(value).length !== 1) return value
    try {
      return await readBeside(file, value['file'])
    } catch (error) {
      errors.push({ field, message: `${value['file']}: ${(error as Error).message}` })
      return ''
    }
  }
  const members = async (
    of: unknown,
    field: string,
    each: (value: unknown, field: string, key: string) => Promise<unknown>,
  ): Promise<unknown> => {
    if (!isObject(of)) return of
    const all: [string, unknown][] = []
    for (const [key, value] of Object.entries(of)) {
      all.push([key, await each(value, `${field}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`, key)])
    }
    return Object.fromEntries(all)
  }
  const content = (value: unknown, field: string) =>
    members(value, field, async (member, at, key) => (FILE_FIELDS.includes(key) ? text(member, at) : member))
  // A translation is one content for all channels, or contents by channel.
  const either = (value: unknown, field: string) =>
    members(value, field, async (member, at, key) =>
      FILE_FIELDS.includes(key) ? text(member, at) : key === 'data' ? member : content(member, at),
    )

  const written: unknown = await members(body, '', (value, field, key) => {
    if (key === 'channels') return members(value, field, content)
    if (key === 'translations') return members(value, field, either)
    if (key === 'partials') return members(value, field, text)
    return Promise.resolve(value)
  })
  const [first] = errors
  if (first) throw new AppError('invalid_template', `${first.field}: ${first.message}`, { errors })
  return written
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

async function readBeside(yaml: string, path: string): Promise<string> {
  if (!/^[\w-][\w.-]*(\/[\w-][\w.-]*)*$/.test(path)) {
    throw new Error('it is a path below the folder of its YAML file, such as email/goal.hbs')
  }
  const folder = await realpath(dirname(yaml))
  const file = await realpath(join(folder, path)).catch(() => {
    throw new Error('there is no such file')
  })
  if (!file.startsWith(folder + sep)) throw new Error('it leads out of its folder')
  const handle = await open(file)
  try {
    const found = await handle.stat()
    if (!found.isFile()) throw new Error('it is no file')
    if (found.size > MAX_BYTES) throw new Error(`it has more than ${MAX_BYTES} bytes`)
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await handle.readFile())
    // The line break that ends a file is the editor's, not the text's.
    return text.replace(/\r?\n$/, '')
  } catch (error) {
    if (error instanceof TypeError) throw new Error('it is not UTF-8', { cause: error })
    throw error
  } finally {
    await handle.close()
  }
}
