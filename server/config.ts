import { randomBytes } from 'node:crypto'
import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import {
  allRoles,
  bytes,
  confidential,
  days,
  integer,
  oneOf,
  optional,
  readBounceAddress,
  readBucket,
  readDatabaseUrl,
  readHeaders,
  readJwtSecret,
  readMasterKeys,
  readNetworks,
  readOrigins,
  readPem,
  readPort,
  readPublicKey,
  readRatio,
  readRedisUrl,
  readRoles,
  readSender,
  readSmtpSecurity,
  readSolutions,
  readText,
  readWebUrl,
  type Secret,
  type Setting,
  type SettingsTable,
  type ValuesOf,
  secret,
  setting,
  toggle,
} from './config-values.ts'
import type { MasterKey } from './db/seal.ts'
import { CHANNELS } from './types.ts'

export { type Roles, type Secret, type Setting, type SmtpSecurity, secret } from './config-values.ts'

/**
 * Every setting of the server, once: its variable, its default, what it means and in which unit. The type
 * `Config`, the command line's flags, docs/reference/configuration.md and the warning about unknown variables
 * all come from this table.
 *
 * Names that other software uses for the same thing are kept (`DATABASE_URL`, `SMTP_HOST`, `OTEL_…`); everything
 * that is ours alone begins with `CARILLON_`. An empty variable counts as absent.
 */
