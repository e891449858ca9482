import { AppError } from '../errors.ts'
import { asDeliveryError } from './provider.ts'
import type { CodeVerdict, GivenCode } from './provider.ts'
import type { ListedProvider } from './set-up.ts'

/** Whoever typed the code waits for it. */
const ASK_MS = 10_000

/** By name: the providers that can say whether a code is right. They throw AppError where they cannot say now. */
export const codeVendors = (
  listed: readonly ListedProvider[],
  now: () => Date,
): ReadonlyMap<string, (given: GivenCode) => Promise<CodeVerdict>> =>
  new Map(
    listed.flatMap(({ name, opened }) => {
      const ask = opened?.confirmCode
      if (ask === undefined) return []
      return [
        [
          name,
          async (given: GivenCode) => {
            try {
              return await ask(given, AbortSignal.timeout(ASK_MS))
            } catch (thrown) {
              throw refusal(thrown, now())
            }
          },
        ],
      ]
    }),
  )

function refusal(thrown: unknown, now: Date): AppError {
  const { code, until } = asDeliveryError(thrown)
  if (code !== 'rate_limited') {
    return new AppError('external_service_error', 'The code cannot be checked for now; it stays valid.')
  }
  const seconds = until === undefined ? 60 : Math.ceil((until.getTime() - now.getTime()) / 1000)
  return new AppError('rate_limited', 'Too many codes were checked; it stays valid.', {
    retryAfterSeconds: Math.max(1, seconds),
  })
}
