import * as providers from './providers/index.ts'
import type { AnyProvider } from './provider.ts'

/** Every provider by its id. */
export const catalog: ReadonlyMap<string, AnyProvider> = new Map(
  (Object.values(providers) as AnyProvider[]).map(provider => [provider.id, provider]),
)