export const SETTINGS = {
  http: {
    port: integer('PORT', 4400, 0, 65_535, 'TCP port. 0 takes any free one.', { flag: 'port' }),
    host: optional(
      'HOST',
      'Address to listen on. Default: 127.0.0.1 with the embedded database, else 0.0.0.0.',
      readText,
      { flag: 'host' },
    ),
    publicUrl: optional(
      'PUBLIC_URL',
      'How others reach this server: the beginning of every link it sends out. Default: http://localhost:PORT.',
      readWebUrl,
    ),
    corsOrigins: setting(
      'CORS_ORIGINS',
      [],
      'none',
      'Origins whose pages may call the API, comma separated, or *.',
      readOrigins,
    ),
    trustedProxies: setting(
      'CARILLON_TRUSTED_PROXIES',
      [],
      'none',
      'Networks (CIDR) of reverse proxies whose X-Forwarded-For is believed, comma separated.',
      readNetworks,
    ),
    bodyLimitBytes: bytes(
      'CARILLON_BODY_LIMIT',
      1024 ** 2,
      1024,
      64 * 1024 ** 2,
      'Largest body of a single request, in bytes.',
    ),
    batchBodyLimitBytes: bytes(
      'CARILLON_BATCH_BODY_LIMIT',
      16 * 1024 ** 2,
      1024,
      256 * 1024 ** 2,
      'Largest body of a batch of events or sends, in bytes.',
    ),
    batchItems: integer('CARILLON_BATCH_ITEMS', 1000, 1, 10_000, 'Most items of one batch.'),
    requestTimeoutMs: integer(
      'CARILLON_REQUEST_TIMEOUT_MS',
      30_000,
      1000,
      600_000,
      'Time a client has to send its whole request, in milliseconds.',
    ),
    keepAliveMs: integer(
      'CARILLON_KEEP_ALIVE_MS',
      72_000,
      1000,
      600_000,
      'How long an idle connection stays open, in milliseconds; longer than your load balancer keeps it.',
    ),
    metricsPublic: toggle(
      'CARILLON_METRICS_PUBLIC',
      false,
      'Serve /metrics to everybody. Otherwise it is open only where HOST is this machine alone, and else needs an operator key.',
    ),
    drainMs: integer(
      'CARILLON_DRAIN_MS',
      20_000,
      0,
      600_000,
      'How long a stopping server lets running work finish, in milliseconds.',
    ),
  },

  limits: {
    perUser: integer('CARILLON_LIMIT_PER_USER', 300, 1, 10_000_000, 'Requests a minute of one person.'),
    perIp: integer(
      'CARILLON_LIMIT_PER_IP',
      600,
      1,
      10_000_000,
      'Requests a minute of one address, counted for people and public paths.',
    ),
    perKey: integer(
      'CARILLON_LIMIT_PER_KEY',
      60_000,
      1,
      10_000_000,
      'Requests a minute of one API key or service token.',
    ),
    failuresPerIp: integer(
      'CARILLON_LIMIT_FAILURES_PER_IP',
      100,
      1,
      1_000_000,
      'Refused credentials a minute from one address before it has to wait.',
    ),
  },

  database: {
    url: confidential(
      'DATABASE_URL',
      'Where PostgreSQL 16 or later is. Absent: an embedded one is run in the data folder.',
      readDatabaseUrl,
    ),
    poolSize: integer('CARILLON_DB_POOL', 10, 2, 200, 'Connections for everything but the lanes.'),
    statementTimeoutMs: integer(
      'CARILLON_DB_STATEMENT_TIMEOUT_MS',
      30_000,
      0,
      3_600_000,
      'A statement of the API is cancelled after so many milliseconds. 0: never.',
    ),
    embeddedPort: integer(
      'CARILLON_EMBEDDED_PORT',
      0,
      0,
      65_535,
      'TCP port of the embedded PostgreSQL on 127.0.0.1. 0: the one used last time, or a free one.',
    ),
  },

  data: {
    dir: setting(
      'CARILLON_DATA_DIR',
      'data',
      './data',
      'Folder of the embedded database, the generated keys and the mailbox.',
      resolve,
      { flag: 'data-dir' },
    ),
    masterKeys: confidential(
      'CARILLON_MASTER_KEY',
      '32 bytes in hex or base64 that wrap every data key; to rotate, `0:<old>,1:<new>`: the last one wraps, all unwrap. With the embedded database one is made in the data folder; otherwise it is required.',
      readMasterKeys,
    ),
  },

  redis: {
    url: confidential(
      'REDIS_URL',
      'Redis or Valkey, for limits and realtime shared between processes. Work goes on while it is away.',
      readRedisUrl,
    ),
  },

  auth: {
    jwtSecret: confidential(
      'JWT_SECRET',
      'At least 32 bytes; accepts tokens signed with HS256, HS384 or HS512.',
      readJwtSecret,
    ),
    jwtPublicKey: optional(
      'JWT_PUBLIC_KEY',
      'PEM (SPKI), a JWK or a JWK set; accepts RS, PS, ES and EdDSA tokens.',
      readPublicKey,
      { file: true },
    ),
    jwksUrl: optional(
      'JWKS_URL',
      'Where the issuer publishes its keys. Instead of JWT_PUBLIC_KEY.',
      readWebUrl,
    ),
    issuer: optional('JWT_ISSUER', 'What `iss` must be.', readText),
    audience: optional('JWT_AUDIENCE', 'What `aud` must contain.', readText),
    tenantClaim: setting(
      'JWT_TENANT_CLAIM',
      'tenant',
      'tenant',
      'The claim that names the tenant.',
      readText,
    ),
    defaultTenant: optional(
      'JWT_DEFAULT_TENANT',
      'Tenant of tokens without that claim. Absent: they are refused.',
      readText,
    ),
    clockToleranceSeconds: integer(
      'JWT_CLOCK_TOLERANCE',
      30,
      0,
      600,
      'How far the clocks of issuer and server may differ, in seconds.',
    ),
  },

  templates: {
    dir: optional(
      'CARILLON_TEMPLATES_DIR',
      'Folder of YAML files, one template each, for tenants that have none of that name.',
      readText,
    ),
  },

  assets: {
    maxBytes: bytes(
      'CARILLON_ASSET_BYTES',
      5 * 1024 ** 2,
      1024,
      64 * 1024 ** 2,
      'Largest picture that can be uploaded, in bytes.',
    ),
    tenantBytes: integer(
      'CARILLON_ASSETS_BYTES',
      1024 ** 3,
      1024,
      2 ** 50,
      'All pictures of one tenant together, in bytes.',
    ),
    store: optional(
      'ASSET_STORE_URL',
      'Bucket for pictures: `s3://bucket/folder?region=eu-central-1`, with `&endpoint=https://…` for other stores than Amazon’s that speak S3, or `gs://bucket/folder`. Absent: they are in the database.',
      readBucket,
    ),
    storeKeyId: optional(
      'ASSET_STORE_KEY_ID',
      'Its access key (of Google: an HMAC key). Default: AWS_ACCESS_KEY_ID.',
      readText,
    ),
    storeSecret: confidential(
      'ASSET_STORE_SECRET',
      'The secret of that key. Default: AWS_SECRET_ACCESS_KEY.',
      readText,
    ),
  },

  outbound: {
    allow: setting(
      'OUTBOUND_ALLOW',
      [],
      'none',
      'Networks (CIDR) that webhooks may call although they are not public, comma separated.',
      readNetworks,
    ),
    httpsOnly: toggle('CARILLON_OUTBOUND_HTTPS_ONLY', false, 'Refuse webhooks to plain http.'),
    connections: integer('CARILLON_OUTBOUND_CONNECTIONS', 256, 1, 4096, 'Connections per origin.'),
    waiting: integer(
      'CARILLON_OUTBOUND_WAITING',
      10_000,
      0,
      1_000_000,
      'Requests per origin that may wait for a connection.',
    ),
    timeoutMs: integer(
      'CARILLON_OUTBOUND_TIMEOUT_MS',
      10_000,
      100,
      60_000,
      'Time for one request to a provider or endpoint, in milliseconds.',
    ),
    certificates: optional(
      'CARILLON_OUTBOUND_CA',
      'PEM certificates of authorities to trust besides those of the system.',
      readPem,
      { file: true },
    ),
  },

  smtp: {
    host: optional(
      'SMTP_HOST',
      'Mail server. Absent with the embedded database: mail goes to the local mailbox.',
      readText,
    ),
    port: integer('SMTP_PORT', 587, 1, 65_535, 'TCP port of the mail server.'),
    security: setting(
      'SMTP_SECURE',
      'auto',
      'auto',
      'tls (or true): TLS from the first byte. starttls (or false): STARTTLS, required. opportunistic: where offered. none: never. auto: tls on port 465, else starttls, except towards this machine.',
      readSmtpSecurity,
    ),
    username: optional('SMTP_USERNAME', 'Account at the mail server.', readText),
    password: confidential('SMTP_PASSWORD', 'Its password.', readText),
    from: optional(
      'SMTP_FROM',
      'Sender, such as `Carillon <notify@example.org>`. Required with SMTP_HOST.',
      readSender,
    ),
    dkimSelector: optional(
      'SMTP_DKIM_SELECTOR',
      'Signs mail (DKIM) under this selector of the domain.',
      readText,
    ),
    dkimDomain: optional('SMTP_DKIM_DOMAIN', 'Domain it signs for. Default: that of SMTP_FROM.', readText),
    dkimKey: confidential('SMTP_DKIM_KEY', 'RSA private key to sign with, PEM.', readText),
    connections: integer('SMTP_CONNECTIONS', 5, 1, 100, 'Connections at once.'),
    perSecond: integer('SMTP_PER_SECOND', 0, 0, 100_000, 'Most messages a second. 0: no limit of our own.'),
  },

  bounces: {
    address: optional(
      'CARILLON_BOUNCE_ADDRESS',
      'Where bounces of mail sent by SMTP come back, such as `bounces@mail.example.org`; what names the delivery is put behind its name: `bounces+…@mail.example.org`.',
      readBounceAddress,
    ),
    port: optional(
      'CARILLON_BOUNCE_PORT',
      'TCP port of a small SMTP server that takes these bounces, and complaints. Route mail of the address there.',
      readPort,
    ),
  },

  providers: {
    file: optional(
      'CARILLON_PROVIDERS_FILE',
      'YAML list of providers with their settings (docs/guides/providers.md). `${NAME}` in it is read from the environment.',
      readText,
    ),
    sendgridKey: confidential('SENDGRID_API_KEY', 'Mail through SendGrid.', readText),
    sendgridFrom: optional('SENDGRID_FROM_EMAIL', 'Its sender. Required with the key.', readText),
    sendgridFromName: optional('SENDGRID_FROM_NAME', "The sender's name.", readText),
    sendgridPublicKey: optional('SENDGRID_WEBHOOK_PUBLIC_KEY', 'Verifies what SendGrid posts.', readText),
    mailgunKey: confidential('MAILGUN_API_KEY', 'Mail through Mailgun.', readText),
    mailgunDomain: optional('MAILGUN_DOMAIN', 'Its sending domain.', readText),
    mailgunFrom: optional('MAILGUN_FROM', 'Its sender.', readText),
    mailgunSigningKey: confidential('MAILGUN_SIGNING_KEY', 'Verifies what Mailgun posts.', readText),
    sesFrom: optional('SES_FROM_EMAIL', 'Mail through Amazon SES, from this sender.', readText),
    awsRegion: optional('AWS_REGION', 'Region of Amazon SES and SNS.', readText),
    awsKeyId: optional('AWS_ACCESS_KEY_ID', 'Access key of Amazon SES and SNS.', readText),
    awsSecret: confidential('AWS_SECRET_ACCESS_KEY', 'Its secret.', readText),
    awsToken: confidential('AWS_SESSION_TOKEN', 'Its session token, where it has one.', readText),
    snsSms: toggle('SNS_SMS', false, 'SMS through Amazon SNS.'),
    twilioSid: optional('TWILIO_ACCOUNT_SID', 'SMS, calls and WhatsApp through Twilio.', readText),
    twilioToken: confidential('TWILIO_AUTH_TOKEN', 'Its token. Required with the account.', readText),
    twilioFrom: optional('TWILIO_FROM_NUMBER', 'Sends SMS from this number.', readText),
    twilioService: optional('TWILIO_MESSAGING_SERVICE_SID', 'Sends SMS through this service.', readText),
    twilioVerify: optional(
      'TWILIO_VERIFY_SERVICE_SID',
      'Sends codes that verify numbers through this service of Twilio Verify.',
      readText,
    ),
    twilioVoiceFrom: optional('TWILIO_VOICE_FROM', 'Calls from this number.', readText),
    twilioWhatsappFrom: optional('TWILIO_WHATSAPP_FROM', 'Sends WhatsApp from this number.', readText),
    messagebirdKey: confidential('MESSAGEBIRD_ACCESS_KEY', 'SMS through MessageBird.', readText),
    messagebirdOriginator: optional('MESSAGEBIRD_ORIGINATOR', 'Its sender. Required with the key.', readText),
    messagebirdSigningKey: confidential(
      'MESSAGEBIRD_SIGNING_KEY',
      'Verifies what MessageBird posts.',
      readText,
    ),
    whatsappPhoneId: optional(
      'WHATSAPP_PHONE_NUMBER_ID',
      'WhatsApp through Meta, from this number.',
      readText,
    ),
    whatsappToken: confidential('WHATSAPP_ACCESS_TOKEN', 'Its token.', readText),
    whatsappSecret: confidential('WHATSAPP_APP_SECRET', 'Verifies what Meta posts.', readText),
    whatsappVerify: confidential(
      'WHATSAPP_VERIFY_TOKEN',
      "Answers Meta's question when the callback is set up.",
      readText,
    ),
    fcmCredentials: confidential(
      'FCM_CREDENTIALS',
      'Push through Firebase: the JSON of a service account.',
      readText,
    ),
    apnsKey: confidential('APNS_KEY', 'Push through Apple: the .p8 key.', readText),
    apnsKeyId: optional('APNS_KEY_ID', 'Its id.', readText),
    apnsTeamId: optional('APNS_TEAM_ID', 'The team it belongs to.', readText),
    apnsTopic: optional('APNS_TOPIC', "The app's bundle id.", readText),
    vapidPublic: optional('VAPID_PUBLIC_KEY', 'Push to browsers.', readText),
    vapidPrivate: confidential('VAPID_PRIVATE_KEY', 'Its private key.', readText),
    vapidSubject: optional(
      'VAPID_SUBJECT',
      'Whom push services may write to: `mailto:…` or a URL.',
      readText,
    ),
    slackToken: confidential('SLACK_BOT_TOKEN', 'Slack as a bot.', readText),
    slackSecret: confidential('SLACK_SIGNING_SECRET', 'Verifies what Slack posts.', readText),
    slackChannel: optional('SLACK_DEFAULT_CHANNEL', 'Where messages go that name no channel.', readText),
    slackWebhook: confidential('SLACK_WEBHOOK_URL', 'Slack by an incoming webhook.', readText),
    pagerdutyKey: confidential('PAGERDUTY_ROUTING_KEY', 'Incidents at PagerDuty.', readText),
    discordWebhook: confidential('DISCORD_WEBHOOK_URL', 'Discord by a webhook.', readText),
    telegramToken: confidential('TELEGRAM_BOT_TOKEN', 'Telegram as a bot.', readText),
    teamsWebhook: confidential('TEAMS_WEBHOOK_URL', 'Microsoft Teams by a workflow.', readText),
    ntfyServer: optional('NTFY_SERVER', 'Push through this ntfy server.', readText),
    ntfyTopic: optional('NTFY_TOPIC', 'Its topic where the address names none.', readText),
    ntfyToken: confidential('NTFY_TOKEN', 'Its token.', readText),
  },

  mailbox: {
    port: integer(
      'MAILBOX_PORT',
      4425,
      0,
      65_535,
      'TCP port of the local mailbox on 127.0.0.1, which runs with the embedded database where SMTP_HOST is absent. 0 takes any free one.',
    ),
    keep: integer('CARILLON_MAILBOX_KEEP', 500, 1, 10_000, 'Messages it keeps; the oldest goes first.'),
  },

  process: {
    roles: setting(
      'CARILLON_ROLE',
      allRoles(),
      'everything',
      'What this process does, comma separated: api, plan, schedule, deliver, or deliver:CHANNEL for single channels.',
      readRoles,
      { flag: 'role' },
    ),
  },

  solutions: {
    enabled: setting(
      'CARILLON_SOLUTIONS',
      'all',
      'all',
      'Solutions to open, comma separated, or all, or none.',
      readSolutions,
    ),
  },

  ingest: {
    lanes: integer('CARILLON_LANES', 4, 1, 32, 'Connections that commit batches at the same time.'),
    batchSize: integer('CARILLON_INGEST_BATCH', 500, 1, 5000, 'Most notifications in one transaction.'),
    lingerMs: integer(
      'CARILLON_INGEST_LINGER_MS',
      0,
      0,
      100,
      'How long a small batch waits for more, in milliseconds. 3 saves half the CPU at 1,000 a second and costs 3 ms.',
    ),
    maxWaiting: integer(
      'CARILLON_INGEST_WAITING',
      20_000,
      100,
      1_000_000,
      'Events that may wait for a transaction; beyond it callers get queue_full.',
    ),
    inlineRecipients: integer(
      'CARILLON_INLINE_RECIPIENTS',
      500,
      1,
      10_000,
      'A larger audience is planned by a worker, in chunks of this many people.',
    ),
  },

  deliver: {
    inFlight: integer(
      'CARILLON_IN_FLIGHT',
      20_000,
      100,
      1_000_000,
      'Deliveries held in memory; what comes beyond waits in the database.',
    ),
    inFlightPerChannel: integer(
      'CARILLON_IN_FLIGHT_PER_CHANNEL',
      256,
      1,
      10_000,
      'Tries of one channel running at the same time.',
    ),
    flushMs: integer(
      'CARILLON_SETTLE_MS',
      5,
      0,
      1000,
      'Outcomes are written together after so many milliseconds, or',
    ),
    flushItems: integer('CARILLON_SETTLE_ITEMS', 1000, 1, 10_000, 'after so many outcomes.'),
    claimJobs: integer('CARILLON_CLAIM_JOBS', 500, 1, 5000, 'Due retries and held deliveries taken at once.'),
    claimBatches: integer(
      'CARILLON_CLAIM_BATCHES',
      8,
      1,
      100,
      'Waiting batches taken of each tenant at once.',
    ),
    sweepMs: integer(
      'CARILLON_SWEEP_MS',
      1000,
      100,
      60_000,
      'How often the work of processes that died is looked for, in milliseconds.',
    ),
  },

  realtime: {
    heartbeatSeconds: integer(
      'CARILLON_HEARTBEAT',
      25,
      1,
      300,
      'How often a quiet stream shows that it lives, in seconds.',
    ),
    pollSeconds: integer(
      'CARILLON_POLL',
      25,
      1,
      120,
      'How long a long poll waits for something new, in seconds.',
    ),
    connections: integer(
      'CARILLON_REALTIME_CONNECTIONS',
      50_000,
      1,
      1_000_000,
      'Streams open in one process.',
    ),
    connectionsPerUser: integer(
      'CARILLON_REALTIME_PER_USER',
      20,
      1,
      10_000,
      'Streams of one person in one process.',
    ),
    bufferBytes: bytes(
      'CARILLON_REALTIME_BUFFER',
      1024 ** 2,
      4096,
      64 * 1024 ** 2,
      'What may wait for a slow client, in bytes; beyond it the stream is closed and resumes later.',
    ),
  },

  retention: {
    eventsDays: days('CARILLON_KEEP_EVENTS', 30, 'Events and why they became what they became.'),
    notificationsDays: days('CARILLON_KEEP_NOTIFICATIONS', 90, 'Notifications and their content.'),
    attemptsDays: days('CARILLON_KEEP_ATTEMPTS', 180, 'Tries of delivery.'),
    engagementDays: days('CARILLON_KEEP_ENGAGEMENT', 180, 'Opens, clicks and the like.'),
    auditDays: days('CARILLON_KEEP_AUDIT', 400, 'Who changed which setting.'),
    countersDays: days('CARILLON_KEEP_COUNTERS', 400, 'Daily totals.'),
    deadLettersDays: days('CARILLON_KEEP_DEAD_LETTERS', 90, 'Dead letters.'),
    feedDays: days('CARILLON_KEEP_FEED', 30, 'Items of the in-app inbox.'),
    feedItems: integer(
      'CARILLON_KEEP_FEED_ITEMS',
      1000,
      10,
      100_000,
      'Unread items of one inbox; older ones go first.',
    ),
    eventKeysDays: days(
      'CARILLON_KEEP_EVENT_KEYS',
      7,
      'How long an event with the same source and id is known as a duplicate.',
    ),
    idempotencySeconds: integer(
      'CARILLON_KEEP_IDEMPOTENCY',
      3600,
      60,
      7 * 86_400,
      'How long an Idempotency-Key answers again with the same result, in seconds.',
    ),
  },

  observe: {
    logLevel: setting(
      'LOG_LEVEL',
      'info',
      'info',
      'trace, debug, info, warn, error, fatal or silent.',
      oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
      { flag: 'log-level' },
    ),
    otlpEndpoint: optional(
      'OTEL_EXPORTER_OTLP_ENDPOINT',
      'OpenTelemetry collector (OTLP over HTTP); /v1/traces is appended. Absent: no traces.',
      readWebUrl,
    ),
    otlpHeaders: confidential(
      'OTEL_EXPORTER_OTLP_HEADERS',
      'Headers for it: `name=value`, comma separated, values percent-encoded.',
      readHeaders,
    ),
    serviceName: setting(
      'OTEL_SERVICE_NAME',
      'carillon',
      'carillon',
      'The name under which traces appear.',
      readText,
    ),
    sampleRatio: setting(
      'OTEL_TRACES_SAMPLER_ARG',
      1,
      '1',
      'Share of the traces begun here that are recorded, 0 to 1. A caller that sampled its trace is followed.',
      readRatio,
    ),
  },
} as const

