/**
 * The reference pages that come from tables in the code, and the console's types of the API: `node
 * scripts/reference-docs.ts` writes them, and a test compares what stands there with what these functions return.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { listSettings } from '../server/config.ts'
import { catalog, questionsOf } from '../server/deliver/catalog.ts'
import type { AnyProvider } from '../server/deliver/provider.ts'
import { RETRY } from '../server/deliver/retry.ts'
import { ERRORS } from '../server/errors.ts'
import { METRICS } from '../server/observe/metrics.ts'
import { REASONS } from '../server/reasons.ts'
import { CHANNELS } from '../server/types.ts'
import { SCHEMA, consoleTypes } from './console-types.ts'
import { SOLUTIONS } from '../solutions/index.ts'

export const REFERENCE = join(import.meta.dirname, '..', 'docs', 'reference')

/** Each page by its file name. */
export const pages: Record<string, () => string> = {
  'configuration.md': configurationPage,
  'errors.md': errorsPage,
  'metrics.md': metricsPage,
  'providers.md': providersPage,
  'reasons.md': reasonsPage,
}

const madeFrom = (file: string) => `<!-- Made from ${file} by scripts/reference-docs.ts. Change it there. -->`

const GROUPS: Record<string, string> = {
  http: 'The HTTP server',
  limits: 'Request limits',
  database: 'The database',
  data: 'Data folder and keys',
  redis: 'Redis',
  templates: 'Templates',
  assets: 'Pictures',
  auth: 'Tokens',
  outbound: 'Calls to the outside',
  smtp: 'E-mail',
  bounces: 'Bounces by mail',
  providers: 'Providers',
  mailbox: 'The local mailbox',
  process: 'What a process does',
  solutions: 'Solutions',
  ingest: 'Accepting events',
  deliver: 'Delivering',
  realtime: 'Realtime',
  retention: 'How long things are kept',
  observe: 'Logs and traces',
}

function configurationPage(): string {
  const settings = listSettings(SOLUTIONS)
  const groups = [
    ...Object.entries(GROUPS),
    ...SOLUTIONS.flatMap(one => (one.settings ? [[one.id, one.title] as const] : [])),
  ]
  const sections = groups.flatMap(([group, title]) => [
    '',
    `## ${title}`,
    '',
    '| Variable | Default | Meaning |',
    '|---|---|---|',
    ...settings
      .filter(one => one.group === group)
      .map(one => {
        const names = [`\`${one.name}\``]
        if (one.file) names.push(`\`${one.name}_FILE\``)
        if (one.flag !== undefined) names.push(`\`--${one.flag}\``)
        return row(names.join(' '), one.shown === 'none' ? '' : one.shown, one.about)
      }),
  ])
  return page(
    'server/config.ts',
    'Configuration',
    'Carillon is configured by environment variables; a few have a flag of `carillon start`, which wins. An empty ' +
      'variable counts as absent. Secrets can also be read from the file that `NAME_FILE` names; setting both is ' +
      'refused. Everything wrong is reported at once, and a `CARILLON_…` variable that nothing reads is pointed out ' +
      'at the start. `carillon doctor` checks the rest: whether what is configured answers.',
    ...sections,
    '',
    '## The command line',
    '',
    '| Variable | Default | Meaning |',
    '|---|---|---|',
    row('`CARILLON_URL`', 'http://127.0.0.1:4400', 'The server that commands talk to.'),
    row(
      '`CARILLON_KEY` `CARILLON_KEY_FILE`',
      'admin.key of the data folder',
      'Their API key. The one of the data folder goes to servers on this machine only.',
    ),
    row('`CARILLON_NODE`', '', 'A Node 24 to hand over to, where the one `npm ci` installs is missing.'),
  )
}

