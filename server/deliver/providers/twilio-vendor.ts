import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { CallbackRequest } from '../provider.ts'
import { type Asked, type HttpReply, httpVendor, type Vendor } from './conformance.ts'

/** A local stand-in for Twilio's API, for tests: it refuses what Twilio refuses, with Twilio's numbers. */

export const ACCOUNT_SID = `AC${'0123456789abcdef'.repeat(2)}`
export const AUTH_TOKEN = 'the-auth-token-of-the-account'
export const SID = `SM${'fedcba9876543210'.repeat(2)}`

export const refusal = (status: number, code: number, message: string): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ code, message, more_info: `https://www.twilio.com/docs/errors/${code}`, status }),
})

const created = (resource: string, more: object): HttpReply => ({
  status: 201,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({
    sid: resource === 'Calls' ? SID.replace('SM', 'CA') : SID,
    status: 'queued',
    price: null,
    price_unit: 'USD',
    num_segments: '1',
    error_code: null,
    ...more,
  }),
})

/**
 * `accepts` adds to what an accepted message looks like; `refuses` answers instead; `decode` shows texts as a
 * listener would hear them.
 */
export const twilioVendor = (
  more: { accepts?: object; refuses?: HttpReply; decode?: (text: string) => string } = {},
): Promise<Vendor> =>
  httpVendor(
    { refuse: refusal(400, 21614, 'To number: +15551234567, is not a mobile number') },
    asked => strict(asked) ?? more.refuses ?? created(resourceOf(asked.path) ?? '', more.accepts ?? {}),
    more.decode,
  )

const resourceOf = (path: string): string | undefined =>
  new RegExp(`^/2010-04-01/Accounts/${ACCOUNT_SID}/(Messages|Calls)\\.json$`).exec(path)?.[1]

function strict({ method, path, headers, body }: Asked): HttpReply | undefined {
  const basic = Buffer.from(`${ACCOUNT_SID}:${AUTH_TOKEN}`).toString('base64')
  if (headers.authorization !== `Basic ${basic}`) return refusal(401, 20003, 'Authenticate')
  if (method === 'GET') {
    const known = path === `/2010-04-01/Accounts/${ACCOUNT_SID}/Messages/${SID}.json`
    if (known) return undefined
    return path === `/2010-04-01/Accounts/${ACCOUNT_SID}/IncomingPhoneNumbers.json?PageSize=1`
      ? { status: 200, body: '{"incoming_phone_numbers":[]}' }
      : refusal(404, 20404, 'The requested resource was not found')
  }
  if (method !== 'POST') return refusal(405, 20004, 'Method not allowed')
  const resource = resourceOf(path)
  if (resource === undefined) return refusal(404, 20404, 'The requested resource was not found')
  if (headers['content-type'] !== 'application/x-www-form-urlencoded') {
    return refusal(415, 20001, 'Unsupported content type')
  }
  const form = new URLSearchParams(body)
  const has = (name: string) => (form.get(name) ?? '') !== ''
  const number = /^(whatsapp:)?\+[1-9]\d{6,14}$/.exec(form.get('To') ?? '')
  if (number === null) return refusal(400, 21211, `Invalid 'To' Phone Number: ${form.get('To')}`)
  const callback = form.get('StatusCallback')
  if (callback !== null && !URL.canParse(callback)) return refusal(400, 21609, 'Invalid StatusCallback')
  if (resource === 'Calls') {
    if (!has('From')) return refusal(400, 21213, "No 'From' number")
    if (!has('Twiml') && !has('Url')) return refusal(400, 21205, 'Url parameter is required')
    if ((form.get('Twiml') ?? '').length > 4_000) return refusal(400, 21605, 'Twiml is too long')
    return undefined
  }
  if (!has('From') && !has('MessagingServiceSid')) return refusal(400, 21603, "A 'From' number is required")
  if (has('From') && (form.get('From') ?? '').startsWith('whatsapp:') !== (number[1] !== undefined)) {
    return refusal(400, 21910, "Invalid 'From' and 'To' pair")
  }
  if (!has('Body') && !has('MediaUrl') && !has('ContentSid')) {
    return refusal(400, 21619, 'A text message body or media urls must be specified')
  }
  if ((form.get('Body') ?? '').length > 1_600) {
    return refusal(400, 21617, 'The concatenated message body exceeds the 1600 character limit')
  }
  return undefined
}

