import { execFileSync, spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Programs that some tests drive and npm does not bring. `npm test` installs them where it may. */
export interface Need {
  name: string
  /** Present when this command is. */
  command: string
  /** Debian's and Ubuntu's package. */
  debian: string
  /** Its service, where that has another name. */
  service?: string
  usedBy: string
}

export const NEEDS = [
  {
    name: 'redis-server',
    command: 'redis-server',
    debian: 'redis-server',
    usedBy: 'limits and live streams shared over Redis; the comparison in bench/peers.ts',
  },
  {
    name: 'prometheus-alertmanager',
    command: 'prometheus-alertmanager',
    debian: 'prometheus-alertmanager',
    usedBy: 'the story of a real sender, unmodified, at our door',
  },
  {
    name: 'chromium',
    command: 'chromium',
    debian: 'chromium',
    usedBy: 'pages for people, and push messages in a browser',
  },
  {
    name: 'exim4',
    command: 'exim4',
    debian: 'exim4-daemon-light',
    service: 'exim4',
    usedBy: 'mail through a real server, and bounces that it sends back',
  },
] as const satisfies Need[]

export type NeedName = (typeof NEEDS)[number]['name']

/**
 * For node:test: `test('…', { skip: need('redis-server') }, …)`. False when the program is here, else the reason to
 * skip.
 */
export function need(name: NeedName): string | false {
  const { command, debian } = NEEDS.find(entry => entry.name === name)!
  return commandPath(command) === undefined && `needs ${command} (on Debian: apt-get install ${debian})`
}

/** Where a command is, also in the folders of system programs, which an ordinary user's PATH leaves out. */
export function commandPath(command: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin']
  return folders
    .filter(folder => folder !== '')
    .map(folder => join(folder, command))
    .find(isExecutable)
}

/**
 * Installs what is missing when we are root on a system with apt, and says what it does. What cannot be installed is
 * only told: the tests that need it skip.
 */
export function installNeeds(say: (line: string) => void): void {
  const missing = NEEDS.filter(entry => commandPath(entry.command) === undefined)
  if (missing.length === 0) return
  const packages = missing.map(entry => entry.debian)
  const list = missing.map(entry => `${entry.name} (${entry.usedBy})`).join(', ')
  if (process.getuid?.() !== 0 || commandPath('apt-get') === undefined) {
    say(`Not here, so the tests that need it skip: ${list}. On Debian: apt-get install ${packages.join(' ')}`)
    return
  }
  say(`Installing for the tests: ${list}`)
  try {
    withoutStartingServices(() => {
      if (!install(packages)) {
        // A fresh container has no package lists.
        apt(['update'])
        install(packages)
      }
    })
  } catch (error) {
    say(`apt-get failed: ${(error as Error).message}`)
  }
  for (const entry of missing) {
    const reason = need(entry.name)
    if (reason !== false) say(`Could not be installed, so the tests that need it skip: ${entry.name}`)
    else keepFromBoot('service' in entry ? entry.service : entry.debian)
  }
}

function install(packages: string[]): boolean {
  return apt(['install', '--yes', '--no-install-recommends', ...packages])
}

function apt(args: string[]): boolean {
  const { status } = spawnSync('apt-get', ['-q', '-o', 'Acquire::http::Timeout=20', ...args], {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'ignore', 'ignore'],
    timeout: 240_000,
  })
  return status === 0
}

/**
 * Debian starts a service when its package is installed, unless this file says no
 * (https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt). A policy somebody made stays in force.
 */
function withoutStartingServices(work: () => void): void {
  const policy = '/usr/sbin/policy-rc.d'
  if (existsSync(policy)) return work()
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    work()
  } finally {
    rmSync(policy, { force: true })
  }
}

/** Not started now, and not with the machine either. */
function keepFromBoot(service: string): void {
  if (commandPath('systemctl') === undefined) return
  try {
    execFileSync('systemctl', ['disable', '--now', service], { stdio: 'ignore', timeout: 20_000 })
  } catch {} // No such unit, or no systemd at work here.
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
