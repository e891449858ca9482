import type { TSchema } from 'typebox'
import { Value } from 'typebox/value'
import type { ErrorDetail } from '../errors.ts'

/**
 * What of these settings does not fit, field by field, as JSON pointers. The value is never quoted: it may be a secret.
 */
export function settingProblems(schema: TSchema, value: unknown): ErrorDetail[] {
  const problems = new Map<string, ErrorDetail>()
  const add = (field: string, message: string) => problems.set(`${field} ${message}`, { field, message })
  for (const { keyword, instancePath, params, message } of Value.Errors(schema, value)) {
    // A member nobody knows is told twice: as itself, whose schema is `false`, and by the object it is in.
    if (keyword === 'boolean') add(instancePath, 'is not known')
    else if (keyword === 'required') {
      for (const name of params.requiredProperties) {
        add(`${instancePath}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`, 'is missing')
      }
    } else if (keyword !== 'additionalProperties') add(instancePath || '/', message)
  }
  return [...problems.values()]
}

const SAID = 5

/** The first of them, for a message. */
export const inWords = (problems: readonly ErrorDetail[]): string =>
  problems
    .slice(0, SAID)
    .map(({ field, message }) => `${field} ${message}`)
    .join('; ') + (problems.length > SAID ? `; and ${problems.length - SAID} more` : '')
