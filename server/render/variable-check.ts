import type { Queryable } from '../db/pool.ts'
import type { ErrorDetail } from '../errors.ts'
import type { Channel, Id, JsonObject, TenantId } from '../types.ts'
import type { Templates } from './templates.ts'
import { givenVariables, judgeVariables } from './variables.ts'

/** A request that names a template, before it is accepted. */
export interface NamedSend {
  tenantId: TenantId
  templateId: Id
  /** What would be sent by now; undefined: nothing is published, or it is out of use. */
  revision: number | undefined
  /** Where it may go. */
  channels: readonly Channel[]
  /** What it gives the template. */
  given: JsonObject
  /** JSON pointer of that in the request. */
  at: string
}

export type VariableCheck = (q: Queryable, sends: readonly NamedSend[]) => Promise<ErrorDetail[][]>

/**
 * Whether requests give their templates what these need, so that whoever sends hears of it, and not `why` alone. In the
 * order asked for, with every problem of each; none where the template says nothing on these channels. The revisions
 * come from those at hand: at most one statement, and none for a template in use.
 */
export function variableCheck(templates: Pick<Templates, 'load'>): VariableCheck {
  return async (q, sends) => {
    const known = sends.filter(({ revision }) => revision !== undefined)
    // By number, so that what is at hand is right whoever changed the template where: a revision never changes.
    const loaded = known.length === 0 ? [] : await templates.load(q, known)
    const compiled = new Map(known.map((send, i) => [send, loaded[i]]))
    return sends.map(send => {
      const revision = compiled.get(send)
      if (!revision || !send.channels.some(revision.has)) return []
      const problems: ErrorDetail[] = []
      judgeVariables(
        revision.variables,
        givenVariables(revision.variables, [send.given]),
        (name, message) => void problems.push({ field: `${send.at}/${pointerPart(name)}`, message }),
      )
      return problems
    })
  }
}

const pointerPart = (name: string) => name.replaceAll('~', '~0').replaceAll('/', '~1')
