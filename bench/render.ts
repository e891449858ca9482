/**
 * What writing a mail costs, on one core.
 *
 *   node bench/render.ts
 *
 * A mail of 6 KB of HTML with a table of eight rows, written for many readers in turn: names, numbers and dates in the
 * language and zone of each. Templates are compiled once, as for a running server. Beside it stands Handlebars itself,
 * compiled too, without numbers and dates; and the same mail when its author wrote no text part, which is then made of
 * the HTML. The table shows medians of 7 rounds in turn.
 */
import Handlebars from 'handlebars'
import { compileRevision, render } from '../server/render/content.ts'
import type { TemplateRevision } from '../server/render/content.ts'
import { eventView, templateView } from '../server/render/view.ts'
import { figure, machine, median, table } from './machine.ts'

const ROUNDS = 7
const GOAL = 40_000
const READERS = 1_000
const LOCALES = ['en-GB', 'de', 'pt-BR', 'fr', 'ja']
const ZONES = ['Europe/London', 'Europe/Berlin', 'America/Sao_Paulo', 'Europe/Paris', 'Asia/Tokyo']
const now = new Date('2026-11-21T09:00:00Z')

const cell = 'padding:8px 12px;border-bottom:1px solid #e2e2e2;font:15px/1.5 Helvetica,Arial,sans-serif'
const money = (name: string) => `{{number ${name} currency="EUR"}}`
const source = (plain: boolean) => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>Order {{order}}</title></head>
<body style="margin:0;background:#f4f4f4"><table role="presentation" width="100%"><tr><td align="center">
<table role="presentation" width="600" style="background:#ffffff;border-radius:8px">
<tr><td style="padding:24px"><h1 style="font:700 24px/1.3 Helvetica,Arial,sans-serif">Thank you, {{user.attributes.name}}</h1>
<p style="font:15px/1.5 Helvetica,Arial,sans-serif">Your order {{order}} left us on ${plain ? '{{event.time}}' : '{{date event.time style="long"}}'}{{#if express}}, by express{{/if}}.
It should arrive within {{days}} days; somebody has to be at home to sign for it. ${'The parcel has a number of its own, which the carrier knows. '.repeat(9)}</p></td></tr>
<tr><td style="padding:0 24px"><table width="100%">
{{#each items}}<tr><td style="${cell}">{{name}}</td><td align="right" style="${cell}">{{count}}</td><td align="right" style="${cell}">${plain ? '{{price}}' : money('price')}</td></tr>
{{/each}}<tr><td style="${cell}"><b>Total</b></td><td></td><td align="right" style="${cell}"><b>${plain ? '{{total}}' : money('total')}</b></td></tr>
</table></td></tr><tr><td style="padding:24px"><a href="https://shop.example/orders/{{order}}" style="background:#1a4fd0;color:#ffffff;padding:12px 20px;border-radius:6px">See the order</a></td></tr>
<tr><td style="padding:24px;color:#666666;font:13px/1.5 Helvetica,Arial,sans-serif">${'You get this mail because you ordered something. '.repeat(12)}</td></tr>
</table></td></tr></table></body></html>`
const text = `Thank you, {{user.attributes.name}}. Your order {{order}} is on its way:
{{#each items}}{{count}} × {{name}}, ${money('price')}
{{/each}}Total: ${money('total')}`

const revision = (content: { html: string; body?: string }): TemplateRevision => ({
  templateId: 'bench',
  revision: 1,
  name: 'bench',
  channels: { email: { subject: 'Order {{order}} for {{user.attributes.name}}', ...content } },
})
const written = compileRevision(revision({ html: source(false), body: text }))
const withoutText = compileRevision(revision({ html: source(false) }))
const handlebars = {
  subject: Handlebars.compile('Order {{order}} for {{user.attributes.name}}', { noEscape: true }),
  html: Handlebars.compile(source(true)),
  body: Handlebars.compile(
    text.replaceAll(money('price'), '{{price}}').replaceAll(money('total'), '{{total}}'),
    { noEscape: true },
  ),
}

const eventOf = (n: number) =>
  eventView({
    tenantId: 1,
    id: '019388c0-0000-7000-8000-000000000000',
    source: 'bench',
    type: 'shop.order.shipped',
    time: new Date(now.getTime() + n * 1_000),
    receivedAt: now,
    data: {
      order: `A-${10_482 + n}`,
      express: true,
      days: 3,
      total: 184.5 + n,
      items: Array.from({ length: 8 }, (_, i) => ({
        name: `Thing & part ${i}`,
        count: i + 1,
        price: 5.125 * (i + 1) + n / 8,
      })),
    },
  })
const event = eventOf(0)
const viewOf = (i: number, of: typeof event) =>
  templateView({
    event: of,
    user: {
      id: `u${i}`,
      locale: LOCALES[i % LOCALES.length]!,
      timezone: ZONES[i % ZONES.length]!,
      attributes: { name: `Reader <${i}>` },
    },
    notification: { id: of.id, priority: 'NORMAL' },
    tenant: { name: 'bench' },
    now,
  })
const views = Array.from({ length: READERS }, (_, i) => viewOf(i, event))
const ownViews = Array.from({ length: READERS }, (_, i) => viewOf(i, eventOf(i)))
const plainViews = views.map(({ names }) => ({ ...event.data, event: names['event'], user: names['user'] }))

const write = (template: typeof written, view: (typeof views)[number]) =>
  render(template, 'email', view.locale, view)
const ways: [name: string, count: number, write: (i: number) => unknown][] = [
  ['one event for many readers', 40_000, i => write(written, views[i % READERS]!)],
  ['an event of its own for each reader', 20_000, i => write(written, ownViews[i % READERS]!)],
  [
    'Handlebars: one event, numbers and dates as they come',
    20_000,
    i => {
      const view = plainViews[i % READERS]!
      return handlebars.subject(view) + handlebars.html(view) + handlebars.body(view)
    },
  ],
  ['one event, text part made of the HTML', 2_000, i => write(withoutText, views[i % READERS]!)],
]

let kept = 0
function rate(count: number, write: (i: number) => unknown): number {
  const from = performance.now()
  for (let i = 0; i < count; i++) if (write(i)) kept++
  return (count / (performance.now() - from)) * 1_000
}

const bytes = Buffer.byteLength(render(written, 'email', 'en-GB', views[0]!).html ?? '')
for (const [, count, write] of ways) rate(count / 4, write)
const rates = ways.map((): number[] => [])
for (let round = 0; round < ROUNDS; round++) {
  for (const [at, [, count, write]] of ways.entries()) rates[at]!.push(rate(count, write))
}
const medians = rates.map(median)
console.log(machine())
console.log(`${figure(bytes)} bytes of HTML\n`)
console.log(
  table(
    ['one core', 'a second', 'of the first'],
    ways.map(([name], at) => [name, figure(medians[at]!), (medians[at]! / medians[0]!).toFixed(2)]),
  ),
)
console.log(`\nGoal: ${figure(GOAL)} a second. ${medians[0]! >= GOAL ? 'Met' : 'Missed'}. (${kept} written)`)
