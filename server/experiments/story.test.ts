import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { housekeeping } from '../admin/housekeeping.ts'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'
import { split } from './split.ts'

let t: TestApp
const PEOPLE = Array.from({ length: 200 }, (_, n) => `person-${n}`)

before(async () => {
  t = await testApp({ CARILLON_INGEST_LANES: '4' })
  for (const name of PEOPLE) {
    await call('PUT', `/api/users/${name}`, {
      addresses: [{ channel: 'email', address: `${name}@example.org`, verified: true }],
    })
  }
})
after(() => t?.stop())

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const refused = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status >= 400 && answer.status < 500, `${method} ${path}: ${answer.text}`)
  return answer.body
}

/** A template whose first revision is sent, and whose second, a draft, says it otherwise. */
async function twoTexts(name: string): Promise<string> {
  const texts = (subject: string, body: string) => ({ name, channels: { default: { subject, body } } })
  const { id } = await call('POST', '/api/templates', texts('A', 'plain'))
  await call('PUT', `/api/templates/${id}`, { ...texts('B', 'bold'), draft: true })
  return id
}
const ruleFor = (name: string, more: object) =>
  call('POST', '/api/rules', {
    name,
    eventTypes: [name],
    channels: ['in_app'],
    recipientSelector: { users: PEOPLE },
    ...more,
  })
/** What a person was told of this event: subject and channels; undefined: nothing. */
async function toldOf(eventId: string) {
  const told = new Map<string, { id: string; subject: string; channels: string[]; experiment: Loose }>()
  let cursor = ''
  do {
    const page = await call('GET', `/api/notifications?eventId=${eventId}&include=content&limit=100${cursor}`)
    for (const { id, recipientId, content, channels, experiment } of page.items) {
      told.set(recipientId, { id, subject: content[channels[0]].subject, channels, experiment })
    }
    cursor = page.nextCursor ? `&cursor=${page.nextCursor}` : ''
  } while (cursor !== '')
  return told
}
const count = (values: Iterable<string>) => {
  const counts: Record<string, number> = {}
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1
  return counts
}

