import type { Solution } from '../server/solution.ts'
import { companion } from './companion/index.ts'
import { finance } from './finance/index.ts'

/** All of them, in the order in which they are opened. */
export const SOLUTIONS: readonly Solution[] = [companion, finance]
