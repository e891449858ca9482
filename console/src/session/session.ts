import { useSyncExternalStore } from 'react'

/** Of this tab alone, and gone with it: nothing else of the console is stored on the machine. */
const PLACE = 'carillon.key'

export interface Session {
  /** What calls are made with. */
  key: string | undefined
  /** The server takes the key no more: what was on the screen is kept until there is another. */
  expired: boolean
}

const listeners = new Set<() => void>()
let session: Session = { key: globalThis.sessionStorage?.getItem(PLACE) ?? undefined, expired: false }

function become(next: Session): void {
  session = next
  if (next.key === undefined) sessionStorage.removeItem(PLACE)
  else sessionStorage.setItem(PLACE, next.key)
  for (const tell of listeners) tell()
}

export const currentKey = (): string | undefined => session.key
export const signIn = (key: string): void => become({ key, expired: false })
export const signOut = (): void => become({ key: undefined, expired: false })
export const expire = (): void => become({ key: undefined, expired: true })

const subscribe = (tell: () => void) => {
  listeners.add(tell)
  return () => listeners.delete(tell)
}

export const useSession = (): Session => useSyncExternalStore(subscribe, () => session)
