import { ConfigError } from '../server/config.ts'
import { ApiError } from './client.ts'
import { type Command, describe, helpOf, readInput, UsageError } from './command.ts'
import { complain, print } from './print.ts'

/** Each is loaded only when it is asked for: `carillon --help` must not load a server. */
const COMMANDS: Record<string, () => Promise<{ command: Command }>> = {
  start: () => import('./start.ts'),
  doctor: () => import('./doctor.ts'),
  migrate: () => import('./migrate.ts'),
  'key create': () => import('./key-create.ts'),
  send: () => import('./send.ts'),
  'event publish': () => import('./event-publish.ts'),
  beat: () => import('./beat.ts'),
  why: () => import('./why.ts'),
  tail: () => import('./tail.ts'),
  audit: () => import('./audit.ts'),
  redrive: () => import('./redrive.ts'),
  'schedule next': () => import('./schedule.ts'),
  validate: () => import('./validate.ts'),
  test: () => import('./test.ts'),
  schema: () => import('./schema.ts'),
  replay: () => import('./replay.ts'),
  diff: () => import('./diff.ts'),
  push: () => import('./push.ts'),
  pull: () => import('./pull.ts'),
}

const OK = 0
const FAILED = 1
const MISUSED = 2

async function main(argv: string[]): Promise<number> {
  const found = findCommand(argv)
  if (found === undefined) {
    const [first] = argv
    if (first === undefined || first === '--help' || first === '-h' || first === 'help') {
      print(await overview())
      return first === undefined ? MISUSED : OK
    }
    if (first === '--version' || first === '-v') {
      print(await version())
      return OK
    }
    complain(`"${first}" is not a command of carillon; see "carillon --help".`)
    return MISUSED
  }
  const { command } = await COMMANDS[found.name]!()
  try {
    if (asksForHelp(found.rest)) {
      print(helpOf(command))
      return OK
    }
    return (await command.run(readInput(command, found.rest, process.env))) ?? OK
  } catch (error) {
    if (error instanceof UsageError) {
      complain(`${error.message}. See "carillon ${command.name} --help".`.replace(/\.\. See/, '. See'))
      return MISUSED
    }
    if (error instanceof ConfigError) {
      complain(error.message)
      return MISUSED
    }
    // A program that asked for JSON gets the problem as the server gave it.
    if (error instanceof ApiError && argv.includes('--json') && error.problem !== undefined) {
      complain(JSON.stringify(error.problem))
    } else complain(describe(error))
    return FAILED
  }
}

function asksForHelp(rest: string[]): boolean {
  const end = rest.indexOf('--')
  return rest.slice(0, end === -1 ? undefined : end).some(arg => arg === '--help' || arg === '-h')
}

function findCommand(argv: string[]): { name: string; rest: string[] } | undefined {
  for (const words of [2, 1]) {
    const name = argv.slice(0, words).join(' ')
    if (Object.hasOwn(COMMANDS, name)) return { name, rest: argv.slice(words) }
  }
  return undefined
}

async function overview(): Promise<string> {
  const commands = await Promise.all(Object.values(COMMANDS).map(load => load()))
  const width = Math.max(...Object.keys(COMMANDS).map(name => name.length)) + 2
  return [
    `Carillon ${await version()}: events in, the right notification out.`,
    '',
    'Usage: carillon <command> [options]',
    '',
    ...commands.map(({ command }) => `  ${command.name.padEnd(width)}${command.summary}`),
    '',
    '"carillon <command> --help" says more. Commands that talk to a running server use CARILLON_URL and',
    'CARILLON_KEY; without a key, the one the embedded server keeps in its data folder.',
    'Exit codes: 0 done, 1 failed, 2 not understood.',
  ].join('\n')
}

async function version(): Promise<string> {
  const { default: manifest } = await import('../package.json', { with: { type: 'json' } })
  return manifest.version
}

// `carillon … | head` closes our output early: that is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

process.exitCode = await main(process.argv.slice(2))
