import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { SOLUTIONS } from '../../solutions/index.ts'
import { ConfigError, listSettings, loadConfig } from '../config.ts'
import { type Solution, integer, solution } from '../solution.ts'
import { testApp } from './app.ts'

const FOLDER = join(import.meta.dirname, '..', '..', 'solutions')

let folder: string
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'carillon-solution-'))
  await writeFile(join(folder, 'kept.yaml'), template('kept', 'of the solution'))
  await writeFile(join(folder, 'own.yaml'), template('own', 'of the solution'))
})
after(() => rm(folder, { recursive: true }))

const template = (name: string, body: string) => `name: ${name}\nchannels:\n  default: { body: ${body} }\n`

/** The smallest one that uses everything it may bring. */
const bells = (opened: number[] = []): Solution =>
  solution({
    id: 'bells',
    title: 'Bells',
    settings: { count: integer('CARILLON_TOWER_BELLS', 4, 1, 23, 'Bells in the tower.') },
    templates: folder,
    open({ api, now }, { count }) {
      opened.push(count)
      api.get('/api/bells', { config: { access: { role: 'user' } } }, async () => ({
        count,
        at: now().toISOString(),
      }))
    },
  })
const whistles: Solution = { id: 'whistles', title: 'Whistles' }

const read = (env: NodeJS.ProcessEnv) => loadConfig(env, [], undefined, [bells(), whistles])

test('all are opened unless their names are given; an unknown name ends the start', () => {
  const opened = (env: NodeJS.ProcessEnv) => [...read(env).solutions.keys()]
  assert.deepEqual(opened({}), ['bells', 'whistles'])
  assert.deepEqual(opened({ CARILLON_SOLUTIONS: 'all' }), ['bells', 'whistles'])
  assert.deepEqual(opened({ CARILLON_SOLUTIONS: 'none' }), [])
  assert.deepEqual(opened({ CARILLON_SOLUTIONS: ' Whistles , whistles' }), ['whistles'])
  for (const [given, message] of [
    ['bells,gong', /^CARILLON_SOLUTIONS: "gong" is none of all, none, bells, whistles$/],
    ['all,bells', /"all" is none of/],
    [',', /it names no solution/],
  ] as const) {
    assert.throws(
      () => read({ CARILLON_SOLUTIONS: given }),
      (error: unknown) => error instanceof ConfigError && message.test(error.problems.join('\n')),
    )
  }
})

test('settings of a solution are read, checked and known like all others, opened or not', () => {
  assert.deepEqual(read({ CARILLON_TOWER_BELLS: '7' }).solutions.get('bells'), { count: 7 })
  assert.deepEqual(read({}).solutions.get('bells'), { count: 4 })
  assert.deepEqual(read({}).solutions.get('whistles'), {})
  assert.throws(
    () => read({ CARILLON_TOWER_BELLS: '24', CARILLON_SOLUTIONS: 'none' }),
    /CARILLON_TOWER_BELLS: "24" is not a whole number from 1 to 23/,
  )
  assert.deepEqual(read({ CARILLON_TOWER_BELLS: '7', CARILLON_SOLUTIONS: 'none' }).warnings, [])
  assert.deepEqual(read({ CARILLON_TOWER_BELL: '7' }).warnings, [
    'CARILLON_TOWER_BELL is not a setting; did you mean CARILLON_TOWER_BELLS?',
  ])
  assert.match(
    loadConfig({ CARILLON_TOWER_BELLS: '7' }).warnings.join(),
    /CARILLON_TOWER_BELLS is not a setting/,
  )
})

test('what is opened has its routes, settings and templates; what is not has none', async t => {
  const opened: number[] = []
  const solutions = [bells(opened), whistles]
  const operators = await mkdtemp(join(tmpdir(), 'carillon-templates-'))
  t.after(() => rm(operators, { recursive: true }))
  await writeFile(join(operators, 'own.yaml'), template('own', 'of the operator'))
  const closed = await testApp({ CARILLON_SOLUTIONS: 'whistles' }, { solutions })
  t.after(() => closed.stop())
  assert.deepEqual(opened, [])
  assert.equal((await closed.call('GET', '/api/bells', { as: closed.tenant.adminKey })).status, 404)

  const at = new Date('2026-03-01T10:00:00Z')
  const app = await testApp(
    { CARILLON_TOWER_BELLS: '7', CARILLON_TEMPLATES_DIR: operators },
    { solutions, now: () => at },
  )
  t.after(() => app.stop())
  assert.deepEqual(opened, [7])
  const { body } = await app.call('GET', '/api/bells', { as: app.tenant.adminKey })
  assert.deepEqual(body, { count: 7, at: at.toISOString() })

  const told = async (where: typeof app, templateId: string) => {
    await where.call('PUT', '/api/users/alice', { as: where.tenant.serviceKey, body: {} })
    const sent = await where.call('POST', '/api/notifications', {
      as: where.tenant.serviceKey,
      body: { recipientId: 'alice', templateId },
    })
    if (sent.status !== 202) return sent.status
    const listed = await where.call('GET', '/api/notifications/feed?userId=alice&limit=1', {
      as: where.tenant.serviceKey,
    })
    return listed.body.items[0].body
  }
  assert.equal(await told(app, 'kept'), 'of the solution')
  assert.equal(await told(app, 'own'), 'of the operator', 'the folder of CARILLON_TEMPLATES_DIR goes before')
  assert.notEqual(await told(closed, 'kept'), 'of the solution')
})

test('each solution has a folder of its name with a README, and settings of its own', () => {
  const folders = readdirSync(FOLDER, { withFileTypes: true }).filter(entry => entry.isDirectory())
  assert.deepEqual(folders.map(entry => entry.name).sort(), SOLUTIONS.map(({ id }) => id).sort())
  for (const { id } of SOLUTIONS) {
    assert.match(id, /^[a-z]+$/)
    assert.ok(existsSync(join(FOLDER, id, 'index.ts')) && existsSync(join(FOLDER, id, 'README.md')), id)
  }
  const settings = listSettings(SOLUTIONS)
  assert.equal(new Set(settings.map(({ name }) => name)).size, settings.length)
  const theirs = settings.filter(({ group }) => SOLUTIONS.some(({ id }) => id === group))
  assert.deepEqual(
    theirs.filter(({ flag }) => flag !== undefined),
    [],
  )
})
