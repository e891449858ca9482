import { readFolder } from '../server/replay/files.ts'
import { createClient } from './client.ts'
import { type Command, REMOTE } from './command.ts'
import { complain, print, printJson } from './print.ts'
import { apply, compare, describeChange } from './sync.ts'
import { describeProblem, problemsOf } from './validate.ts'

export const command: Command = {
  name: 'push',
  summary: 'Bring the rules, templates, messages, limits, silences and inhibitions of a folder to the server',
  about:
    'What is there already is left alone, so that a second push does nothing. What the server has and the folder has\n' +
    'not is left as well, unless --prune switches it off; silences it ends.',
  args: '[folder]',
  arity: { min: 0, max: 1 },
  options: {
    prune: { about: 'Switch off what the folder does not have' },
    ...REMOTE,
  },
  examples: ['carillon push notifications/', 'carillon push --prune notifications/'],
  async run(input) {
    const folder = await readFolder(input.args[0] ?? '.')
    const problems = await problemsOf(folder)
    for (const problem of problems) complain(describeProblem(problem))
    if (problems.length > 0) return 1
    const client = createClient(input)
    const changes = (await compare(client, folder.resources)).filter(
      change => change.what !== 'disable' || input.on('prune'),
    )
    for (const change of changes) {
      await apply(client, change)
      if (!input.json) print(describeChange(change))
    }
    if (input.json) printJson({ changed: changes.map(({ body: _, ...change }) => change) })
    else print(changes.length === 0 ? 'Nothing to do.' : `${changes.length} changed`)
    return 0
  },
}
