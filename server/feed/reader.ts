import { AppError } from '../errors.ts'
import type { Caller } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import type { TenantId, UserId } from '../types.ts'

/**
 * Whose inbox a request is about: a person's own, or, for services and admins, the one `?userId=` names.
 *
 * @throws AppError forbidden for somebody else's; invalid_request when a service names nobody
 */
export function readerOf(caller: Caller, userId: UserId | undefined): { tenantId: TenantId; userId: UserId } {
  const reader = userId ?? caller.userId
  if (reader === undefined) {
    throw new AppError('invalid_request', 'Name the person whose inbox this is about.', { field: 'userId' })
  }
  requireSelf({ caller }, reader)
  return { tenantId: caller.tenantId, userId: reader }
}
