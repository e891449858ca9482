import * as providers from './providers/index.ts'
import type { AnyProvider } from './provider.ts'

/** Every provider by its id. */
export const catalog: ReadonlyMap<string, AnyProvider> = new Map(
  (Object.values(providers) as AnyProvider[]).map(provider => [provider.id, provider]),
)

/** What the vendor says without being sent anything; empty where it says nothing of the kind. */
export const questionsOf = (provider: AnyProvider): ('token' | 'topics' | 'status' | 'code')[] => [
  ...(provider.validateDeviceToken ? (['token'] as const) : []),
  ...(provider.updateTopicSubscription ? (['topics'] as const) : []),
  ...(provider.getDeliveryStatus ? (['status'] as const) : []),
  ...(provider.confirmCode ? (['code'] as const) : []),
]
