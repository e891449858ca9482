import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'
import { NO_MESSAGES, sharedMessages } from './messages.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  for (const [user, locale] of [
    ['ann', 'en-GB'],
    ['ben', 'de-AT'],
    ['cleo', 'pt-BR'],
    ['dan', 'ja'],
  ]) {
    await ok('PUT', `/api/users/${user}`, { locale })
  }
})
after(() => t.stop())

const call = (method: string, path: string, body?: unknown, as = t.tenant.adminKey) =>
  t.call(method, path, { as, body })
const ok = async (method: string, path: string, body?: unknown, as?: string): Promise<Loose> => {
  const answer = await call(method, path, body, as)
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const put = (locale: string, messages: object, more: object = {}) =>
  call('PUT', `/api/messages/${locale}`, { messages, ...more })
const said = async (templateId: string, userId: string, data: object = {}): Promise<string> => {
  const { body } = await call('POST', '/api/notifications/preview', { templateId, userId, data })
  return body.content?.body ?? body.detail
}
/** What really arrives. */
const told = async (templateId: string, userId: string, templateVars: object = {}): Promise<Loose> => {
  const sent = await ok('POST', '/api/notifications', { recipientId: userId, templateId, templateVars })
  const { items } = await ok('GET', '/api/notifications/feed', undefined, await t.tenant.token(userId))
  return items.find(({ id }: Loose) => id === sent.id)?.body ?? sent
}

test('a message is looked up in the languages asked for, wider ones of each, and lastly in any', () => {
  const shared = sharedMessages({
    'pt-BR': { a: 'a pt-BR' },
    pt: { a: 'a pt', b: 'b pt' },
    fr: { c: 'c fr' },
    en: { a: 'a en' },
  })
  const reader = { locale: 'en', timezone: 'UTC' }
  const find = (key: string, ...locales: (string | undefined)[]) =>
    shared.find(key, ...locales)?.format(() => '', reader)
  assert.equal(find('a', 'pt-BR'), 'a pt-BR')
  assert.equal(find('a', 'pt-PT', 'en'), 'a pt')
  assert.equal(find('b', 'pt-BR', 'en'), 'b pt')
  assert.equal(find('a', 'de', undefined, 'pt'), 'a pt')
  assert.equal(find('a', 'de'), 'a en')
  assert.equal(find('c', 'de', 'en'), 'c fr')
  assert.equal(find('d', 'en'), undefined)
  assert.equal(NO_MESSAGES.find('a', 'en'), undefined)
  assert.deepEqual(
    [shared.says('pt', 'b'), shared.says('pt-br', 'b'), shared.says('en', 'toString')],
    [true, false, false],
  )
})

test('a language is written, read, changed in part and removed; nobody undoes the change of another', async () => {
  const made = await put('PT_br', { hi: 'Oi {name}', bye: 'Tchau' })
  assert.equal(made.status, 200, made.text)
  const { createdAt, updatedAt, updatedBy, ...rest } = made.body
  assert.ok(createdAt && updatedAt && updatedBy)
  assert.deepEqual(rest, {
    locale: 'pt-BR',
    revision: 1,
    messages: { hi: 'Oi {name}', bye: 'Tchau' },
    warnings: [],
  })
  const change = (messages: object, revision?: number) =>
    call('PATCH', '/api/messages/pt-BR', { messages, ...(revision !== undefined && { revision }) })
  assert.equal((await change({ hi: 'Olá {name}', bye: null, now: 'Agora' }, 1)).body.revision, 2)
  assert.equal((await change({ hi: 'Oi' }, 1)).status, 409)
  assert.equal((await change({ now: 'Agora' })).body.revision, 2, 'what stays as it is')
  const whole = await ok('GET', '/api/messages/pt-br')
  assert.deepEqual(whole.messages, { hi: 'Olá {name}', now: 'Agora' })

  assert.equal((await put('cs', { n: '{n, plural, one {x} other {y}}' }, { revision: 3 })).status, 409)
  const czech = await put('cs', { n: '{n, plural, one {x} other {y}}' }, { revision: 0 })
  assert.match(czech.body.warnings[0].message, /no words for few, many in cs/)
  const page = await ok('GET', '/api/messages?limit=1')
  assert.deepEqual([page.items[0].locale, page.items[0].keys], ['cs', 1])
  const next = await ok('GET', `/api/messages?limit=1&cursor=${page.nextCursor}`)
  assert.deepEqual([next.items[0].locale, next.items[0].keys, next.nextCursor], ['pt-BR', 2, null])

  const wrong = await put('de', { a: 'x\n{n, plural, one {', b: '{n, number, money}', c: 'fine' })
  assert.deepEqual([wrong.status, wrong.body.code, wrong.body.line], [400, 'invalid_template', 2])
  assert.deepEqual(
    wrong.body.errors.map(({ field }: Loose) => field),
    ['/messages/a', '/messages/b'],
  )
  for (const [path, body] of [
    ['/api/messages/english-', { messages: {} }],
    ['/api/messages/de', { messages: { 'a key': 'x' } }],
    ['/api/messages/de', { messages: { a: 'x'.repeat(5_001) } }],
    ['/api/messages/de', { messages: { a: null } }],
    ['/api/messages/de', {}],
  ] as const) {
    assert.equal((await call('PUT', path, body)).status, 400, path)
  }
  for (const [method, path] of [
    ['GET', '/api/messages/de'],
    ['DELETE', '/api/messages/de'],
  ] as const) {
    assert.equal((await call(method, path)).status, 404)
  }
  const { items } = await ok('GET', '/api/audit?objectKind=messages')
  const [, updated] = items.filter(({ objectId }: Loose) => objectId === 'pt-BR').reverse()
  assert.deepEqual(updated.details, {
    revision: 2,
    added: 1,
    changed: 1,
    removed: 1,
    changes: {
      hi: { before: 'Oi {name}', after: 'Olá {name}' },
      bye: { before: 'Tchau' },
      now: { after: 'Agora' },
    },
  })
  await ok('DELETE', '/api/messages/cs')
  await ok('DELETE', '/api/messages/pt-BR')
  assert.deepEqual((await ok('GET', '/api/messages')).items, [])
})

test('texts say them after their own, in the reader’s language; a change is heard at once', async () => {
  const template = {
    name: 'welcome',
    locale: 'en',
    channels: { default: { body: '{{t "hello"}} {{t "left" n=(lookup data "count")}}' } },
    messages: { en: { hello: 'Hello {name}!' }, de: { hello: 'Hallo {name}!' } },
  }
  // Nobody ever said it, so it is a slip of the pen.
  const early = await call('POST', '/api/templates', template)
  assert.deepEqual([early.status, early.body.errors[0].field], [400, '/channels/default/body'])
  assert.match(early.body.detail, /there is no message "left"/)

  await put('en', { left: '{n, plural, one {# thing} other {# things}} left', hello: 'Never said' })
  await put('pt', { left: '{n, plural, one {falta # coisa} other {faltam # coisas}}' })
  const made = await ok('POST', '/api/templates', template)
  assert.deepEqual(made.warnings, [
    { field: '/messages/de', message: 'No message for left: said in en, or in what there is' },
    { field: '/messages/pt', message: 'No message for hello: said in en, or in what there is' },
  ])
  const data = { name: 'Kim', count: 2 }
  assert.equal(await said(made.id, 'ann', data), 'Hello Kim! 2 things left')
  assert.equal(await said(made.id, 'ben', data), 'Hallo Kim! 2 things left')
  assert.equal(await said(made.id, 'cleo', data), 'Hello Kim! faltam 2 coisas')
  assert.equal(await said(made.id, 'dan', { ...data, count: 1 }), 'Hello Kim! 1 thing left')
  assert.equal(await told('welcome', 'ben', data), 'Hallo Kim! 2 things left')

  const kept = await ok('POST', '/api/notifications', {
    recipientId: 'ben',
    templateId: made.id,
    templateVars: data,
  })
  await put('de', { left: 'noch {n}' })
  assert.equal(await told('welcome', 'ben', data), 'Hallo Kim! noch 2')
  // What was said is kept with the message: it does not change with the words.
  const { items } = await ok('GET', '/api/notifications/feed', undefined, await t.tenant.token('ben'))
  assert.equal(items.find(({ id }: Loose) => id === kept.id).body, 'Hallo Kim! 2 things left')

  const draft = await ok('POST', '/api/notifications/preview', {
    draft: { channels: { default: { body: '{{t "left" n=3}}' } } },
    userId: 'cleo',
  })
  assert.equal(draft.content.body, 'faltam 3 coisas')
  const verdict = await ok('POST', `/api/templates/${made.id}/validate`, {
    channels: { default: { body: '{{t "left"}}{{t "nowhere"}}' } },
  })
  assert.deepEqual([verdict.valid, verdict.errors.length], [false, 1])
  const fine = await ok('POST', `/api/templates/${made.id}/validate`, {
    channels: { default: { body: '{{t "left"}}' } },
  })
  assert.deepEqual(fine.fields, ['n'], 'what the message reads')
})

test('a text counts as written in a language only where it says something in it', async () => {
  await put('fr', { other: 'Autre' })
  const plain = await ok('POST', '/api/templates', {
    name: 'plain',
    channels: { default: { body: '{{number n}} {{t "left" n=1}}' } },
  })
  await ok('PUT', '/api/users/ella', { locale: 'fr' })
  assert.equal(await said(plain.id, 'ella', { n: 1234.5 }), '1,234.5 1 thing left')
  await put('fr', { left: 'encore {n}' })
  assert.equal(await said(plain.id, 'ella', { n: 1234.5 }), '1\u202f234,5 encore 1')
})

test('what templates say is not lost unnoticed; without words nothing is sent, and why says so', async () => {
  await put('en', { left: 'l {n}', only: 'Only here' })
  const { id } = await ok('POST', '/api/templates', {
    name: 'only',
    channels: { default: { body: '{{t "only"}}' } },
  })
  for (const locale of ['de', 'fr', 'pt']) await ok('DELETE', `/api/messages/${locale}`)
  const refused = await call('DELETE', '/api/messages/en')
  assert.equal(refused.status, 409)
  assert.match(refused.body.detail, /Only en has "(only|left)", which is said by (only|plain, welcome)\./)
  assert.equal(await said(id, 'ann'), 'Only here')
  const removed = await call('PATCH', '/api/messages/en', { messages: { only: null } })
  assert.deepEqual(removed.body.warnings, [
    { field: '/messages/only', message: 'No language has it any more, and is to be said by only' },
  ])
  const sent = await ok('POST', '/api/notifications', { recipientId: 'ann', templateId: id })
  assert.deepEqual([sent.status, sent.suppressed], ['SUPPRESSED', 1])
  const why = await call('GET', `/api/events/${sent.eventId}/explain`)
  assert.match(why.text, /render_failed/)
  assert.match(why.text, /there is no message \\"only\\"/)
})

test('of however many templates mention a message, the one that says it is found', async () => {
  await put('en', { left: '{n} left', zz_said: 'Said' })
  const write = (name: string, more: object) =>
    ok('POST', '/api/templates', { name, channels: { default: { body: 'zz_said' } }, ...more })
  for (let i = 0; i < 101; i++) await write(`mention-${i}`, {})
  const { id } = await write('zz-says', {
    channels: { default: { body: 'x', data: { deep: ['{{> inner}}'] } } },
    partials: { inner: '{{upper (t "zz_said")}}' },
  })
  const removed = () => call('PATCH', '/api/messages/en', { messages: { zz_said: null } })
  const missed = { field: '/messages/zz_said', message: /is to be said by zz-says$/ }
  const seen = async () => {
    const { body } = await removed()
    await ok('PATCH', '/api/messages/en', { messages: { zz_said: 'Said' } })
    return body.warnings.find(({ field }: Loose) => field === missed.field)?.message
  }
  assert.match(await seen(), missed.message)
  // What an earlier revision said is said again by going back to it, and by nobody in between.
  const change = { name: 'zz-says', channels: { default: { body: 'x' } } }
  await ok('PUT', `/api/templates/${id}`, change)
  assert.equal(await seen(), undefined)
  await ok('POST', `/api/templates/${id}/rollback`, { revision: 1 })
  assert.match(await seen(), missed.message)
  await ok('PUT', `/api/templates/${id}`, change)
  await removed()
  const { warnings } = await ok('POST', `/api/templates/${id}/rollback`, { revision: 1 })
  assert.deepEqual(warnings, [
    { field: '/messages', message: 'No language has zz_said: what says it is not sent' },
  ])
  await ok('PATCH', '/api/messages/en', { messages: { zz_said: 'Said' } })
  await ok('DELETE', `/api/templates/${id}`)
  assert.equal(await seen(), undefined)
})

test('a template that another tenant copies brings what it says along', async () => {
  await put('en', { left: '{n} left', foot: 'Yours, the operator' })
  await put('de', { foot: 'Ihr Betreiber' })
  await ok('POST', '/api/templates', {
    name: 'house',
    locale: 'en',
    channels: { default: { body: '{{t "foot"}}' } },
  })
  const as = t.other.adminKey
  await ok('PUT', '/api/users/ulf', { locale: 'de' }, as)
  const { id } = await ok('POST', '/api/notifications', { recipientId: 'ulf', templateId: 'house' }, as)
  const body = await eventually('the item', async () => {
    const token = await t.other.token('ulf')
    const { items } = (await t.call('GET', '/api/notifications/feed', { as: token })).body
    return items.find((one: Loose) => one.id === id)?.body
  })
  assert.equal(body, 'Ihr Betreiber')
  const [copy] = (await ok('GET', '/api/templates?name=house', undefined, as)).items
  const whole = await ok('GET', `/api/templates/${copy.id}`, undefined, as)
  assert.deepEqual(whole.messages, { en: { foot: 'Yours, the operator' }, de: { foot: 'Ihr Betreiber' } })
  assert.deepEqual((await ok('GET', '/api/messages', undefined, as)).items, [], 'nothing of the operator’s')
})
