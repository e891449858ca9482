import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { AppError } from '../server/errors.ts'

/** One command: everything that parsing, running and `--help` need. */
export interface Command {
  /** As typed: `event publish`. */
  name: string
  /** One line, for the list of commands. */
  summary: string
  /** The positional arguments, as help shows them: `<type> [id…]`. */
  args?: string
  /** How many positional arguments it takes. Default: none. */
  arity?: { min: number; max: number }
  options: Record<string, Option>
  /** Further paragraphs of its help. */
  about?: string
  examples?: string[]
  /** Hands everything after its name on unparsed (but for `--help`): it has a parser of its own. */
  raw?: boolean
  /** @returns the exit code; nothing means 0 */
  run(input: Input): Promise<number | void>
}

export interface Option {
  /** Shown as `--name VALUE`; without it the option is a switch. */
  value?: string
  about: string
  short?: string
  /** May be given several times. */
  multiple?: boolean
}

export interface Input {
  args: string[]
  env: NodeJS.ProcessEnv
  /** `--json`: the answer as JSON, for programs. */
  json: boolean
  text(option: string): string | undefined
  list(option: string): string[]
  on(option: string): boolean
  /** One of a few words. @throws UsageError naming them */
  choice<const T extends string>(option: string, words: readonly T[]): T | undefined
}

/** The command was not typed as it must be: exit code 2. */
export class UsageError extends Error {}

/** Options every command has. */
export const COMMON: Record<string, Option> = {
  json: { about: 'Print JSON, for programs' },
  help: { about: 'Show this help', short: 'h' },
}

/** Options of the commands that talk to a running server. */
export const REMOTE: Record<string, Option> = {
  url: { value: 'URL', about: 'Where the server is. Default: CARILLON_URL, or http://127.0.0.1:4400' },
  'data-dir': {
    value: 'FOLDER',
    about: 'Folder whose admin.key is used where neither CARILLON_KEY nor CARILLON_KEY_FILE is set',
  },
}

/** @throws UsageError */
export function readInput(command: Command, argv: string[], env: NodeJS.ProcessEnv): Input {
  const options = { ...command.options, ...COMMON }
  if (command.raw) {
    return makeInput(argv, {}, env)
  }
  let parsed: { values: Record<string, unknown>; positionals: string[] }
  try {
    parsed = parseArgs({
      args: argv,
      allowPositionals: true,
      strict: true,
      options: Object.fromEntries(
        Object.entries(options).map(([name, { value, short, multiple }]) => [
          name,
          {
            type: value === undefined ? ('boolean' as const) : ('string' as const),
            ...(short === undefined ? {} : { short }),
            ...(multiple ? { multiple } : {}),
          },
        ]),
      ),
    })
  } catch (error) {
    // The first sentence says what is wrong; the rest is advice about `--` that fits nothing here.
    throw new UsageError((error as Error).message.split('. ')[0]!.replace(/\.$/, ''))
  }
  const { min, max } = command.arity ?? { min: 0, max: 0 }
  const { length } = parsed.positionals
  if (parsed.values.help !== true) {
    if (length < min) throw new UsageError(`${command.args} is missing`)
    if (length > max) throw new UsageError(`"${parsed.positionals[max]}" is too much`)
  }
  return makeInput(parsed.positionals, parsed.values, env)
}

function makeInput(args: string[], values: Record<string, unknown>, env: NodeJS.ProcessEnv): Input {
  const text = (option: string) => values[option] as string | undefined
  return {
    args,
    env,
    json: values.json === true,
    text,
    list: option => (values[option] as string[] | undefined) ?? [],
    on: option => values[option] === true,
    choice(option, words) {
      const given = text(option)
      const word = words.find(each => each.toLowerCase() === given?.toLowerCase())
      if (given !== undefined && word === undefined) {
        throw new UsageError(`--${option} is none of ${words.join(', ')}`)
      }
      return word
    },
  }
}

/** What `carillon <command> --help` prints. */
export function helpOf(command: Command): string {
  const rows = Object.entries({ ...command.options, ...COMMON }).map(
    ([name, { value, short, about, multiple }]) => [
      `  ${short === undefined ? '    ' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`,
      multiple ? `${about} (several times)` : about,
    ],
  )
  const width = Math.max(...rows.map(([left]) => left!.length)) + 2
  return [
    `${command.summary}.`,
    '',
    `Usage: carillon ${command.name} [options]${command.args === undefined ? '' : ` ${command.args}`}`,
    ...(command.about === undefined ? [] : ['', command.about]),
    '',
    'Options:',
    ...rows.map(([left, right]) => `${left!.padEnd(width)}${right}`),
    ...(command.examples === undefined
      ? []
      : ['', 'Examples:', ...command.examples.map(line => `  ${line}`)]),
    '',
  ].join('\n')
}

/** JSON from an option: the text itself, `@file`, or `-` for standard input. @throws UsageError */
export async function readJson(text: string, option: string): Promise<unknown> {
  const json =
    text === '-' ? await readStdin() : text.startsWith('@') ? readFile(text.slice(1), option) : text
  try {
    return JSON.parse(json)
  } catch {
    throw new UsageError(`--${option} is not JSON`)
  }
}

function readFile(path: string, option: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new UsageError(`--${option}: ${(error as Error).message}`)
  }
}

export async function readStdin(): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

/** As `readJson`, and an object. */
export async function readJsonObject(text: string, option: string): Promise<Record<string, unknown>> {
  const value = await readJson(text, option)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new UsageError(`--${option} is not a JSON object`)
  }
  return value as Record<string, unknown>
}

/** An instant as the API takes it. Without a zone it is the one of this machine. @throws UsageError */
export function readTime(text: string | undefined, option: string): string | undefined {
  if (text === undefined) return undefined
  const at = new Date(text)
  if (Number.isNaN(at.getTime()))
    throw new UsageError(`--${option}: "${text}" is not a time such as 2026-12-24T18:00:00Z`)
  return at.toISOString()
}

/** What an error looks like to the person who typed the command. */
export function describe(error: unknown): string {
  if (error instanceof AppError) {
    return [
      error.message,
      ...(error.errors ?? []).map(({ field, message }) => `  ${field}: ${message}`),
    ].join('\n')
  }
  return error instanceof Error ? error.message : String(error)
}
