import pg from 'pg'

/**
 * A statement with a name: the name shows in pg_stat_statements comments, errors and slow-query logs, and lets
 * the driver prepare it once per connection.
 */
export interface Statement {
  name: string
  text: string
}

export const sql = (name: string, text: string): Statement => ({ name, text: `-- ${name}\n${text}` })

/** What runs statements: the pool itself, or one transaction. Rows come back as plain objects. */
export interface Queryable {
  rows<R>(statement: Statement, values?: unknown[]): Promise<R[]>
  /** The first row, or undefined. */
  one<R>(statement: Statement, values?: unknown[]): Promise<R | undefined>
  /** How many rows the statement touched. */
  run(statement: Statement, values?: unknown[]): Promise<number>
}

export interface Tx extends Queryable {
  client: pg.PoolClient
}

export interface Db extends Queryable {
  pool: pg.Pool
  url: string
  /** One transaction: committed when `work` resolves, rolled back when it throws. */
  tx<T>(work: (tx: Tx) => Promise<T>): Promise<T>
  /** A connection outside the pool, for LISTEN and advisory locks; the caller ends it. */
  connect(applicationName: string): Promise<pg.Client>
  close(): Promise<void>
}

// int8 and numeric counts of ours stay far below 2^53; as numbers they are JSON numbers at every surface.
const types = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    oid === pg.types.builtins.INT8 && format !== 'binary' ? Number : pg.types.getTypeParser(oid, format),
}

export function openDb(url: string, options: { max?: number; applicationName?: string } = {}): Db {
  const settings = { connectionString: url, types, application_name: options.applicationName ?? 'carillon' }
  const pool = new pg.Pool({ ...settings, max: options.max ?? 10, idleTimeoutMillis: 30_000 })
  // An idle connection that the server drops would otherwise end the process; the next query reconnects.
  pool.on('error', () => {})
  // One that is lent out loses the pool's listener: a connection dropped between two statements of a transaction
  // would end the process as well. The next statement fails and says so.
  pool.on('connect', client => client.on('error', () => {}))

  return {
    ...queryable(pool),
    pool,
    url,
    async tx(work) {
      const client = await pool.connect()
      let broken: Error | undefined
      try {
        await client.query('begin')
        const result = await work({ ...queryable(client), client })
        await client.query('commit')
        return result
      } catch (error) {
        await client.query('rollback').catch((lost: Error) => {
          broken = lost
        })
        throw error
      } finally {
        client.release(broken)
      }
    },
    async connect(applicationName) {
      const client = new pg.Client({ ...settings, application_name: applicationName })
      client.on('error', () => {})
      await client.connect()
      return client
    },
    close: () => pool.end(),
  }
}

type Runner = pg.Pool | pg.PoolClient | pg.Client

export function queryable(runner: Runner): Queryable {
  const run = (statement: Statement, values: unknown[] = []) =>
    runner.query({ name: statement.name, text: statement.text, values })
  return {
    rows: async <R>(statement: Statement, values?: unknown[]) => (await run(statement, values)).rows as R[],
    one: async <R>(statement: Statement, values?: unknown[]) =>
      (await run(statement, values)).rows[0] as R | undefined,
    run: async (statement, values) => (await run(statement, values)).rowCount ?? 0,
  }
}
