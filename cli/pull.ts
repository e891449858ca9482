import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { KINDS } from '../server/replay/files.ts'
import type { Kind } from '../server/replay/files.ts'
import { createClient } from './client.ts'
import type { Client } from './client.ts'
import { type Command, REMOTE, UsageError } from './command.ts'
import { print, printJson } from './print.ts'
import { asWritten, held } from './sync.ts'

export const command: Command = {
  name: 'pull',
  summary: "Write the server's rules, templates, messages, limits, silences and inhibitions into a folder",
  about: 'One file each, named after what it holds; a "push" of it right away does nothing.',
  args: '<folder>',
  arity: { min: 1, max: 1 },
  options: { ...REMOTE },
  examples: ['carillon pull notifications/'],
  async run(input) {
    const [dir] = input.args
    if (dir === undefined) throw new UsageError('Say into which folder')
    const written = await pull(createClient(input), dir)
    if (input.json) printJson({ written })
    else print(`${written.length} files written to ${dir}`)
    return 0
  },
}

/** Writes everything that a server holds; answers the files. */
export async function pull(client: Client, dir: string): Promise<string[]> {
  const names = new Map<string, string>()
  const written: string[] = []
  for (const kind of Object.keys(KINDS) as Kind[]) {
    const items = await held(client, kind)
    if (kind === 'templates') for (const [name, { id }] of items) names.set(id, name)
    if (items.size > 0) await mkdir(join(dir, kind), { recursive: true })
    const taken = new Set<string>()
    for (const [name, item] of items) {
      const file = join(kind, `${freeName(name, taken)}.yaml`)
      const body = asWritten(kind, item, names)
      // A rule holds from when it is made, wherever it is made.
      delete body['validFrom']
      await writeFile(join(dir, file), stringify({ [KINDS[kind].name]: name, ...body }, { lineWidth: 110 }))
      written.push(file)
    }
  }
  return written
}

/** A file name of letters and digits, whatever the thing is called; numbered where two would be one. */
function freeName(name: string, taken: Set<string>): string {
  const base =
    name
      .normalize('NFKD')
      .toLowerCase()
      .replaceAll(/[^a-z0-9]+/g, '-')
      .replaceAll(/^-+|-+$/g, '')
      .slice(0, 80) || 'unnamed'
  let free = base
  for (let n = 2; taken.has(free); n++) free = `${base}-${n}`
  taken.add(free)
  return free
}
