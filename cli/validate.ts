import { compileFolder, readFolder } from '../server/replay/files.ts'
import type { Folder, Problem } from '../server/replay/files.ts'
import { readStory } from '../server/replay/story.ts'
import { AppError } from '../server/errors.ts'
import type { Command } from './command.ts'
import { complain, print, printJson } from './print.ts'

export const command: Command = {
  name: 'validate',
  summary: 'Check a folder of rules, templates, messages, limits, silences, inhibitions and stories',
  about:
    'Needs no server. Every document is checked as the server would check it when it is saved; what is wrong is shown\n' +
    'with its file, line and field. Exit code 1 when anything is.',
  args: '[folder]',
  arity: { min: 0, max: 1 },
  options: {},
  examples: ['carillon validate notifications/', 'carillon validate --json . | jq .problems'],
  async run(input) {
    const folder = await readFolder(input.args[0] ?? '.')
    const problems = await problemsOf(folder)
    if (input.json)
      printJson({ resources: folder.resources.length, stories: folder.stories.length, problems })
    else {
      for (const problem of problems) complain(describeProblem(problem))
      print(
        `${folder.resources.length} resources, ${folder.stories.length} stories, ${problems.length} problems`,
      )
    }
    return problems.length === 0 ? 0 : 1
  },
}

export const describeProblem = ({ file, line, field, message }: Problem): string =>
  `${file}:${line}${field === '' ? '' : ` ${field}`}: ${message}`

/** Everything that is wrong with a folder, in the order of files. */
export async function problemsOf(folder: Folder): Promise<Problem[]> {
  const problems = [...folder.problems, ...(await compileFolder(folder)).problems]
  for (const { file, line, story } of folder.stories) {
    try {
      readStory(story, file)
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      for (const { field, message } of error.errors ?? [{ field: '', message: error.message }]) {
        problems.push({ file, line, field, message })
      }
    }
  }
  return problems.sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.line - b.line))
}
