import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import { AppError } from '../errors.ts'
import { PRIORITIES } from '../types.ts'
import type { Message } from '../types.ts'
import { inWords, settingProblems } from './setting-problems.ts'

const strings = (pattern: string) =>
  Type.Optional(Type.Array(Type.String({ maxLength: 253, pattern }), { minItems: 1, maxItems: 300 }))

/** Which messages a provider is for. What is not named does not matter; all that is named must fit. */
export const Conditions = Type.Object(
  {
    /** ISO 3166-1, of the phone number. */
    countries: strings('^[A-Z]{2}$'),
    /** Of the mail address, with their subdomains. */
    domains: strings('^[a-z0-9-]+(\\.[a-z0-9-]+)*$'),
    tenants: Type.Optional(Type.Array(Type.Integer({ minimum: 1 }), { minItems: 1, maxItems: 1000 })),
    priorities: Type.Optional(Type.Array(Type.Enum(PRIORITIES), { minItems: 1, maxItems: 4 })),
  },
  { additionalProperties: false },
)
export type Conditions = Static<typeof Conditions>

/** @throws AppError `invalid_request` naming the fields that do not fit */
export function readConditions(given: unknown): Conditions {
  if (Value.Check(Conditions, given)) return given
  const errors = settingProblems(Conditions, given)
  throw new AppError('invalid_request', `when: ${inWords(errors)}`, { errors })
}

/** Whether a message is one of those. An address that has no country, or no domain, is none of them. */
export async function fitting(conditions: Conditions): Promise<(message: Message) => boolean> {
  const { countries, domains, tenants, priorities } = conditions
  // Loaded only where it is used: the numbering plans of the world are 150 kB. The smaller set of them cannot tell
  // countries apart that share a calling code, such as +1.
  const { parsePhoneNumberFromString } = countries
    ? await import('libphonenumber-js/max')
    : { parsePhoneNumberFromString: () => undefined }
  return message => {
    if (tenants && !tenants.includes(message.tenantId)) return false
    if (priorities && !priorities.includes(message.priority)) return false
    if (domains) {
      const domain = message.to.slice(message.to.lastIndexOf('@') + 1).toLowerCase()
      if (!domains.some(one => domain === one || domain.endsWith(`.${one}`))) return false
    }
    if (countries) {
      const country = parsePhoneNumberFromString(message.to)?.country
      if (country === undefined || !countries.includes(country)) return false
    }
    return true
  }
}
