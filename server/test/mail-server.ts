import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { commandPath, need } from '../../scripts/needs.ts'
import { eventually } from './app.ts'

/**
 * Exim, as Debian has it, with a configuration and a spool of its own: it takes mail for every address of `home.test`
 * and finds out only then who is there, so what it cannot deliver comes back as a bounce.
 */
export interface MailServer {
  port: number
  /** Everything that arrived in Alice's mailbox, one mbox file. */
  inbox(): string
  log(): string
  stop(): Promise<void>
}

/** Why it cannot be run here, for node:test; false where it can. */
export const noMailServer = (): string | false =>
  need('exim4') || (process.getuid?.() !== 0 && 'exim4 must be started by root')

/** @param bouncePort where mail of `bounces.test` goes, on this machine */
export async function startMailServer(bouncePort: number): Promise<MailServer> {
  const dir = mkdtempSync(join(tmpdir(), 'carillon-exim-'))
  const port = await freePort()
  const uid = Number(execFileSync('id', ['-u', 'Debian-exim'], { encoding: 'utf8' }))
  const gid = Number(execFileSync('id', ['-g', 'Debian-exim'], { encoding: 'utf8' }))
  for (const folder of ['.', 'spool', 'log', 'mail']) {
    const path = join(dir, folder)
    mkdirSync(path, { recursive: true })
    chownSync(path, uid, gid)
  }
  const file = join(dir, 'exim.conf')
  writeFileSync(file, configuration(dir, port, bouncePort), { mode: 0o644 })
  // In the foreground, a queue run every second; what is new is delivered at once.
  const child: ChildProcess = spawn(commandPath('exim4')!, ['-C', file, '-bdf', '-q1s'], { stdio: 'ignore' })
  const read = (name: string) => {
    try {
      return readFileSync(join(dir, name), 'utf8')
    } catch {
      return ''
    }
  }
  const log = () => `${read('log/mainlog')}\n${read('log/paniclog')}\n${read('log/rejectlog')}`
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = new Promise(resolve => child.once('exit', resolve))
      child.kill('SIGTERM')
      await gone
    }
    rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  }
  try {
    await eventually('the mail server', () => {
      if (child.exitCode !== null) throw new Error(`exim ended: ${log()}`)
      return answers(port)
    })
  } catch (error) {
    await stop()
    throw error
  }
  return { port, inbox: () => read('mail/alice'), log, stop }
}

const configuration = (dir: string, port: number, bouncePort: number): string => `
primary_hostname = mail.home.test
spool_directory = ${dir}/spool
log_file_path = ${dir}/log/%slog
pid_file_path = ${dir}/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = ${port}
domainlist local_domains = home.test
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
dsn_advertise_hosts = *
tls_advertise_hosts =
dkim_verify_signers =
bounce_return_body = false
acl_smtp_rcpt = take
begin acl
take:
  accept
begin routers
door:
  driver = manualroute
  domains = bounces.test
  transport = door
  route_list = * 127.0.0.1
  self = send
inbox:
  driver = accept
  domains = +local_domains
  local_parts = alice
  transport = inbox
begin transports
door:
  driver = smtp
  port = ${bouncePort}
  allow_localhost
inbox:
  driver = appendfile
  file = ${dir}/mail/alice
  user = Debian-exim
  group = Debian-exim
  return_path_add
  delivery_date_add
begin retry
* * F,1m,1s
`

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}

const answers = (port: number): Promise<boolean> =>
  new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('data', data => {
      socket.destroy()
      resolve(data.toString().startsWith('220'))
    })
    socket.once('error', () => resolve(false))
  })