// covers: ALP-087, ALP-093, ALP-222, AUR-223, PFM-320, DIC-005
test('two texts told to 200 people: each hears theirs, some hear nothing, what they do is counted, one is picked', async () => {
  const templateId = await twoTexts('welcome')
  await ruleFor('app.welcome', { templateId })
  const experiment = await call('POST', '/api/experiments', {
    name: 'Plain or bold',
    templateId,
    metric: 'opened',
    variants: [
      { name: 'plain', weight: 3 },
      { name: 'bold', weight: 1, revision: 2 },
    ],
    holdout: { share: 0.2 },
  })
  assert.equal(experiment.status, 'draft')
  assert.deepEqual(
    await toldOf((await call('POST', '/api/events/publish', { type: 'app.welcome' })).eventId).then(told =>
      count([...told.values()].map(({ subject }) => subject)),
    ),
    { A: 200 },
  )

  const started = await call('POST', `/api/experiments/${experiment.id}/start`)
  assert.equal(started.status, 'running')
  assert.deepEqual(
    started.variants.map((one: Loose) => one.revision),
    [1, 2],
    'the control is pinned',
  )

  // Twice: whoever is told again stays where they are, and counts once.
  await call('POST', '/api/events/publish', { type: 'app.welcome' })
  const { eventId } = await call('POST', '/api/events/publish', { type: 'app.welcome' })
  const told = await toldOf(eventId)
  const expected = new Map(
    PEOPLE.map(name => [
      name,
      split(
        experiment.id,
        `user:${name}`,
        [
          { name: 'plain', weight: 3 },
          { name: 'bold', weight: 1 },
        ],
        0.2,
      ),
    ]),
  )
  const shares = count(expected.values())
  for (const name of PEOPLE) {
    const part = expected.get(name)!
    const one = told.get(name)
    if (part === 'holdout') assert.equal(one, undefined, name)
    else {
      assert.deepEqual(one!.experiment, { id: experiment.id, variant: part })
      assert.equal(one!.subject, part === 'plain' ? 'A' : 'B')
    }
  }

  // Whoever heard nothing can be told why.
  const silent = PEOPLE.find(name => expected.get(name) === 'holdout')!
  const loud = PEOPLE.find(name => expected.get(name) === 'bold')!
  const why = await call('GET', `/api/explain?event=${eventId}&user=${silent}`)
  assert.deepEqual(why.rules[0].recipients[0].experiment, {
    id: experiment.id,
    name: 'Plain or bold',
    variant: 'holdout',
  })
  assert.equal(why.rules[0].recipients[0].decisions[0].reason, 'holdout')
  assert.equal(why.rules[0].recipients[0].decisions[0].detail, 'Plain or bold')
  const seen = await call('GET', `/api/explain?event=${eventId}&user=${loud}`)
  assert.equal(seen.rules[0].recipients[0].experiment.variant, 'bold')
  // What is critical is told to everybody.
  const urgent = await call('POST', '/api/notifications', {
    recipientId: silent,
    channels: ['in_app'],
    templateId,
    priority: 'CRITICAL',
  })
  const direct = await call(
    'GET',
    `/api/notifications/${urgent.notificationId ?? urgent.notifications?.[0]?.id}`,
  )
  assert.equal(direct.experiment, null)

  // All who hear it boldly open it, and every fifth of the others; some act.
  const bold = PEOPLE.filter(name => expected.get(name) === 'bold')
  const plain = PEOPLE.filter(name => expected.get(name) === 'plain')
  const readers = [...bold, ...plain.filter((_, at) => at % 5 === 0)]
  for (const name of readers) {
    const as = await t.tenant.token(name)
    for (let twice = 0; twice < 2; twice++) {
      const answer = await t.call('POST', `/api/notifications/${told.get(name)!.id}/read`, { as, body: {} })
      assert.ok(answer.status < 300, answer.text)
    }
  }
  await call('POST', `/api/notifications/${told.get(loud)!.id}/acknowledge`)
  const results = await call('GET', `/api/experiments/${experiment.id}/results`)
  const [a, b] = results.variants
  const nothing = { sent: 0, delivered: 0, seen: 0, opened: 0, clicked: 0, acted: 0, failed: 0 }
  const opened = Math.ceil(plain.length / 5)
  assert.deepEqual(a.counts, {
    ...nothing,
    people: shares.plain,
    sent: shares.plain,
    delivered: shares.plain,
    seen: opened,
    opened,
  })
  assert.deepEqual(b.counts, {
    ...nothing,
    people: shares.bold,
    sent: shares.bold,
    delivered: shares.bold,
    seen: shares.bold,
    opened: shares.bold,
    acted: 1,
  })
  assert.deepEqual(results.holdout.counts, { ...nothing, people: shares.holdout })
  assert.equal(results.leader, 'bold')
  assert.equal(b.comparison.significant, true)
  assert.equal(results.fit.suspicious, false)
  // By the book: z of 97.5 %, the score interval written out.
  const z = 1.959963984540054
  const [n, p] = [plain.length, opened / plain.length]
  const middle = (p + z ** 2 / (2 * n)) / (1 + z ** 2 / n)
  const half = (z / (1 + z ** 2 / n)) * Math.sqrt((p * (1 - p)) / n + z ** 2 / (4 * n ** 2))
  assert.ok(Math.abs(a.rates.opened.low - (middle - half)) < 1e-12)
  assert.ok(Math.abs(a.rates.opened.high - (middle + half)) < 1e-12)

  const variants = await call('GET', `/api/notifications/variants?templateId=${templateId}`)
  assert.deepEqual(
    variants.items.map((one: Loose) => [one.name, one.control, one.share.toFixed(2), one.counts.people]),
    [
      ['plain', true, '0.60', shares.plain],
      ['bold', false, '0.20', shares.bold],
    ],
  )

  const picked = await call('POST', `/api/experiments/${experiment.id}/pick`, { variant: 'bold' })
  assert.deepEqual([picked.status, picked.winner], ['stopped', 'bold'])
  const published = await call('GET', `/api/templates/${templateId}`)
  assert.deepEqual(
    [published.channels.default.subject, published.revision, published.publishedRevision],
    ['B', 2, 2],
  )
  const later = await toldOf((await call('POST', '/api/events/publish', { type: 'app.welcome' })).eventId)
  assert.deepEqual(count([...later.values()].map(({ subject, experiment }) => `${subject} ${experiment}`)), {
    'B null': 200,
  })
  assert.deepEqual(await auditLedger(t.db), [])
})

