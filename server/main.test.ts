import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadConfig } from './config.ts'
import { run } from './main.ts'

test('a port that is taken is told with the setting that chooses another', async t => {
  const stranger = createServer()
  await new Promise<void>(resolve => stranger.listen(0, '127.0.0.1', resolve))
  const dir = mkdtempSync(join(tmpdir(), 'carillon-main-'))
  t.after(() => {
    stranger.close()
    rmSync(dir, { recursive: true, force: true })
  })
  const taken = String((stranger.address() as AddressInfo).port)
  const start = (ports: Record<string, string>) =>
    run(loadConfig({ CARILLON_DATA_DIR: dir, LOG_LEVEL: 'error', ...ports }, []), () => {})
  for (const [name, other] of [
    ['MAILBOX_PORT', 'PORT'],
    ['PORT', 'MAILBOX_PORT'],
  ] as const) {
    await assert.rejects(start({ [name]: taken, [other]: '0' }), {
      message: `Port ${taken} is taken by another program. Set ${name} to another one.`,
    })
  }
})