function errorsPage(): string {
  const rows = (
    Object.entries(ERRORS) as [string, { status: number; title: string; numeric?: number }][]
  ).map(([code, { status, title, numeric }]) =>
    row(
      `<a id="${code}"></a>\`${code}\``,
      String(status),
      numeric === undefined ? '' : String(numeric),
      title,
    ),
  )
  return page(
    'server/errors.ts',
    'Errors',
    'A request that fails answers with `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, ' +
      '`instance`, `code`, `requestId`, and `errors` where it is about fields, each with a JSON pointer or the name of ' +
      'a parameter. `code` is stable: rely on it, not on the texts. `number` is the documented number that some codes ' +
      'also have. 429 and 503 say in `Retry-After` when to try again.',
    '',
    '| Code | Status | Number | Title |',
    '|---|---|---|---|',
    ...rows,
  )
}

function metricsPage(): string {
  const rows = (
    Object.entries(METRICS) as [
      string,
      { kind: string; labels: readonly string[]; help: string; buckets?: readonly number[] },
    ][]
  ).map(([name, { kind, labels, help, buckets }]) =>
    row(
      `\`${name}\``,
      kind,
      labels.map(label => `\`${label}\``).join(' '),
      buckets === undefined ? help : `${help}. Buckets: ${buckets.join(', ')}`,
    ),
  )
  return page(
    'server/observe/metrics.ts',
    'Metrics',
    '`GET /metrics` serves them in the Prometheus text format, together with the usual `process_…` and `nodejs_…` ones ' +
      '(memory, CPU, event loop lag, garbage collection). It is open on a server that listens on this machine alone, or ' +
      'with `CARILLON_METRICS_PUBLIC`; elsewhere Prometheus sends an admin key of the first tenant as bearer token. ' +
      '`system` is `core`, or the solution whose traffic it is. Every process counts for itself: sum over processes, ' +
      'except `queue_size`, `queue_depth` and `planning_queue_size`, which each of them reads from the database: take ' +
      'the maximum.',
    '',
    '| Name | Kind | Labels | Meaning |',
    '|---|---|---|---|',
    ...rows,
  )
}

function reasonsPage(): string {
  const rows = Object.entries(REASONS).map(([reason, { text }]) => row(`\`${reason}\``, text))
  return page(
    'server/reasons.ts',
    'Reasons',
    'Why a delivery was not sent at once, or an event came to nothing. The list is closed: decisions, jobs, attempts, ' +
      'metrics, `carillon why` and the console all use these words.',
    '',
    '| Reason | Meaning |',
    '|---|---|',
    ...rows,
  )
}

/** As much of a settings schema as a page shows. */
interface Field {
  type?: string
  title?: string
  description?: string
  default?: unknown
  secret?: boolean
  enum?: unknown[]
  const?: unknown
  anyOf?: Field[]
  properties?: Record<string, Field>
  required?: string[]
}