test('channels of a rule: each person by theirs, counted when a provider has it', async () => {
  const rule = await ruleFor('app.news', {})
  const experiment = await call('POST', '/api/experiments', {
    name: 'Inbox or mail',
    ruleId: rule.id,
    metric: 'delivered',
    variants: [
      { name: 'inbox', channels: ['in_app'] },
      { name: 'mail', channels: ['email'] },
    ],
  })
  await call('POST', `/api/experiments/${experiment.id}/start`)
  const { eventId } = await call('POST', '/api/events/publish', { type: 'app.news', data: { title: 'x' } })
  const told = await toldOf(eventId)
  assert.equal(told.size, 200)
  const parts = count(
    [...told.values()].map(({ experiment: { variant }, channels }) => `${variant} ${channels}`),
  )
  assert.deepEqual(Object.keys(parts).sort(), ['inbox in_app', 'mail email'])
  const results = await eventually('all mail to be sent', async () => {
    const found = await call('GET', `/api/experiments/${experiment.id}/results`)
    return found.variants[1].counts.sent === parts['mail email'] ? found : undefined
  })
  assert.equal(results.variants[0].counts.delivered, parts['inbox in_app'])
  assert.equal(results.variants[1].counts.people, parts['mail email'])
  assert.equal(results.variants[1].counts.delivered, 0, 'taken by a mail server is not delivered yet')
  await call('POST', `/api/experiments/${experiment.id}/pick`, { variant: 'mail' })
  assert.deepEqual((await call('GET', `/api/rules/${rule.id}`)).channels, ['email'])
})

/** What was counted, against the rows that say what really happened: people, each once, by variant. */
async function recounted(experimentId: string): Promise<{ counted: Loose; found: Loose }> {
  const counted = await t.db.pool.query(
    `select variant, sum(people)::int as people, sum(sent)::int as sent, sum(delivered)::int as delivered,
       sum(seen)::int as seen, sum(opened)::int as opened, sum(acted)::int as acted, sum(failed)::int as failed
     from experiment_counts where experiment_id = $1 group by 1 order by 1`,
    [experimentId],
  )
  const found = await t.db.pool.query(
    `select variant, count(*)::int as people, count(*) filter (where sent)::int as sent,
       count(*) filter (where delivered)::int as delivered, count(*) filter (where seen)::int as seen,
       count(*) filter (where opened)::int as opened, count(*) filter (where acted)::int as acted, 0 as failed
     from (
       select n.variant, n.recipient_id,
         bool_or(f.seq is not null or a.outcome in (0, 1)) as sent,
         bool_or(f.seq is not null or a.outcome = 0 or e.kind is not null) as delivered,
         bool_or(f.seen_at is not null or f.read_at is not null or e.kind is not null) as seen,
         bool_or(f.read_at is not null or e.kind is not null) as opened,
         bool_or(e.kind is not null) as acted
       from notifications n
       left join feed f on f.tenant_id = n.tenant_id and f.notification_id = n.id
       left join attempts a on a.tenant_id = n.tenant_id and a.notification_id = n.id and a.final
       left join engagement e on e.tenant_id = n.tenant_id and e.notification_id = n.id and e.kind = 'acknowledged'
       where n.experiment_id = $1 group by 1, 2
     ) p group by 1 order by 1`,
    [experimentId],
  )
  return { counted: counted.rows, found: found.rows }
}

