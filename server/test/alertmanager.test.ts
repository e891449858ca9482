import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { commandPath, need } from '../../scripts/needs.ts'
import { type Loose, eventually, testApp } from './app.ts'

/**
 * A sender that knows nothing of us: Debian's own Alertmanager, configured as its documentation says, with a key of
 * the tenant as credentials.
 */

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise(resolve => server.close(resolve))
  return port
}

interface Alertmanager {
  url: string
  push(alert: object): Promise<void>
  stop(): Promise<void>
}

async function startAlertmanager(webhook: string, key: string): Promise<Alertmanager> {
  const dir = await mkdtemp(join(tmpdir(), 'carillon-alertmanager-'))
  const url = `http://127.0.0.1:${await freePort()}`
  const config = join(dir, 'alertmanager.yml')
  // YAML is a superset of JSON.
  await writeFile(
    config,
    JSON.stringify({
      route: {
        receiver: 'carillon',
        group_by: ['alertname'],
        group_wait: '100ms',
        group_interval: '200ms',
        repeat_interval: '1h',
      },
      receivers: [
        {
          name: 'carillon',
          webhook_configs: [
            {
              url: webhook,
              send_resolved: true,
              http_config: { authorization: { type: 'Bearer', credentials: key } },
            },
          ],
        },
      ],
    }),
  )
  let said = ''
  const child: ChildProcess = spawn(
    commandPath('prometheus-alertmanager')!,
    [
      `--config.file=${config}`,
      `--storage.path=${join(dir, 'data')}`,
      `--web.listen-address=${url.slice('http://'.length)}`,
      `--web.external-url=${url}`,
      '--cluster.listen-address=',
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  for (const stream of [child.stdout!, child.stderr!]) stream.on('data', part => (said += String(part)))
  const ended = new Promise<void>(resolve => child.once('exit', () => resolve()))
  const stop = async () => {
    child.kill('SIGTERM')
    await ended
    await rm(dir, { recursive: true, force: true })
  }
  try {
    await eventually('Alertmanager', () => {
      if (child.exitCode !== null) throw new Error(`Alertmanager ended:\n${said}`)
      return fetch(`${url}/-/ready`).then(
        response => response.ok,
        () => false,
      )
    })
  } catch (error) {
    await stop()
    throw error
  }
  return {
    url,
    async push(alert) {
      const response = await fetch(`${url}/api/v2/alerts`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify([alert]),
      })
      assert.equal(response.status, 200, await response.text())
    },
    stop,
  }
}

test('Alertmanager fires and resolves an alert: both reach the mailbox and the inbox, each once', {
  skip: need('prometheus-alertmanager'),
}, async () => {
  const t = await testApp()
  let alertmanager: Alertmanager | undefined
  try {
    const as = t.tenant.adminKey
    const user = await t.call('PUT', '/api/users/oncall', {
      as,
      body: { addresses: [{ channel: 'email', address: 'oncall@example.org', verified: true }] },
    })
    assert.ok(user.status < 300, user.text)
    const rule = await t.call('POST', '/api/rules', {
      as,
      body: {
        name: 'Tell whoever is on call',
        eventTypes: ['prometheus.alert.firing', 'prometheus.alert.resolved'],
        eventPattern: 'event.data.labels.team == "shop"',
        channels: ['email', 'in_app'],
        recipientSelector: { users: ['oncall'] },
      },
    })
    assert.equal(rule.status, 201, rule.text)

    const alertmanager_ = (alertmanager = await startAlertmanager(
      `${t.url}/webhooks/alertmanager`,
      t.tenant.serviceKey,
    ))
    const startsAt = new Date(Date.now() - 60_000).toISOString()
    const alert = {
      labels: { alertname: 'DiskFull', severity: 'warning', team: 'shop', instance: 'db1:9100' },
      annotations: {
        summary: 'The disk of db1 is 97 % full',
        description: 'It grows by 2 GB an hour & ends <tonight>.',
      },
      startsAt,
      generatorURL: 'http://prometheus.example/graph?g0.expr=disk',
    }
    await alertmanager_.push(alert)

    const mails = async () => (await t.call('GET', '/dev/mailbox.json')).body.items as Loose[]
    const fired = await eventually('the mail of the alert', async () =>
      (await mails()).find(mail => mail.subject === 'Firing: The disk of db1 is 97 % full'),
    )
    assert.deepEqual(fired.recipients, ['oncall@example.org'])
    const mail = (await t.call('GET', `/dev/mailbox.json/${fired.id}`)).body
    assert.match(mail.text, /It grows by 2 GB an hour & ends <tonight>\./)
    assert.match(mail.text, /http:\/\/prometheus\.example\/graph\?g0\.expr=disk/)
    assert.match(mail.html, /It grows by 2 GB an hour &amp; ends &lt;tonight&gt;\./)

    await alertmanager_.push({ ...alert, endsAt: new Date().toISOString() })
    await eventually('the mail of its end', async () =>
      (await mails()).find(one => one.subject === 'Resolved: The disk of db1 is 97 % full'),
    )
    const oncall = await t.tenant.token('oncall')
    const inbox = (await t.call('GET', '/api/notifications/feed', { as: oncall })).body.items as Loose[]
    assert.deepEqual(
      inbox.map(item => [item.eventType, item.subject ?? item.title]),
      [
        ['prometheus.alert.resolved', 'Resolved: The disk of db1 is 97 % full'],
        ['prometheus.alert.firing', 'Firing: The disk of db1 is 97 % full'],
      ],
      JSON.stringify(inbox),
    )
    assert.equal((await mails()).length, 2)
  } finally {
    await alertmanager?.stop()
    await t.stop()
  }
})

const SAMPLE = new URL('../../../shared/contracts/alertmanager-webhook-v4.json', import.meta.url)

test('what Alertmanager repeats is told once; what is not its message is refused', async () => {
  const t = await testApp()
  try {
    const push = (body: unknown) =>
      t.call('POST', '/webhooks/alertmanager', { as: t.tenant.serviceKey, body })
    const alert = (fingerprint: string, status = 'firing') => ({
      status,
      labels: { alertname: 'Up' },
      annotations: {},
      startsAt: '2026-01-01T00:00:00.123456789Z',
      endsAt: status === 'firing' ? '0001-01-01T00:00:00Z' : '2026-01-01T01:00:00Z',
      generatorURL: '',
      fingerprint,
    })
    const message = (...alerts: object[]) => ({
      version: '4',
      groupKey: '{}:{}',
      truncatedAlerts: 0,
      status: 'firing',
      receiver: 'carillon',
      groupLabels: {},
      commonLabels: {},
      commonAnnotations: {},
      externalURL: 'http://alerts.example',
      alerts,
    })
    const first = await push(message(alert('a'), alert('b')))
    assert.deepEqual(
      [first.status, first.body],
      [202, { accepted: 2, duplicates: 0, refused: 0 }],
      first.text,
    )
    const again = await push(message(alert('a'), alert('a', 'resolved'), alert('c')))
    assert.deepEqual(again.body, { accepted: 2, duplicates: 1, refused: 0 })
    for (const [body, field] of [
      [{ ...message(alert('a')), version: '3' }, '/version'],
      [message(), '/alerts'],
      [message({ ...alert('a'), startsAt: 'now' }), '/alerts/0/startsAt'],
      [message({ ...alert('a'), labels: { a: 1 } }), '/alerts/0/labels/a'],
    ] as const) {
      const answer = await push(body)
      assert.deepEqual([answer.status, answer.body.errors[0].field], [400, field], answer.text)
    }
    const long = {
      ...alert('d'),
      annotations: Object.fromEntries(Array.from({ length: 6 }, (_, n) => [`a${n}`, 'x'.repeat(49_000)])),
    }
    const tooLarge = await push(message(long))
    assert.deepEqual([tooLarge.status, tooLarge.body.code], [413, 'body_too_large'], tooLarge.text)
    if (existsSync(SAMPLE)) {
      for (const example of examplesIn(JSON.parse(readFileSync(SAMPLE, 'utf8')))) {
        const answer = await push(example)
        assert.equal(answer.status, 202, answer.text)
      }
    }
  } finally {
    await t.stop()
  }
})

/** Every real message in the vendor's file, wherever it stands. */
function examplesIn(value: unknown): object[] {
  if (typeof value !== 'object' || value === null) return []
  if ('version' in value && value.version === '4' && 'alerts' in value) return [value]
  return Object.values(value).flatMap(examplesIn)
}
