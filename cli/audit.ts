import { sql } from '../server/db/pool.ts'
import { auditLedger } from '../server/ledger/audit.ts'
import { type Command, readTime, UsageError } from './command.ts'
import { readConfig, requireDatabase, withDatabase } from './database.ts'
import { print, printJson, style, table } from './print.ts'

type Value = string | number | string[] | null | undefined

const findTenant = sql('cli_find_tenant', 'select id from tenants where name = $1')

export const command: Command = {
  name: 'audit',
  summary: 'Recompute the accounts of every delivery and report any difference',
  about:
    'Reads the rows themselves, not the counters: planned = delivered + sent + failed + bounced + rejected + unknown +\n' +
    'cancelled + expired + suppressed + live, for each tenant, day and channel. Exits with 1 when something differs.',
  options: {
    tenant: { value: 'NAME', about: 'Only this tenant' },
    from: { value: 'TIME', about: 'Only notifications made at or after this time' },
    to: { value: 'TIME', about: 'Only notifications made before this time' },
    'data-dir': { value: 'FOLDER', about: 'Folder of the embedded database' },
  },
  async run(input) {
    const config = readConfig(input)
    requireDatabase(config)
    const [from, to] = [readTime(input.text('from'), 'from'), readTime(input.text('to'), 'to')]
    const differences = await withDatabase(config, async db => {
      const name = input.text('tenant')
      const tenant = name === undefined ? undefined : (await db.one<{ id: number }>(findTenant, [name]))?.id
      if (name !== undefined && tenant === undefined) throw new UsageError(`There is no tenant "${name}"`)
      return auditLedger(db, {
        tenantId: tenant,
        from: from ? new Date(from) : undefined,
        to: to ? new Date(to) : undefined,
      })
    })
    if (input.json) printJson({ differences })
    else if (differences.length === 0) print(`${style('green', '✓')} Everything adds up.`)
    else {
      const columns = [...new Set(differences.flatMap(Object.keys))]
      print(
        table([
          columns,
          ...differences.map(row =>
            columns.map(column => cell((row as unknown as Record<string, Value>)[column])),
          ),
        ]),
      )
      print(`${style('red', '✗')} ${differences.length} differences.`)
    }
    return differences.length === 0 ? 0 : 1
  },
}

const cell = (value: Value): string => (Array.isArray(value) ? value.join(' ') : String(value ?? ''))