test('under many writers and readers at once each person counts once, and nobody waits in a circle', async () => {
  const templateId = await twoTexts('busy')
  const some = PEOPLE.slice(0, 60)
  await ruleFor('app.busy', { templateId, channels: ['in_app', 'email'], recipientSelector: { users: some } })
  const experiment = await call('POST', '/api/experiments', {
    name: 'Busy',
    templateId,
    variants: [{ name: 'a' }, { name: 'b', revision: 2 }, { name: 'c', weight: 2 }],
  })
  await call('POST', `/api/experiments/${experiment.id}/start`)
  const publish = async () => {
    for (let n = 0; n < 2; n++) await call('POST', '/api/events/publish', { type: 'app.busy' })
  }
  const read = async (name: string) => {
    const as = await t.tenant.token(name)
    for (let n = 0; n < 4; n++) {
      const done = await t.call('POST', '/api/notifications/seen-all', { as })
      assert.ok(done.status < 300, done.text)
      const { items } = (await t.call('GET', '/api/notifications/feed?limit=3', { as })).body
      for (const { id } of items) {
        const answer = await t.call('POST', `/api/notifications/${id}/read`, { as, body: {} })
        assert.ok(answer.status < 300, answer.text)
      }
    }
  }
  await Promise.all([...Array.from({ length: 4 }, publish), ...PEOPLE.slice(0, 12).map(read)])
  const sent = async () => {
    const { rows } = await t.db.pool.query('select 1 from batches union all select 1 from jobs limit 1')
    return rows.length === 0
  }
  // 480 mails, on a machine that may be busy.
  await eventually('all mail to be sent', sent, 60_000)
  const before = await recounted(experiment.id)
  assert.deepEqual(before.counted, before.found)
  assert.equal(
    before.counted.reduce((sum: number, one: Loose) => sum + one.people, 0),
    some.length,
  )

  // Housekeeping adds rows up, and the sums stay what they were, whoever writes meanwhile.
  const keeper = housekeeping({
    db: t.db,
    now: () => new Date(),
    onError: error => assert.fail(String(error)),
    retention: {
      eventsDays: 365,
      notificationsDays: 365,
      attemptsDays: 365,
      engagementDays: 365,
      auditDays: 365,
      countersDays: 365,
      deadLettersDays: 365,
    },
  })
  const rows = async () =>
    (await t.db.pool.query('select 1 from experiment_counts where experiment_id = $1', [experiment.id]))
      .rowCount!
  assert.ok((await rows()) > 3)
  await Promise.all([keeper.runOnce(), publish(), ...PEOPLE.slice(12, 16).map(read)])
  await keeper.runOnce()
  assert.equal(await rows(), 3)
  const after = await recounted(experiment.id)
  assert.deepEqual(after.counted, after.found)
  assert.deepEqual(await auditLedger(t.db), [])
})

test('what waits counts when it goes, a large audience like a small one', async () => {
  const templateId = await twoTexts('later')
  const more = Array.from({ length: 850 }, (_, n) => `member-${n}`)
  const many = [...PEOPLE, ...more]
  await call('POST', '/api/groups', { name: 'members' })
  await Promise.all(
    Array.from({ length: 10 }, async (_, part) => {
      for (let n = part; n < more.length; n += 10)
        await call('PUT', `/api/users/${more[n]}`, { groups: ['members'] })
    }),
  )
  await call('POST', '/api/groups/members/members', { userIds: PEOPLE })
  await ruleFor('app.later', { templateId, recipientSelector: { groups: ['members'] } })
  const experiment = await call('POST', '/api/experiments', {
    name: 'Later',
    templateId,
    variants: [{ name: 'a' }, { name: 'b', revision: 2 }],
    holdout: { share: 0.1, gets: 'control' },
  })
  await call('POST', `/api/experiments/${experiment.id}/start`)
  await call('POST', '/api/events/publish', { type: 'app.later' })
  const results = await eventually('everybody to be told', async () => {
    const found = await call('GET', `/api/experiments/${experiment.id}/results`)
    const people =
      found.holdout.counts.people + found.variants[0].counts.people + found.variants[1].counts.people
    return people === many.length ? found : undefined
  })
  assert.equal(results.fit.suspicious, false)
  // Here the holdout hears what the control hears.
  assert.equal(results.holdout.counts.delivered, results.holdout.counts.people)
  const { counted, found } = await recounted(experiment.id)
  assert.deepEqual(counted, found)

  // Held, and then sent by whoever claims the job.
  await call('PUT', '/api/users/newcomer', {
    addresses: [{ channel: 'email', address: 'newcomer@example.org', verified: true }],
  })
  const sent = await call('POST', '/api/notifications', {
    recipientId: 'newcomer',
    channels: ['in_app', 'email'],
    templateId,
    scheduledAt: new Date(Date.now() + 300).toISOString(),
  })
  const { variant } = (await call('GET', `/api/notifications/${sent.id}`)).experiment
  const counts = (all: Loose) =>
    variant === 'holdout'
      ? all.holdout.counts
      : all.variants.find((one: Loose) => one.name === variant).counts
  const planned = counts(await call('GET', `/api/experiments/${experiment.id}/results`))
  assert.equal(planned.people, counts(results).people + 1)
  await eventually('it to go', async () => {
    const now = counts(await call('GET', `/api/experiments/${experiment.id}/results`))
    return now.sent === counts(results).sent + 1 && now.delivered === counts(results).delivered + 1
  })
})

