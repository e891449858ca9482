import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { SCHEMA, consoleTypes } from './console-types.ts'

test('the console knows the API as it is: else run node scripts/console-types.ts', async () => {
  const biome = join(import.meta.dirname, '..', 'node_modules', '.bin', 'biome')
  const { stdout, status, stderr } = spawnSync(biome, ['format', '--stdin-file-path', SCHEMA], {
    input: await consoleTypes(),
    encoding: 'utf8',
    cwd: join(import.meta.dirname, '..'),
    maxBuffer: 10_000_000,
  })
  assert.equal(status, 0, stderr)
  assert.equal(stdout, readFileSync(SCHEMA, 'utf8'))
})
