import { hash, randomBytes } from 'node:crypto'

// 192 random bits: nobody guesses one, so its plain SHA-256 is as good a secret to keep as any slow hash
// (which is for passwords people think up), and finding a key is one index probe.
const KEY = /^crl_[A-Za-z0-9_-]{32}$/

export const newApiKey = (): string => `crl_${randomBytes(24).toString('base64url')}`

export const isApiKey = (text: string): boolean => KEY.test(text)

/** What is stored in place of the key: 32 bytes. */
export const hashApiKey = (key: string): Buffer => hash('sha256', key, 'buffer')

/** The part that is stored and shown, to recognise a key by: 48 of its 192 bits. */
export const apiKeyPrefix = (key: string): string => key.slice(0, 12)