test('clicks in mails count, those of scanners do not', async () => {
  const channels = (word: string) => ({
    email: { subject: word, html: `<body><a href="https://shop.example/${word}">${word}</a></body>` },
  })
  const { id: templateId } = await call('POST', '/api/templates', {
    name: 'mails',
    channels: channels('one'),
  })
  await call('PUT', `/api/templates/${templateId}`, { name: 'mails', channels: channels('two') })
  for (const scope of ['tracking:opens', 'tracking:clicks']) {
    await call('PUT', '/api/preferences/defaults/opinions', { scope, mode: 'OPTED_IN' })
  }
  const experiment = await call('POST', '/api/experiments', {
    name: 'Mails',
    templateId,
    variants: [
      { name: 'one', revision: 1 },
      { name: 'two', revision: 2 },
    ],
  })
  await call('POST', `/api/experiments/${experiment.id}/start`)
  const mail = async (recipientId: string) => {
    const { id } = await call('POST', '/api/notifications', { recipientId, channels: ['email'], templateId })
    const { variant } = (await call('GET', `/api/notifications/${id}`)).experiment
    const html = await eventually('the mail', async () => {
      const { items } = (await t.call('GET', '/dev/mailbox.json')).body
      for (const { id: mailId } of items) {
        const found = (await t.call('GET', `/dev/mailbox.json/${mailId}`)).body
        if (JSON.stringify(found).includes(id)) return found.html as string
      }
      return undefined
    })
    return { variant, link: /\/l\/[\w-]+/.exec(html)![0] }
  }
  const visit = (path: string, userAgent: string) =>
    fetch(t.url + path, { redirect: 'manual', headers: { 'user-agent': userAgent } })
  const { variant, link } = await mail('person-5')
  const result = async () =>
    (await call('GET', `/api/experiments/${experiment.id}/results`)).variants.find(
      (one: Loose) => one.name === variant,
    ).counts
  await visit(link, 'Mimecast URL Scanner')
  await eventually('the scanner to be noted', async () => {
    const { rows } = await t.db.pool.query(`select 1 from engagement where detail ? 'machine'`)
    return rows.length === 1
  })
  assert.equal((await result()).opened, 0)
  const answer = await visit(link, 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0')
  assert.equal(answer.headers.get('location'), `https://shop.example/${variant}`)
  await eventually('the click to count', async () => (await result()).clicked === 1)
  const { people, ...steps } = await result()
  assert.deepEqual(
    [people, steps.sent, steps.delivered, steps.seen, steps.opened, steps.failed],
    [1, 1, 1, 1, 1, 0],
  )
})

test('what does not fit is refused, with its field', async () => {
  const templateId = await twoTexts('refusals')
  const rule = await ruleFor('app.refusals', { templateId })
  const good = { name: 'good', templateId, variants: [{ name: 'a' }, { name: 'b', revision: 2 }] }
  const bad: [field: string, change: object][] = [
    ['/templateId', { ruleId: rule.id }],
    ['/templateId', { templateId: undefined }],
    ['/templateId', { templateId: '01a1fca9-dac7-7001-8961-e4e33925320f' }],
    ['/ruleId', { templateId: undefined, ruleId: templateId, variants: [{ name: 'a' }, { name: 'b' }] }],
    ['/variants/1/revision', { variants: [{ name: 'a' }, { name: 'b', revision: 9 }] }],
    ['/variants/1/revision', { templateId: undefined, ruleId: rule.id }],
    ['/variants/0/channels', { variants: [{ name: 'a', channels: ['email'] }, { name: 'b' }] }],
    ['/variants/0/templateId', { variants: [{ name: 'a', templateId }, { name: 'b' }] }],
    ['/variants/1/name', { variants: [{ name: 'a' }, { name: 'A' }] }],
    ['/variants/1/name', { variants: [{ name: 'a' }, { name: 'Holdout' }] }],
    ['/variants', { variants: [{ name: 'a' }] }],
    ['/variants/0/weight', { variants: [{ name: 'a', weight: 0 }, { name: 'b' }] }],
    ['/holdout/share', { holdout: { share: 1 } }],
    ['/endsAt', { startsAt: '2030-01-02T00:00:00Z', endsAt: '2030-01-01T00:00:00Z' }],
  ]
  for (const [field, change] of bad) {
    const problem = await refused('POST', '/api/experiments', { ...good, ...change })
    assert.equal(problem.errors?.[0]?.field ?? problem.field, field, JSON.stringify([change, problem]))
  }
})

test('one of a kind runs at a time; what it compares stays; its shares may move; its times hold', async () => {
  const templateId = await twoTexts('states')
  const variants = [{ name: 'a' }, { name: 'b', revision: 2 }]
  const make = (name: string, more: object = {}) =>
    call('POST', '/api/experiments', { name, templateId, variants, ...more })
  const one = await make('one')
  const two = await make('two')
  assert.equal(
    (await refused('POST', '/api/experiments', { name: 'one', templateId, variants })).code,
    'already_exists',
  )
  assert.equal((await refused('POST', `/api/experiments/${one.id}/stop`)).code, 'conflict')
  assert.equal((await refused('POST', `/api/experiments/${one.id}/pick`, { variant: 'a' })).code, 'conflict')
  await call('POST', `/api/experiments/${one.id}/start`)
  assert.equal((await refused('POST', `/api/experiments/${one.id}/start`)).code, 'conflict')
  assert.equal((await refused('POST', `/api/experiments/${two.id}/start`)).code, 'conflict')
  assert.equal((await refused('DELETE', `/api/experiments/${one.id}`)).code, 'conflict')

  const changed = await call('PUT', `/api/experiments/${one.id}`, {
    name: 'one',
    templateId,
    variants: [
      { name: 'a', weight: 5 },
      { name: 'b', revision: 2 },
    ],
  })
  assert.deepEqual(
    changed.variants.map((each: Loose) => [each.weight, each.revision]),
    [
      [5, 1],
      [1, 2],
    ],
  )
  assert.equal((await call('GET', `/api/experiments/${one.id}/results`)).fit, null)
  for (const other of [
    [{ name: 'a' }, { name: 'c', revision: 2 }],
    [...variants, { name: 'c' }],
    [{ name: 'a' }, { name: 'b', revision: 1 }],
  ]) {
    const problem = await refused('PUT', `/api/experiments/${one.id}`, {
      name: 'one',
      templateId,
      variants: other,
    })
    assert.equal(problem.errors?.[0]?.field ?? problem.field, '/variants')
  }
  assert.equal(
    (await refused('POST', `/api/experiments/${one.id}/pick`, { variant: 'z' })).code,
    'invalid_request',
  )
  assert.equal((await call('POST', `/api/experiments/${one.id}/stop`)).status, 'stopped')
  assert.equal(
    (await refused('PUT', `/api/experiments/${one.id}`, { name: 'one', templateId, variants })).code,
    'conflict',
  )

  // A winner may be picked later, once.
  assert.equal((await call('POST', `/api/experiments/${one.id}/pick`, { variant: 'a' })).winner, 'a')
  assert.equal((await refused('POST', `/api/experiments/${one.id}/pick`, { variant: 'b' })).code, 'conflict')

  // Before its time, and after it, everybody is told the same.
  const soon = new Date(Date.now() + 3_600_000).toISOString()
  await call('PUT', `/api/experiments/${two.id}`, { name: 'two', templateId, variants, startsAt: soon })
  assert.equal((await call('POST', `/api/experiments/${two.id}/start`)).status, 'scheduled')
  const body = { recipientId: 'person-1', channels: ['in_app'], templateId }
  const sent = await call('POST', '/api/notifications', body)
  assert.equal((await call('GET', `/api/notifications/${sent.id}`)).experiment, null)
  await t.db.pool.query(
    `update experiments set starts_at = now() - interval '2 hours', ends_at = now() - interval '1 hour' where id = $1`,
    [two.id],
  )
  assert.equal((await call('GET', `/api/experiments/${two.id}`)).status, 'ended')
  const late = await call('POST', '/api/notifications', body)
  assert.equal((await call('GET', `/api/notifications/${late.id}`)).experiment, null)
  // Whose time is over makes room.
  const three = await make('three')
  assert.equal((await call('POST', `/api/experiments/${three.id}/start`)).status, 'running')
  assert.equal((await call('GET', `/api/experiments/${two.id}`)).status, 'stopped')
  await call('POST', `/api/experiments/${three.id}/stop`)
  await call('DELETE', `/api/experiments/${three.id}`)
  assert.equal((await refused('GET', `/api/experiments/${three.id}`)).code, 'not_found')
  const listed = await call('GET', `/api/experiments?templateId=${templateId}&limit=1`)
  assert.deepEqual(
    listed.items.map((each: Loose) => each.name),
    ['two'],
  )
  const rest = await call(
    'GET',
    `/api/experiments?templateId=${templateId}&limit=1&cursor=${listed.nextCursor}`,
  )
  assert.deepEqual([rest.items.map((each: Loose) => each.name), rest.nextCursor], [['one'], null])
})
