/** What was, what is, and what was undone. */
export interface History<T> {
  past: readonly T[]
  present: T
  future: readonly T[]
  /** What the last change was about, and when: changes to one thing in quick succession are undone together. */
  last?: { about: string; atMs: number }
}

const MAX_PAST = 200
/** Typing goes on while no pause is longer. */
const TOGETHER_MS = 1_000

export const historyOf = <T>(present: T): History<T> => ({ past: [], present, future: [] })

/**
 * @param about the same for changes that belong together, such as typing into one field; '' belongs to nothing
 */
export function change<T>(history: History<T>, present: T, about: string, nowMs: number): History<T> {
  if (Object.is(present, history.present)) return history
  const { last } = history
  const goesOn =
    about !== '' && last?.about === about && nowMs - last.atMs <= TOGETHER_MS && history.future.length === 0
  return {
    past: goesOn ? history.past : [...history.past, history.present].slice(-MAX_PAST),
    present,
    future: [],
    last: { about, atMs: nowMs },
  }
}

/** What comes next is undone by itself, whatever it is about: something was kept in between. */
export const settle = <T>({ last: _, ...history }: History<T>): History<T> => history

export function undo<T>({ past, present, future }: History<T>): History<T> {
  const before = past.at(-1)
  if (past.length === 0) return { past, present, future }
  return { past: past.slice(0, -1), present: before as T, future: [present, ...future] }
}

export function redo<T>({ past, present, future }: History<T>): History<T> {
  const [next, ...rest] = future
  if (future.length === 0) return { past, present, future }
  return { past: [...past, present], present: next as T, future: rest }
}
