import { loadConfig } from '../server/config.ts'
import { compileFolder, readFolder } from '../server/replay/files.ts'
import { readStory, runStory } from '../server/replay/story.ts'
import type { Report } from '../server/replay/story.ts'
import { besideOf } from '../server/solution.ts'
import { SOLUTIONS } from '../solutions/index.ts'
import type { Command } from './command.ts'
import { complain, print, printJson } from './print.ts'
import { describeProblem, problemsOf } from './validate.ts'

export const command: Command = {
  name: 'test',
  summary: 'Run the *.test.yaml stories of a folder',
  about:
    'Needs no server and no database: the stories run on the same rules, preferences, times, limits and digests as the\n' +
    'server does, under a clock of their own. Exit code 1 when a story fails or the folder is not valid.',
  args: '[folder]',
  arity: { min: 0, max: 1 },
  options: {
    only: { value: 'TEXT', about: 'Only stories with this in their name' },
    tap: { about: 'Print TAP version 14, for build servers' },
  },
  examples: ['carillon test notifications/', 'carillon test --tap . > stories.tap'],
  async run(input) {
    const folder = await readFolder(input.args[0] ?? '.')
    const problems = await problemsOf(folder)
    if (problems.length > 0) {
      for (const problem of problems) complain(describeProblem(problem))
      return 1
    }
    const compiled = await compileFolder(folder)
    const only = input.text('only')
    const stories = folder.stories
      .map(({ file, line, story }) => ({ file, line, story: readStory(story, file) }))
      .filter(({ story }) => only === undefined || story.name.includes(only))
    if (stories.length === 0) {
      complain('There is no story to run.')
      return 1
    }
    // As a server without settings of its own has them: a story is the same everywhere.
    const beside = besideOf(SOLUTIONS, loadConfig({}, [], undefined, SOLUTIONS).solutions)
    const reports: (Report & { file: string; line: number })[] = []
    for (const { file, line, story } of stories)
      reports.push({ file, line, ...(await runStory(story, compiled, beside)) })
    const failed = reports.filter(report => !report.passed)
    if (input.json)
      printJson({
        passed: reports.length - failed.length,
        failed: failed.length,
        stories: reports.map(shown),
      })
    else if (input.on('tap')) print(tap(reports))
    else {
      for (const { passed, name, file, line, failures } of reports) {
        print(`${passed ? '✔' : '✖'} ${name}${passed ? '' : ` (${file}:${line})`}`)
        for (const failure of failures) print(indented(failure, '    '))
      }
      print(`${reports.length - failed.length} passed, ${failed.length} failed`)
    }
    return failed.length === 0 ? 0 : 1
  },
}

const shown = ({ name, file, line, passed, failures }: Report & { file: string; line: number }) => ({
  name,
  file,
  line,
  passed,
  failures,
})

const indented = (text: string, by: string): string => text.replaceAll(/^/gm, by)

/** https://testanything.org/tap-version-14-specification.html */
function tap(reports: readonly (Report & { file: string; line: number })[]): string {
  const lines = ['TAP version 14', `1..${reports.length}`]
  for (const [i, { passed, name, file, line, failures }] of reports.entries()) {
    lines.push(`${passed ? 'ok' : 'not ok'} ${i + 1} - ${name.replaceAll(/[\\#]/g, '\\$&')}`)
    if (!passed)
      lines.push(
        '  ---',
        `  at: ${file}:${line}`,
        '  message: |',
        ...failures.map(one => indented(one, '    ')),
        '  ...',
      )
  }
  return lines.join('\n')
}
