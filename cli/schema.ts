import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SCHEMA_NAMES, schemaOf } from '../server/replay/schemas.ts'
import { type Command, UsageError } from './command.ts'
import { print, printJson } from './print.ts'

export const command: Command = {
  name: 'schema',
  summary: 'Print the JSON Schema of rules, templates, messages, limits, silences, inhibitions or stories',
  about:
    'For editors and generators; needs no server. With --dir every schema is written as <kind>.schema.json, and an editor\n' +
    'that knows YAML finds it by a first line such as  # yaml-language-server: $schema=../schemas/rules.schema.json',
  args: '[kind]',
  arity: { min: 0, max: 1 },
  options: { dir: { value: 'FOLDER', about: 'Write all of them there' } },
  examples: ['carillon schema rules', 'carillon schema --dir notifications/schemas'],
  async run(input) {
    const [kind] = input.args
    const dir = input.text('dir')
    const name = SCHEMA_NAMES.find(one => one === kind)
    if (kind !== undefined && name === undefined) {
      throw new UsageError(`"${kind}" is none of ${SCHEMA_NAMES.join(', ')}`)
    }
    if (dir !== undefined) {
      await mkdir(dir, { recursive: true })
      const names = name === undefined ? SCHEMA_NAMES : [name]
      for (const one of names) {
        await writeFile(join(dir, `${one}.schema.json`), `${JSON.stringify(schemaOf(one), null, 2)}\n`)
      }
      if (input.json) printJson({ written: names.map(one => `${one}.schema.json`) })
      else print(`${names.length} files written to ${dir}`)
      return 0
    }
    printJson(
      name === undefined ? Object.fromEntries(SCHEMA_NAMES.map(one => [one, schemaOf(one)])) : schemaOf(name),
    )
    return 0
  },
}
