import { Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { lastTry } from '../ledger/last-try.ts'
import type { Event, TenantId } from '../types.ts'
import { IdField, TimeField, UserIdField } from './fields.ts'
import { getUser } from './users.ts'
import { CODE_DIGITS, CODE_MINUTES, judgeCode, startVerification, typeCode } from './verification.ts'
import type { Confirmation, StartedVerification, TypedCode } from './verification.ts'

export interface VerificationDeps {
  db: Db
  /** Accepts an event like any other: it is planned, delivered, explained. */
  send(event: Event): Promise<unknown>
  /** By name: providers that send codes and can say whether one is right. They throw AppError when they cannot. */
  vendors: ReadonlyMap<string, CodeVendor>
  now?: () => Date
}

export type CodeVendor = (given: {
  to: string
  code: string
  messageId?: string
  ours: boolean
}) => Promise<'right' | 'wrong' | 'expired' | 'spent'>

/** The type under which codes travel. */
export const VERIFICATION_EVENT = 'carillon.address.verification'

const Params = Type.Object({ userId: UserIdField, id: IdField }, { additionalProperties: false })
const tags = ['Addresses']

/** Showing that an address is its owner's, by a code that is sent there. */
export function verificationRoutes(
  api: Api,
  { db, send, vendors, now = () => new Date() }: VerificationDeps,
): void {
  /** Who sent the code is asked whether it is right, where that is somebody who can tell. */
  async function verdictOn(tenantId: TenantId, { address, channel, eventId, ours }: TypedCode, code: string) {
    const plain = ours ? 'right' : 'wrong'
    if (vendors.size === 0 || eventId === null) return plain
    const sent = await lastTry(db, tenantId, eventId, channel)
    const vendor = sent && vendors.get(sent.provider)
    return vendor === undefined ? plain : vendor({ to: address, code, messageId: sent!.messageId, ours })
  }

  api.post(
    '/api/users/:userId/addresses/:id/verification',
    {
      config: { access: { role: 'user', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'startAddressVerification',
        summary: 'Send a code to the address',
        params: Params,
        response: { 202: Type.Object({ expiresAt: TimeField }) },
      },
    },
    async (request, reply) => {
      const { caller, params } = request
      requireSelf(request, params.userId)
      const { tenantId } = caller
      const { locale } = await getUser(db, tenantId, params.userId)
      const started = await db.tx(async tx => {
        const made = await startVerification(tx, tenantId, params.userId, params.id, now())
        await audit(tx, caller, {
          action: 'address.verification_started',
          objectKind: 'user',
          objectId: params.userId,
          details: { id: params.id, channel: made.channel },
        })
        return made
      })
      await send(codeEvent(tenantId, started, locale, now()))
      return reply.code(202).send({ expiresAt: started.expiresAt.toISOString() })
    },
  )

  api.post(
    '/api/users/:userId/addresses/:id/verification/confirm',
    {
      config: { access: { role: 'user', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'confirmAddressVerification',
        summary: 'Verify the address by the code that was sent there',
        params: Params,
        body: Type.Object(
          {
            code: Type.String({
              pattern: '^[0-9]{4,10}$',
              description: `${CODE_DIGITS} digits, unless a vendor makes codes of its own`,
            }),
          },
          { additionalProperties: false },
        ),
        response: { 200: Type.Object({ verified: Type.Literal(true) }) },
      },
    },
    async request => {
      const { caller, params, body } = request
      requireSelf(request, params.userId)
      const { tenantId } = caller
      const typed = await db.tx(tx => typeCode(tx, tenantId, params.userId, params.id, body.code, now()))
      if ('verified' in typed) return answer(typed)
      const settle = (verdict: Parameters<typeof judgeCode>[5]) =>
        db.tx(async tx => {
          const found = await judgeCode(tx, tenantId, params.userId, params.id, typed, verdict, now())
          if (found.verified) {
            await audit(tx, caller, {
              action: 'address.verified',
              objectKind: 'user',
              objectId: params.userId,
              details: { id: params.id },
            })
          }
          return found
        })
      let verdict: Parameters<typeof judgeCode>[5]
      try {
        verdict = await verdictOn(tenantId, typed, body.code)
      } catch (error) {
        await settle(undefined)
        throw error
      }
      return answer(await settle(verdict))
    },
  )
}

function answer(outcome: Confirmation): { verified: true } {
  if (outcome.verified) return { verified: true }
  const { why, left } = outcome
  throw new AppError('invalid_request', REFUSALS[why], { field: '/code', extra: { attemptsLeft: left } })
}

const REFUSALS = {
  wrong: 'This is not the code that was sent.',
  expired: 'The code has expired; ask for another one.',
  spent: 'There were too many attempts; ask for another code.',
} as const

const TEXTS: Record<string, { subject: string; body(code: string, minutes: number): string }> = {
  en: {
    subject: 'Your code',
    body: (code, minutes) => `${code} is your code. It is valid for ${minutes} minutes. Tell it to nobody.`,
  },
  pt: {
    subject: 'Seu código',
    body: (code, minutes) => `${code} é o seu código, válido por ${minutes} minutos. Não o revele a ninguém.`,
  },
  zh: {
    subject: '您的验证码',
    body: (code, minutes) => `您的验证码是 ${code}，${minutes} 分钟内有效。请勿告诉他人。`,
  },
}

/** To the bare address: it is not verified, so nothing would go there by way of the person. */
function codeEvent(
  tenantId: number,
  { channel, eventId, address, code, expiresAt }: StartedVerification,
  locale: string,
  now: Date,
): Event {
  const words = TEXTS[locale.toLowerCase().split(/[-_]/)[0]!] ?? TEXTS['en']!
  return {
    tenantId,
    id: eventId,
    source: 'carillon',
    type: VERIFICATION_EVENT,
    time: now,
    receivedAt: now,
    data: {},
    priority: 'CRITICAL',
    category: 'security',
    expiresAt,
    direct: {
      recipients: [],
      addresses: { [channel]: [address] },
      channels: [channel],
      fallback: [],
      // The code by itself, and the reader's language, are for providers that have words of their own.
      content: {
        subject: words.subject,
        body: words.body(code, CODE_MINUTES),
        data: { code, language: locale },
      },
    },
  }
}
