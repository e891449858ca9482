import { migrate, pendingMigrations } from '../server/db/migrate.ts'
import type { Command } from './command.ts'
import { readConfig, withDatabase } from './database.ts'
import { print, printJson } from './print.ts'

export const command: Command = {
  name: 'migrate',
  summary: 'Bring the database to the shape this version needs',
  about:
    'The server does it by itself when it starts. Run it beforehand where the server may not, or with --check to see\n' +
    'what a new version would do. Several may run at once: one works, the others wait.',
  options: {
    check: { about: 'Change nothing; exit with 1 when something is to be applied' },
    'data-dir': { value: 'FOLDER', about: 'Folder of the embedded database' },
  },
  async run(input) {
    const config = readConfig(input)
    const check = input.on('check')
    const names = await withDatabase(config, db => (check ? pendingMigrations(db) : migrate(db)))
    if (input.json) printJson(check ? { pending: names } : { applied: names })
    else if (names.length === 0) print('Nothing to apply.')
    else for (const name of names) print(`${check ? 'pending' : 'applied'}  ${name}`)
    return check && names.length > 0 ? 1 : 0
  },
}
