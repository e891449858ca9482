import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { buildConsole, sourcesHash } from './build-console.ts'

const DIST = join(import.meta.dirname, '..', 'console', 'dist')

test('the console is built once for what its sources say, however many ask for it', async () => {
  await Promise.all([buildConsole(), buildConsole()])
  assert.equal(await buildConsole(), false)
  assert.equal(readFileSync(join(DIST, 'built-from'), 'utf8'), sourcesHash())
})

test('what is built is compressed beside itself, asks nothing of others and has no script in the page', async () => {
  await buildConsole()
  const files = globSync('assets/*.{js,css}', { cwd: DIST }).map(name => join(DIST, name))
  assert.ok(files.length >= 3)
  for (const file of files) {
    const text = readFileSync(file, 'utf8')
    assert.equal(gunzipSync(readFileSync(`${file}.gz`)).toString(), text)
    assert.ok(existsSync(`${file}.br`))
    assert.doesNotMatch(text, /@import\s*(url\()?["']?https?:|fonts\.g(oogleapis|static)/, file)
  }
  assert.doesNotMatch(readFileSync(join(DIST, 'index.html'), 'utf8'), /<script(?![^>]*\ssrc=)|https?:\/\//)
})
