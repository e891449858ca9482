import type { JsonObject, Message } from '../../types.ts'
import { type Asked, exampleMessage, type HttpReply, httpVendor, type Vendor } from './conformance.ts'
import { ACCOUNT_SID, AUTH_TOKEN, formProblems, refusal } from './twilio-vendor.ts'

/** A local stand-in for Twilio Verify, for tests: it refuses what Verify refuses, and checks codes as it does. */
export interface VerifyVendor extends Vendor {
  /** The code that each address was sent. */
  codes: ReadonlyMap<string, string>
  /** Addresses whose verification came to its end, by a check or as we said. */
  approved: string[]
  /** Ten minutes pass. */
  expire(): void
}

export const SERVICE = `VA${'0123456789abcdef'.repeat(2)}`
const SERVICE_PATH = `/v2/Services/${SERVICE}`

/** What an event that carries a code is called (server/people/verification-routes.ts); the test of SMS compares. */
export const CODE_EVENT = 'carillon.address.verification'

export const codeMessage = (more: Partial<Message> = {}): Message =>
  exampleMessage({
    channel: 'sms',
    to: '+15551234567',
    eventType: CODE_EVENT,
    content: { body: '123456 is your code.', data: { code: '123456' } },
    ...more,
  })

export const verifySettings = (vendor?: Vendor): JsonObject => ({
  accountSid: ACCOUNT_SID,
  authToken: AUTH_TOKEN,
  serviceSid: SERVICE,
  ...(vendor === undefined ? {} : { baseUrl: `http://${vendor.host}:${vendor.port}` }),
})

/** Of the conformance suite, for all of them. */
export const NOT_APPLICABLE = {
  'idempotency key': 'Verify takes none',
  unicode: 'the words are those of Verify',
}

interface Verification {
  sid: string
  to: string
  code: string
  sends: number
  checks: number
}

const answer = (status: number, body: object): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(body),
})
const notFound = () => refusal(404, 20404, 'The requested resource was not found')

/** `ours`: whether custom codes are switched on for the service, and so needed. */
export async function verifyVendor({ ours = true, by = 'sms' } = {}): Promise<VerifyVendor> {
  const pending = new Map<string, Verification>()
  const codes = new Map<string, string>()
  const approved: string[] = []
  let made = 0

  const end = ({ to }: Verification) => {
    pending.delete(to)
    approved.push(to)
  }
  const tooMany = (code: number, message: string): HttpReply => {
    const reply = refusal(429, code, message)
    return { ...reply, headers: { ...reply.headers, 'retry-after': '600' } }
  }
  function create(form: URLSearchParams): HttpReply {
    const to = form.get('To') ?? ''
    const wanted = by === 'email' ? /^[^@\s]+@[^@\s]+\.[^@\s]+$/ : /^\+[1-9]\d{6,14}$/
    if (!wanted.test(to)) return refusal(400, 60200, 'Invalid parameter: To')
    if (form.get('Channel') !== by) return refusal(400, 60223, 'Delivery channel disabled')
    const custom = form.get('CustomCode')
    if (custom !== null && !ours) return refusal(403, 60204, 'Service does not support this feature')
    if (ours && !/^.{4,10}$/.test(custom ?? '')) return refusal(400, 60200, 'Invalid parameter: CustomCode')
    const before = pending.get(to)
    if (before !== undefined && before.sends >= 5) return tooMany(60203, 'Max send attempts reached')
    const next: Verification = before ?? {
      sid: `VE${String(++made).padStart(32, '0')}`,
      to,
      code: '',
      sends: 0,
      checks: 0,
    }
    next.sends++
    // The same code for ten minutes, unless we bring another.
    next.code = custom ?? (before?.code || String(400_000 + made))
    pending.set(to, next)
    codes.set(to, next.code)
    return answer(201, {
      sid: next.sid,
      service_sid: SERVICE,
      to,
      channel: by,
      status: 'pending',
      valid: false,
    })
  }
  function check(form: URLSearchParams): HttpReply {
    const [sid, to] = [form.get('VerificationSid'), form.get('To')]
    if (sid === null && to === null) return refusal(400, 60221, 'No target verification specified')
    const found = [...pending.values()].find(one => one.sid === sid || one.to === to)
    if (found === undefined) return notFound()
    if (found.checks >= 5) return tooMany(60202, 'Max check attempts reached')
    found.checks++
    const right = form.get('Code') === found.code
    if (right) end(found)
    return answer(200, { sid: found.sid, status: right ? 'approved' : 'pending', valid: right })
  }
  function update(sid: string, form: URLSearchParams): HttpReply {
    const found = [...pending.values()].find(one => one.sid === sid)
    if (found === undefined) return notFound()
    if (form.get('Status') !== 'approved') return refusal(400, 60200, 'Invalid parameter: Status')
    end(found)
    return answer(200, { sid, status: 'approved' })
  }
  function reads({ method, path, headers, body }: Asked): HttpReply {
    const basic = Buffer.from(`${ACCOUNT_SID}:${AUTH_TOKEN}`).toString('base64')
    if (headers.authorization !== `Basic ${basic}`) return refusal(401, 20003, 'Authenticate')
    if (method !== 'POST' || !path.startsWith(SERVICE_PATH)) return notFound()
    if (headers['content-type'] !== 'application/x-www-form-urlencoded') {
      return refusal(415, 20001, 'Unsupported content type')
    }
    const rest = path.slice(SERVICE_PATH.length)
    const problems = againstVerifyContract(rest, body)
    if (problems !== undefined && problems.length > 0) return refusal(400, 60200, problems.join('; '))
    const form = new URLSearchParams(body)
    if (rest === '/Verifications') return create(form)
    if (rest === '/VerificationCheck') return check(form)
    const sid = /^\/Verifications\/(VE[0-9a-fA-F]{32})$/.exec(rest)?.[1]
    return sid === undefined ? notFound() : update(sid, form)
  }
  const vendor = await httpVendor(
    { refuse: refusal(400, 60205, 'SMS is not supported by landline phone number') },
    reads,
  )
  return Object.assign(vendor, { codes, approved, expire: () => pending.clear() })
}

/** As `againstContract`, of Verify: `resource` as it follows the service in the path. */
export const againstVerifyContract = (resource: string, body: string): string[] | undefined =>
  formProblems(
    'twilio-verify-v2.openapi.json',
    `/v2/Services/{ServiceSid}${resource.replace(/VE[0-9a-fA-F]{32}$/, '{Sid}')}`,
    body,
  )