/** As Twilio posts it: form encoded and signed. */
export function signedForm(url: string, params: Record<string, string>, token = AUTH_TOKEN): CallbackRequest {
  const sorted = Object.keys(params).toSorted()
  const signature = createHmac('sha1', token)
    .update(url + sorted.map(name => name + params[name]).join(''))
    .digest('base64')
  return {
    method: 'POST',
    url,
    headers: { 'content-type': 'application/x-www-form-urlencoded', 'x-twilio-signature': signature },
    body: Buffer.from(new URLSearchParams(params).toString()),
  }
}

interface Property {
  type?: string
  $ref?: string
  pattern?: string
  enum?: string[]
  items?: Property
}

interface Contract {
  paths: Record<
    string,
    {
      post: {
        requestBody: {
          content: Record<string, { schema: { required?: string[]; properties: Record<string, Property> } }>
        }
      }
    }
  >
  components: { schemas: Record<string, Property> }
}

const contracts = new Map<string, Contract | undefined>()

/** A contract that Twilio publishes; undefined where it is not beside this checkout. */
function contractIn(file: string): Contract | undefined {
  if (!contracts.has(file)) {
    let found: Contract | undefined
    try {
      const url = new URL(`../../../../shared/contracts/${file}`, import.meta.url)
      found = JSON.parse(readFileSync(url, 'utf8')) as Contract
    } catch {
      // Not here: whoever asks says so.
    }
    contracts.set(file, found)
  }
  return contracts.get(file)
}

/**
 * What the published contract holds against a form: fields it does not know, misses or wants in another shape.
 * Undefined where the contract is not beside this checkout.
 */
export const againstContract = (resource: 'Messages' | 'Calls', body: string): string[] | undefined =>
  formProblems(
    'twilio-api-v2010-messages-calls.openapi.json',
    `/2010-04-01/Accounts/{AccountSid}/${resource}.json`,
    body,
  )

/** The same of any contract and path. */
export function formProblems(file: string, path: string, body: string): string[] | undefined {
  const contract = contractIn(file)
  if (contract === undefined) return undefined
  const schema = contract.paths[path]?.post.requestBody.content['application/x-www-form-urlencoded']?.schema
  if (schema === undefined) return [`${path} is not in the contract`]
  const form = new URLSearchParams(body)
  const problems = (schema.required ?? []).filter(name => !form.has(name)).map(name => `${name} is missing`)
  for (const [name, value] of form) {
    const named = schema.properties[name]
    const reference = named?.$ref?.split('/').at(-1)
    const property = reference === undefined ? named : contract.components.schemas[reference]
    if (property === undefined) problems.push(`${name} is not in the contract`)
    else problems.push(...problemsOf(name, value, property))
    if (property?.type !== 'array' && form.getAll(name).length > 1) problems.push(`${name} comes twice`)
  }
  return problems
}

function problemsOf(name: string, value: string, { type, pattern, enum: words }: Property): string[] {
  const problems: string[] = []
  if (pattern !== undefined && !new RegExp(pattern).test(value)) problems.push(`${name} is not ${pattern}`)
  if (words !== undefined && !words.includes(value)) problems.push(`${name} is none of ${words.join(', ')}`)
  if (type === 'integer' && !/^\d+$/.test(value)) problems.push(`${name} is no integer`)
  if (type === 'boolean' && !/^(true|false)$/.test(value)) problems.push(`${name} is no boolean`)
  return problems
}