/** Variables that other parts of the project read. */
const READ_ELSEWHERE = new Set(['CARILLON_URL', 'CARILLON_KEY', 'CARILLON_NODE'])

type Settings = typeof SETTINGS
type Read = { readonly [G in keyof Settings]: ValuesOf<Settings[G]> }

/** What a solution brings to the configuration (server/solution.ts). */
export interface SettingsOwner {
  readonly id: string
  readonly settings?: SettingsTable
}

/** What the server was told. Secrets print as `<secret>`; call `reveal()` where they are used. */
export interface Config extends Omit<Read, 'http' | 'solutions'> {
  /** `embedded`: we run PostgreSQL in the data folder. `external`: DATABASE_URL names it. */
  readonly mode: 'embedded' | 'external'
  readonly http: Omit<Read['http'], 'host' | 'publicUrl'> & {
    readonly host: string
    /** Without a slash at the end. With PORT 0 and no PUBLIC_URL it names port 0: only the listener knows it. */
    readonly publicUrl: string
  }
  /** The settings of every solution that is to be opened, by its id. */
  readonly solutions: ReadonlyMap<string, Readonly<Record<string, unknown>>>
  /** For people, at start: unknown variables and combinations that are hardly meant. */
  readonly warnings: readonly string[]
}

/** Everything that is wrong with the configuration, at once. */
export class ConfigError extends Error {
  readonly problems: readonly string[]
  constructor(problems: readonly string[]) {
    super(`The configuration cannot be used:\n${problems.map(problem => `  ${problem}`).join('\n')}`)
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/**
 * Reads the configuration: flags win over variables, variables over defaults. Touches nothing but the files that
 * `NAME_FILE` variables name.
 *
 * @param argv what follows `carillon start`: `--port 4400 --role api,plan`
 * @param solutions those that there are; their settings are read, opened or not
 * @throws ConfigError naming every variable that cannot be used
 */
export function loadConfig(
  env: NodeJS.ProcessEnv,
  argv: readonly string[] = [],
  readFile: (path: string) => string = readSmallFile,
  solutions: readonly SettingsOwner[] = [],
): Config {
  const problems: string[] = []
  const flags = readFlags(argv, problems)

  const readTable = (table: SettingsTable) =>
    Object.fromEntries(
      Object.entries(table).map(([key, one]) => [key, readOne(one, env, flags, readFile, problems)]),
    )
  const read = Object.fromEntries(
    Object.entries(SETTINGS).map(([group, table]) => [group, readTable(table)]),
  ) as unknown as Read
  const theirs = new Map(solutions.map(({ id, settings = {} }) => [id, readTable(settings)]))

  const mode = read.database.url === undefined ? 'embedded' : 'external'
  const warnings = [...unknownVariables(env, solutions), ...doubtful(read, mode)]
  const { enabled } = read.solutions
  for (const id of enabled === 'all' ? [] : enabled) {
    if (theirs.has(id)) continue
    const known = ['all', 'none', ...theirs.keys()].join(', ')
    problems.push(`CARILLON_SOLUTIONS: "${id}" is none of ${known}`)
  }
  problems.push(...contradictions(read, mode, problems))
  if (problems.length > 0) throw new ConfigError(problems)

  return {
    ...read,
    mode,
    data: { ...read.data, dir: resolve(read.data.dir) },
    http: {
      ...read.http,
      host: read.http.host ?? (mode === 'embedded' ? '127.0.0.1' : '0.0.0.0'),
      publicUrl: (read.http.publicUrl ?? `http://localhost:${read.http.port}`).replace(/\/+$/, ''),
    },
    solutions: new Map([...theirs].filter(([id]) => enabled === 'all' || enabled.includes(id))),
    warnings,
  }
}

/**
 * The master keys, the one that wraps last, for `sealer`. With the embedded database and none configured: the one in
 * `<data folder>/master.key`, made with mode 0600 when absent.
 */
export function masterKeyring(config: Pick<Config, 'mode' | 'data'>): Secret<MasterKey[]> {
  if (config.data.masterKeys !== undefined) return config.data.masterKeys
  if (config.mode !== 'embedded') throw new ConfigError(['CARILLON_MASTER_KEY is required with DATABASE_URL'])
  const file = join(config.data.dir, 'master.key')
  if (!existsSync(file)) makeKeyFile(file)
  try {
    return secret(readMasterKeys(readFileSync(file, 'utf8').trim()))
  } catch (error) {
    throw new ConfigError([`${file}: ${(error as Error).message}`])
  }
}

function makeKeyFile(file: string): void {
  mkdirSync(dirname(file), { recursive: true })
  const half = `${file}.${process.pid}`
  writeFileSync(half, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 })
  try {
    // link(2) fails where the file stands already: of two first starts at once both go on with the winner's.
    linkSync(half, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    rmSync(half, { force: true })
  }
}

/** All settings in the order of the table, with their group; those of a solution have its id as group. */
export const listSettings = (
  solutions: readonly SettingsOwner[] = [],
): (Setting<unknown> & { group: string })[] =>
  [
    ...Object.entries<SettingsTable>(SETTINGS),
    ...solutions.map(({ id, settings = {} }): [string, SettingsTable] => [id, settings]),
  ].flatMap(([group, table]) => Object.values(table).map(one => ({ ...one, group })))

// ---------------------------------------------------------------- reading

function readFlags(argv: readonly string[], problems: string[]): Map<string, string> {
  const known = listSettings().flatMap(one => (one.flag === undefined ? [] : [one.flag]))
  const { tokens } = parseArgs({
    args: [...argv],
    options: Object.fromEntries(known.map(flag => [flag, { type: 'string' as const }])),
    strict: false,
    tokens: true,
  })
  const flags = new Map<string, string>()
  for (const token of tokens) {
    if (token.kind === 'option-terminator') continue
    if (token.kind === 'positional') problems.push(`"${token.value}" is not understood`)
    else if (!known.includes(token.name)) {
      problems.push(`--${token.name} is not a flag; known are ${known.map(flag => `--${flag}`).join(', ')}`)
    } else if (token.value === undefined || token.value === '') problems.push(`--${token.name} needs a value`)
    else {
      const before = flags.get(token.name)
      // Roles add up; of anything else the last one counts.
      flags.set(
        token.name,
        token.name === 'role' && before !== undefined ? `${before},${token.value}` : token.value,
      )
    }
  }
  return flags
}

function readOne(
  one: Setting<unknown>,
  env: NodeJS.ProcessEnv,
  flags: Map<string, string>,
  readFile: (path: string) => string,
  problems: string[],
): unknown {
  const flag = one.flag === undefined ? undefined : flags.get(one.flag)
  const path = one.file ? env[`${one.name}_FILE`] || undefined : undefined
  let text = flag ?? (env[one.name] || undefined)
  let where = flag === undefined ? one.name : `--${one.flag}`
  if (path !== undefined) {
    if (text !== undefined) {
      problems.push(`${one.name} and ${one.name}_FILE are both set; use one`)
      return one.fallback
    }
    where = `${one.name}_FILE`
    try {
      text = readFile(path).trim()
    } catch (error) {
      problems.push(`${where}: ${path} cannot be read: ${(error as Error).message}`)
      return one.fallback
    }
    if (text === '') {
      problems.push(`${where}: ${path} is empty`)
      return one.fallback
    }
  }
  if (text === undefined) return one.fallback
  try {
    const value = one.read(text.trim())
    return one.secret ? secret(value) : value
  } catch (error) {
    problems.push(`${where}: ${(error as Error).message}`)
    return one.fallback
  }
}

const MAX_FILE_BYTES = 256 * 1024

function readSmallFile(path: string): string {
  const { size } = statSync(path)
  if (size > MAX_FILE_BYTES) throw new Error(`it has more than ${MAX_FILE_BYTES} bytes`)
  return readFileSync(path, 'utf8')
}

function unknownVariables(env: NodeJS.ProcessEnv, solutions: readonly SettingsOwner[]): string[] {
  const known = new Set(READ_ELSEWHERE)
  for (const one of listSettings(solutions)) {
    known.add(one.name)
    if (one.file) known.add(`${one.name}_FILE`)
  }
  return Object.keys(env)
    .filter(name => name.startsWith('CARILLON_') && !known.has(name))
    .sort()
    .map(name => {
      const bare = name.slice('CARILLON_'.length)
      const meant = known.has(bare) ? bare : [...known].find(other => distance(name, other, 2) <= 2)
      return `${name} is not a setting${meant === undefined ? '' : `; did you mean ${meant}?`}`
    })
}

/** Levenshtein distance; anything above `max` is not computed to the end. */
function distance(a: string, b: string, max: number): number {
  if (Math.abs(a.length - b.length) > max) return max + 1
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}

function contradictions(read: Read, mode: Config['mode'], before: readonly string[]): string[] {
  const found: string[] = []
  const { auth, data, smtp, retention, mailbox, http, assets, providers } = read
  // A key that is there but cannot be used has been reported already.
  const keyReported = before.some(problem => problem.startsWith('CARILLON_MASTER_KEY'))
  if (mode === 'external' && data.masterKeys === undefined && !keyReported) {
    found.push(
      'CARILLON_MASTER_KEY is required with DATABASE_URL: content is sealed under it, and every process needs ' +
        'the same one. Make one with: openssl rand -hex 32',
    )
  }
  if (auth.jwtPublicKey !== undefined && auth.jwksUrl !== undefined) {
    found.push('JWT_PUBLIC_KEY and JWKS_URL are both set; use one')
  }
  const smtpReported = (name: string) => before.some(problem => problem.startsWith(name))
  if (smtp.host !== undefined && smtp.from === undefined && !smtpReported('SMTP_FROM')) {
    found.push('SMTP_FROM is required with SMTP_HOST')
  }
  if ((smtp.username === undefined) !== (smtp.password === undefined) && !smtpReported('SMTP_PASSWORD')) {
    found.push('SMTP_USERNAME and SMTP_PASSWORD belong together')
  }
  if ((assets.storeKeyId === undefined) !== (assets.storeSecret === undefined)) {
    found.push('ASSET_STORE_KEY_ID and ASSET_STORE_SECRET belong together')
  } else if (assets.store && !assets.storeKeyId && !(providers.awsKeyId && providers.awsSecret)) {
    found.push('ASSET_STORE_KEY_ID is required with ASSET_STORE_URL, or AWS_ACCESS_KEY_ID')
  }
  if ((smtp.dkimSelector === undefined) !== (smtp.dkimKey === undefined) && !smtpReported('SMTP_DKIM')) {
    found.push('SMTP_DKIM_SELECTOR and SMTP_DKIM_KEY belong together')
  }
  if (read.bounces.port !== undefined && read.bounces.address === undefined) {
    found.push('CARILLON_BOUNCE_ADDRESS is required with CARILLON_BOUNCE_PORT')
  }
  if (retention.feedDays > retention.notificationsDays) {
    found.push(
      'CARILLON_KEEP_FEED is longer than CARILLON_KEEP_NOTIFICATIONS: an inbox would show what is gone',
    )
  }
  if (retention.attemptsDays < retention.notificationsDays) {
    found.push(
      'CARILLON_KEEP_ATTEMPTS is shorter than CARILLON_KEEP_NOTIFICATIONS: a notification would lose its status',
    )
  }
  if (mode === 'embedded' && smtp.host === undefined && http.port !== 0 && http.port === mailbox.port) {
    found.push(`PORT and MAILBOX_PORT are both ${http.port}`)
  }
  return found
}

function doubtful(read: Read, mode: Config['mode']): string[] {
  const found: string[] = []
  const { roles } = read.process
  const everything = roles.api && roles.plan && roles.schedule && roles.deliver.length === CHANNELS.length
  if (mode === 'embedded' && !everything) {
    found.push(
      `CARILLON_ROLE leaves out work, and no second process can use the embedded database: only ${roles.names.join(', ')} will run`,
    )
  }
  if (read.outbound.allow.some(network => network.endsWith('/0'))) {
    found.push(
      'OUTBOUND_ALLOW names every address: webhooks can reach your internal network and cloud metadata',
    )
  }
  return found
}
