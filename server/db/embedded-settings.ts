const MB = 1024 * 1024
const GB = 1024 * MB

export interface Machine {
  /** What this process may use: RAM, or the container's limit when that is smaller. */
  memoryBytes: number
  /** Free space where the data folder is. */
  freeDiskBytes: number
  /** Size of /dev/shm, where parallel queries exchange rows; Docker gives 64 MB. Undefined: no such place. */
  sharedMemoryBytes?: number
}

/**
 * The settings of the embedded server, by the size of the machine. Buffers fill with use, but their book-keeping and
 * the WAL buffers are touched at the start: an idle server takes 130 MB at the upper bounds, of which wal_buffers are
 * 64, and 59 MB with shared_buffers = 512MB and wal_buffers = 16MB (sum of PSS).
 *
 * What was measured on the ledger's insert path (two cores, 1.6 kB of WAL per notification): large WAL segments
 * between rare checkpoints keep full-page images off the hot path; jit costs more than it gives in short
 * statements; the frequent autovacuum keeps the small, busy tables (batches, jobs) from growing.
 */
export function embeddedSettings(
  machine: Machine,
  options: { durable: boolean },
): Record<string, string | number> {
  const sharedBuffers = clamp(machine.memoryBytes / 4, 64 * MB, 2 * GB)
  const maxWal = clamp(machine.freeDiskBytes / 8, 256 * MB, 8 * GB)
  return {
    shared_buffers: mb(sharedBuffers),
    effective_cache_size: mb(Math.max(machine.memoryBytes / 2, sharedBuffers)),
    maintenance_work_mem: mb(clamp(machine.memoryBytes / 20, 32 * MB, 512 * MB)),
    work_mem: mb(clamp(machine.memoryBytes / 500, 4 * MB, 32 * MB)),
    wal_buffers: mb(clamp(sharedBuffers / 8, 8 * MB, 64 * MB)),
    max_wal_size: mb(maxWal),
    min_wal_size: mb(Math.max(maxWal / 4, 80 * MB)),
    checkpoint_timeout: '15min',
    wal_compression: 'off',
    jit: 'off',
    random_page_cost: 1.1,
    autovacuum_naptime: '10s',
    autovacuum_vacuum_cost_limit: 2000,
    max_connections: 100,
    // Monthly partitions: one statement over a year of a partitioned table locks each of them and its indexes.
    max_locks_per_transaction: 128,
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_min_messages: 'warning',
    log_checkpoints: 'off',
    log_line_prefix: '%m [%p] %a ',
    // Rows hold people's content: the log names the error, never the statement or the row.
    log_min_error_statement: 'panic',
    log_error_verbosity: 'terse',
    log_parameter_max_length_on_error: 0,
    ...(machine.sharedMemoryBytes !== undefined && machine.sharedMemoryBytes < 256 * MB
      ? { dynamic_shared_memory_type: 'mmap' }
      : {}),
    // synchronous_commit stays on: without fsync it costs nothing, and kill -9 of the server loses no commit.
    ...(options.durable ? {} : { fsync: 'off', full_page_writes: 'off', max_connections: 200 }),
  }
}

const clamp = (value: number, low: number, high: number) => Math.min(Math.max(value, low), high)
const mb = (bytes: number) => `${Math.round(bytes / MB)}MB`
