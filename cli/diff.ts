import { readFolder } from '../server/replay/files.ts'
import { createClient } from './client.ts'
import { type Command, REMOTE } from './command.ts'
import { complain, print, printJson } from './print.ts'
import { compare, describeChange } from './sync.ts'
import { describeProblem, problemsOf } from './validate.ts'

export const command: Command = {
  name: 'diff',
  summary: 'Show what "push" would change on the server',
  about: 'Exit code 0 when there is nothing to do, 1 when there is.',
  args: '[folder]',
  arity: { min: 0, max: 1 },
  options: { ...REMOTE },
  examples: ['carillon diff notifications/'],
  async run(input) {
    const folder = await readFolder(input.args[0] ?? '.')
    const problems = await problemsOf(folder)
    for (const problem of problems) complain(describeProblem(problem))
    if (problems.length > 0) return 1
    const changes = await compare(createClient(input), folder.resources)
    if (input.json) printJson({ changes: changes.map(({ body: _, ...change }) => change) })
    else for (const change of changes) print(describeChange(change))
    if (!input.json) print(changes.length === 0 ? 'Nothing to do.' : `${changes.length} to change`)
    return changes.length === 0 ? 0 : 1
  },
}
