import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type Embedded, type EmbeddedOptions, embeddedUrl, startEmbedded } from './embedded.ts'
import { embeddedSettings } from './embedded-settings.ts'
import { blockedAt, databaseUser } from './embedded-user.ts'

const isRoot = process.getuid?.() === 0
const isLinux = process.platform === 'linux'
const folders: string[] = []
const running: Embedded[] = []
const children: ChildProcess[] = []

function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'embedded-'))
  chmodSync(dir, 0o755)
  folders.push(dir)
  return dir
}

async function start(dataDir: string, options: Partial<EmbeddedOptions> = {}): Promise<Embedded> {
  const server = await startEmbedded({ dataDir, durable: false, ...options })
  running.push(server)
  return server
}

/** A process of its own that holds the folder. Resolves with the server's address. */
async function startElsewhere(
  dataDir: string,
  as: { uid?: number; gid?: number } = {},
): Promise<{ child: ChildProcess; url: string }> {
  const script = `
    import { startEmbedded } from ${JSON.stringify(join(import.meta.dirname, 'embedded.ts'))}
    const server = await startEmbedded({ dataDir: ${JSON.stringify(dataDir)}, durable: false })
    console.log(server.url)
    setInterval(() => {}, 1e9)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    ...as,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.push(child)
  const [url] = (await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'exit').then(([code]) => {
      throw new Error(`ended with ${code}`)
    }),
  ])) as [Buffer]
  return { child, url: url.toString().trim() }
}

async function ask(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(text)).rows
  } finally {
    await client.end()
  }
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 20_000; !(await condition()); await delay(20)) {
    assert.ok(Date.now() < end, `waited too long until ${what}`)
  }
}

const postmasterOf = (dataDir: string) =>
  Number(readFileSync(join(dataDir, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0])

/** An ended process whose new parent has not asked for its exit code yet (a zombie) runs no more. */
const runs = (pid: number) =>
  spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' }).stdout.match(/^[^Z\s]/) !== null

/** The watchdogs of a server, found by the data folder among their arguments. */
const watchdogs = (dataDir: string) =>
  execFileSync('ps', ['-axww', '-o', 'pid=,command='], { encoding: 'utf8' })
    .split('\n')
    .filter(line => line.includes('-watchdog') && line.includes(`${dataDir}/postgres/data`))
    .map(line => Number.parseInt(line, 10))

async function cleanUp(): Promise<void> {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  for (const server of running.splice(0)) await server.stop()
}

afterEach(cleanUp)
after(() => {
  for (const dir of folders) rmSync(dir, { recursive: true, force: true })
})

test('starts, is reached by socket and TCP, keeps data and address, keeps its secrets', async () => {
  const dataDir = join(folder(), 'not', 'there', 'yet')
  const server = await start(dataDir)
  await ask(server.url, 'create table kept (n int)')
  const tcp = new URL(server.url)
  tcp.search = ''
  assert.deepEqual(await ask(tcp.href, 'select current_user as who, inet_server_addr() as via'), [
    { who: 'carillon', via: '127.0.0.1' },
  ])
  assert.deepEqual(await ask(server.url, `select usesuper as su from pg_user where usename = current_user`), [
    { su: false },
  ])
  assert.deepEqual(await ask(server.url, 'show password_encryption'), [
    { password_encryption: 'scram-sha-256' },
  ])
  const stranger = new URL(tcp)
  stranger.password = 'guess'
  await assert.rejects(ask(stranger.href, 'select 1'), { code: '28P01' })
  assert.equal(statSync(join(dataDir, 'postgres.json')).mode & 0o777, 0o600)
  assert.equal(statSync(join(dataDir, 'postgres')).mode & 0o777, 0o700)

  await server.stop()
  await server.stop()
  await assert.rejects(ask(tcp.href, 'select 1'))

  const again = await start(dataDir)
  assert.equal(again.url, server.url)
  assert.equal(embeddedUrl(dataDir), server.url)
  assert.deepEqual(await ask(again.url, 'select * from kept'), [])
})

test('one folder, one process', async () => {
  const dataDir = folder()
  const { child } = await startElsewhere(dataDir)
  await assert.rejects(
    start(dataDir),
    new RegExp(`${dataDir} is in use by another Carillon \\(process ${child.pid}\\)`),
  )
})

test('two first starts at once: one gets the folder, the other a clear error', async () => {
  const dataDir = folder()
  const results = await Promise.allSettled([start(dataDir), start(dataDir)])
  assert.deepEqual(results.map(result => result.status).sort(), ['fulfilled', 'rejected'])
  const [lost] = results.filter(result => result.status === 'rejected')
  assert.match(String(lost!.reason), /in use by another Carillon/)
})

for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
  test(`after ${signal} of its process the server ends by itself, and the next start has the data`, async () => {
    const dataDir = folder()
    const { child, url } = await startElsewhere(dataDir)
    await ask(url, 'create table kept as select 42 as n')
    const postmaster = postmasterOf(dataDir)
    child.kill(signal)
    await until('PostgreSQL has ended', () => !runs(postmaster))
    assert.deepEqual(await ask((await start(dataDir)).url, 'select n from kept'), [{ n: 42 }])
  })
}

test('a server whose process and watchdog were killed is stopped by the next start', async () => {
  const dataDir = folder()
  const { child, url } = await startElsewhere(dataDir)
  await ask(url, 'create table kept as select 42 as n')
  const postmaster = postmasterOf(dataDir)
  for (const pid of watchdogs(dataDir)) process.kill(pid, 'SIGKILL')
  await until('the watchdog is gone', () => watchdogs(dataDir).length === 0)
  child.kill('SIGKILL')
  await once(child, 'exit')
  assert.ok(runs(postmaster), 'nobody was left to stop it')

  const lines: string[] = []
  const server = await start(dataDir, { logs: line => lines.push(line) })
  assert.ok(!runs(postmaster))
  assert.match(lines.join('\n'), new RegExp(`Stopping a PostgreSQL left over .*process ${postmaster}`))
  assert.deepEqual(await ask(server.url, 'select n from kept'), [{ n: 42 }])
})

test('kill -9 of PostgreSQL: it comes back on the same address with the data', async () => {
  const dataDir = folder()
  const server = await start(dataDir)
  await ask(server.url, 'create table kept as select 42 as n')
  const busy = ask(server.url, 'select pg_sleep(60)').catch((error: Error) => error)
  const killed = postmasterOf(dataDir)
  process.kill(killed, 'SIGKILL')
  assert.ok((await busy) instanceof Error)
  await until('it answers again', () =>
    ask(server.url, 'select n from kept').then(
      rows => rows[0]!.n === 42,
      () => false,
    ),
  )
  assert.notEqual(postmasterOf(dataDir), killed)
})

test('everything killed at once: the next start recovers', async () => {
  const dataDir = folder()
  const { child, url } = await startElsewhere(dataDir)
  await ask(url, 'create table kept as select 42 as n')
  child.kill('SIGKILL')
  process.kill(postmasterOf(dataDir), 'SIGKILL')
  await once(child, 'exit')
  assert.deepEqual(await ask((await start(dataDir)).url, 'select n from kept'), [{ n: 42 }])
})

test("a stale postmaster.pid that names somebody else's process does not stop the start", async () => {
  const dataDir = folder()
  const first = await start(dataDir)
  const file = join(dataDir, 'postgres/data/postmaster.pid')
  const text = readFileSync(file, 'utf8')
  await first.stop()
  // PostgreSQL ignores processes it may not signal, so the stranger must be of its own user.
  const { uid, gid } = statSync(join(dataDir, 'postgres'))
  const stranger = spawn('sleep', ['1000'], { uid, gid, stdio: 'ignore' })
  children.push(stranger)
  writeFileSync(file, text.replace(/^\d+/, String(stranger.pid)))
  chownSync(file, uid, gid)

  await start(dataDir)
  assert.ok(runs(stranger.pid!), 'the stranger lives')
})

test('a taken port: another one is chosen, unless it was asked for', async () => {
  const dataDir = folder()
  const first = await start(dataDir)
  const port = Number(new URL(first.url).port)
  await first.stop()
  const blocker = createServer().listen(port, '127.0.0.1')
  await once(blocker, 'listening')
  try {
    await assert.rejects(start(dataDir, { port }), new RegExp(`Port ${port} .* is taken`))
    const moved = await start(dataDir)
    assert.notEqual(Number(new URL(moved.url).port), port)
    assert.deepEqual(await ask(moved.url, 'select 1 as n'), [{ n: 1 }])
  } finally {
    blocker.close()
  }
})

test('flags reach the server, but not what our way of running depends on', async () => {
  const { url } = await start(folder(), { flags: { work_mem: '7MB', listen_addresses: '*' } })
  assert.deepEqual(await ask(url, 'show work_mem'), [{ work_mem: '7MB' }])
  assert.deepEqual(await ask(url, 'show listen_addresses'), [{ listen_addresses: '127.0.0.1' }])
})

test('what it cannot use is refused with the reason', async () => {
  const dataDir = folder()
  const server = await start(dataDir)
  await server.stop()
  const version = join(dataDir, 'postgres/data/PG_VERSION')
  const text = readFileSync(version, 'utf8')
  writeFileSync(version, '12\n')
  await assert.rejects(start(dataDir), /made by PostgreSQL 12; this version of Carillon brings 18/)
  writeFileSync(version, text)

  await assert.rejects(
    start(dataDir, { flags: { no_such_setting: 1 } }),
    /did not start.*\n.*no_such_setting/s,
  )
  rmSync(join(dataDir, 'postgres.json'))
  await assert.rejects(start(dataDir), /postgres\.json with its passwords is gone/)
})

describe('as root', { skip: isRoot && isLinux ? false : 'needs root on Linux' }, () => {
  test('PostgreSQL runs as another user, who need not enter our folders', async () => {
    const locked = folder()
    chmodSync(locked, 0o700)
    const dataDir = join(locked, 'data')
    const lines: string[] = []
    const server = await start(dataDir, { logs: line => lines.push(line) })
    const { home } = JSON.parse(readFileSync(join(dataDir, 'postgres.json'), 'utf8')) as { home: string }
    try {
      assert.match(home, /^\/var\/lib\/carillon\/postgres-/)
      assert.match(lines.join('\n'), new RegExp(`may not enter ${locked}`))
      const pid = Number(readFileSync(join(home, 'data/postmaster.pid'), 'utf8').split('\n')[0])
      assert.notEqual(statSync(`/proc/${pid}`).uid, 0)
      assert.deepEqual(await ask(server.url, 'select 1 as n'), [{ n: 1 }])
    } finally {
      await server.stop()
      rmSync(home, { recursive: true })
    }
  })

  test('a data folder that only root may enter is opened for passing through, not for reading', async () => {
    const dataDir = folder()
    chmodSync(dataDir, 0o700)
    await start(dataDir)
    assert.equal(statSync(dataDir).mode & 0o777, 0o711)
  })

  test('an ordinary user needs no other user, and root later runs it as that one', async () => {
    const dataDir = folder()
    const user = databaseUser('/nowhere', () => {})!
    chownSync(dataDir, user.uid, user.gid)
    const { child, url } = await startElsewhere(dataDir, user)
    await ask(url, 'create table kept as select 42 as n')
    child.kill('SIGTERM')
    await once(child, 'exit')
    const server = await start(dataDir)
    assert.deepEqual(await ask(server.url, 'select n from kept'), [{ n: 42 }])
    assert.equal(statSync(`/proc/${postmasterOf(dataDir)}`).uid, user.uid)
  })
})

test('blockedAt names the outermost closed folder', () => {
  const top = folder()
  mkdirSync(join(top, 'open', 'closed', 'deep'), { recursive: true })
  const nobody = { uid: 65_000, gid: 65_000 }
  const path = join(top, 'open', 'closed', 'deep', 'file')
  assert.equal(blockedAt(path, nobody), undefined)
  chmodSync(join(top, 'open', 'closed', 'deep'), 0o750)
  chmodSync(join(top, 'open', 'closed'), 0o754)
  assert.equal(blockedAt(path, nobody), join(top, 'open', 'closed'))
  const { uid, gid } = statSync(top)
  assert.equal(blockedAt(path, { uid, gid }), undefined)
})

test('settings follow the machine, within bounds', () => {
  const GB = 1024 ** 3
  const of = (memory: number, disk: number, durable = true) =>
    embeddedSettings({ memoryBytes: memory * GB, freeDiskBytes: disk * GB }, { durable })

  assert.equal(of(24, 80).shared_buffers, '2048MB')
  assert.equal(of(24, 80).max_wal_size, '8192MB')
  assert.equal(of(24, 80).wal_buffers, '64MB')
  assert.equal(of(1, 4).shared_buffers, '256MB')
  assert.equal(of(1, 4).max_wal_size, '512MB')
  assert.equal(of(0.1, 0.1).shared_buffers, '64MB')
  assert.equal(of(0.1, 0.1).max_wal_size, '256MB')
  assert.equal(of(24, 80).fsync, undefined)
  assert.equal(of(24, 80, false).fsync, 'off')
  const docker = embeddedSettings(
    { memoryBytes: GB, freeDiskBytes: GB, sharedMemoryBytes: 64 * 1024 ** 2 },
    { durable: true },
  )
  assert.equal(docker.dynamic_shared_memory_type, 'mmap')
})
