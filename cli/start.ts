import { listSettings, loadConfig } from '../server/config.ts'
import type { Command } from './command.ts'
import { complain } from './print.ts'

const flags = listSettings().flatMap(one =>
  one.flag === undefined
    ? []
    : [[one.flag, { value: 'VALUE', about: `${one.about} (${one.name})` }] as const],
)

export const command: Command = {
  name: 'start',
  summary: 'Run the server until it is told to stop',
  about:
    'Everything else is set by variables: docs/reference/configuration.md lists them. Ctrl-C or SIGTERM lets running\n' +
    'work finish first; a second one stops at once.',
  options: Object.fromEntries(flags),
  examples: [
    'carillon start',
    'carillon start --port 8080 --data-dir /var/lib/carillon',
    'carillon start --role api,plan',
  ],
  raw: true,
  async run({ args, env }) {
    const { SOLUTIONS } = await import('../solutions/index.ts')
    const config = loadConfig(env, args, undefined, SOLUTIONS)
    for (const warning of config.warnings) complain(`Warning: ${warning}`)
    const stopped = stopSignal()
    const { run } = await import('../server/main.ts')
    const server = await run(config)
    await stopped
    await server.stop()
  },
}

/** Resolves at the first signal to stop; the second one ends the process. */
function stopSignal(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  let asked = false
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (asked) process.exit(1)
      asked = true
      resolve()
    })
  }
  return promise
}