function providersPage(): string {
  const byChannel = CHANNELS.flatMap(channel =>
    [...catalog.values()].filter(one => one.channel === channel).sort((a, b) => (a.id < b.id ? -1 : 1)),
  )
  return page(
    'the providers',
    'Providers',
    'Who delivers a channel, and what each of them can do. How one is set up is in the ' +
      '[guide](../guides/providers.md); the variables of the environment are listed in ' +
      '[configuration](configuration.md#providers).',
    '',
    '- **Send**: one request per message, or many messages in one.',
    '- **Failover**: whether the provider takes every address of its channel, or only its own kind, so that others of ' +
      'the channel stand in for those. The next provider is asked when one refuses for the time being, never after a ' +
      'refusal that is final.',
    '- **Callback**: where the vendor says later what became of a message.',
    '- **Repeats**: whether the far end knows our idempotency key again, so that a try of unknown outcome may simply be ' +
      'repeated. Where it does not, the channel decides: `resend` says it twice rather than not at all, `hold` leaves ' +
      'the delivery `unknown` for somebody to look at, and no other provider is asked.',
    '- **Cost**: the setting that says what a message costs where the vendor names no price; kept with each try.',
    '- **Asked**: what the vendor says without being sent anything: whether a device `token` is good, who is in its ' +
      '`topics`, the `status` of a message that it took, whether a `code` that verifies an address is right. Empty where it says nothing of the kind.',
    '- **Limits**: what the vendor takes. Longer text is cut, more per second waits.',
    '',
    '| Provider | Channel | Send | Failover | Callback | Asked | Repeats | Cost | Limits |',
    '|---|---|---|---|---|---|---|---|---|',
    ...byChannel.map(one =>
      row(
        `[\`${one.id}\`](#${one.id})`,
        `\`${one.channel}\``,
        one.sendMany ? 'many at once' : 'one by one',
        one.accepts ? 'by kind of address' : 'any address',
        one.callback ? `\`/webhooks/${one.id}\`` : '',
        questionsOf(one)
          .map(word => `\`${word}\``)
          .join(', '),
        one.mayRepeat ? 'key known' : `\`${RETRY[one.channel].unknown}\``,
        'costPerMessage' in fieldsOf(one.settings) ? '`costPerMessage`' : '',
        limitsOf(one),
      ),
    ),
    ...byChannel.flatMap(one => [
      '',
      `## ${one.id}`,
      '',
      `${one.title}, for the channel \`${one.channel}\`.`,
      '',
      '| Setting | Default | Meaning |',
      '|---|---|---|',
      ...settingRows(one.settings),
      ...(one.addressSettings
        ? [
            '',
            'Of one address:',
            '',
            '| Setting | Default | Meaning |',
            '|---|---|---|',
            ...settingRows(one.addressSettings),
          ]
        : []),
    ]),
  )
}

const fieldsOf = (schema: unknown): Record<string, Field> => (schema as Field).properties ?? {}

function limitsOf({ limits = {} }: AnyProvider): string {
  const { subjectChars, bodyChars, perSecond, concurrent } = limits
  const number = (n: number) => n.toLocaleString('en')
  return [
    subjectChars && `subject ${number(subjectChars)}`,
    bodyChars && `body ${number(bodyChars)}`,
    perSecond && `${number(perSecond)}/s`,
    concurrent && `${number(concurrent)} at once`,
  ]
    .filter(Boolean)
    .join(', ')
}

/** A setting a line; those of a mapping with their path. */
function settingRows(schema: unknown, path = ''): string[] {
  const { required = [], properties = {} } = schema as Field
  return Object.entries(properties).flatMap(([name, field]) => {
    const marks = [
      ...(required.includes(name) && field.default === undefined ? ['required'] : []),
      ...(field.secret ? ['secret'] : []),
    ]
    const about = [field.title && `${field.title}.`, field.description, choicesOf(field)]
      .filter(Boolean)
      .join(' ')
    return [
      row(
        `\`${path}${name}\`${marks.length > 0 ? ` (${marks.join(', ')})` : ''}`,
        field.default === undefined ? '' : `\`${JSON.stringify(field.default)}\``,
        about.replaceAll('<', '&lt;'),
      ),
      ...settingRows(field, `${path}${name}.`),
    ]
  })
}

/** More are a list of the vendor's, such as languages. */
const FEW = 8

function choicesOf({ enum: values, anyOf }: Field): string | undefined {
  const all = values ?? anyOf?.map(one => one.const).filter(one => one !== undefined)
  return all && all.length > 0 && all.length <= FEW
    ? `One of ${all.map(one => `\`${String(one)}\``).join(', ')}.`
    : undefined
}

const page = (file: string, title: string, intro: string, ...lines: string[]): string =>
  [`# ${title}`, '', madeFrom(file), '', intro, ...lines, ''].join('\n')

const row = (...cells: string[]): string =>
  `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`

if (import.meta.main) {
  for (const [name, make] of Object.entries(pages)) writeFileSync(join(REFERENCE, name), make())
  writeFileSync(SCHEMA, await consoleTypes())
}
