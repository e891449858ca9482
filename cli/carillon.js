#!/usr/bin/env node
// What `npx carillon` runs. Any Node from 20 on can start it: it hands over to the Node 24 that `npm ci` installed
// beside the project, which runs TypeScript as it is. Plain JavaScript, since older versions must understand it.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import module from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const script = join(root, 'cli', 'carillon.ts')
// What Node made of the TypeScript stays from one start to the next, and its compiler unloaded: 8 MB less. Kept
// beside the code, where only those may write who may change the code; a shared /tmp could be filled by others.
const cache = join(root, 'node_modules', '.cache', 'carillon')

if (Number(process.versions.node.split('.')[0]) >= 24) {
  module.enableCompileCache(cache)
  await import('./carillon.ts')
} else {
  const name = process.platform === 'win32' ? 'node.exe' : 'node'
  const node = process.env.CARILLON_NODE || join(root, 'node_modules', 'node', 'bin', name)
  if (existsSync(node)) handOver(node)
  else {
    console.error(
      `Carillon needs Node 24, and this is ${process.version}.\n` +
        `The one that comes with it is missing: ${node}\n` +
        `Run "npm ci" in ${root}, or set CARILLON_NODE to a Node 24.`,
    )
    process.exitCode = 1
  }
}

/** @param {string} node */
function handOver(node) {
  // Room for what is alive between a request and its commit: with 16 MB it is moved twice and then collected the long
  // way, a quarter more CPU under load. What starting takes of it is given back (server/main.ts).
  const child = spawn(node, ['--max-semi-space-size=64', script, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { NODE_COMPILE_CACHE: cache, ...process.env },
  })
  // A terminal sends Ctrl-C to the child as well; everybody else speaks to us alone.
  process.on('SIGINT', () => {
    if (!process.stdin.isTTY) child.kill('SIGINT')
  })
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('error', error => {
    console.error(`${node} cannot be started: ${error.message}`)
    process.exitCode = 1
  })
  child.on('exit', (code, signal) => {
    if (signal === null) process.exitCode = code ?? 1
    else {
      // Whoever waits for us shall see the same end.
      process.removeAllListeners(signal)
      process.kill(process.pid, signal)
    }
  })
}
