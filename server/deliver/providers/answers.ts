import { createHash } from 'node:crypto'
import type { Json, JsonObject } from '../../types.ts'

/** The JSON object that an answer is, or undefined where it is something else. */
export function readObject(text: string): JsonObject | undefined {
  try {
    const value = JSON.parse(text) as Json
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

export const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The text there, or undefined where there is none, or an empty one. */
export const textAt = (object: JsonObject, name: string): string | undefined => {
  const value = object[name]
  return typeof value === 'string' && value !== '' ? value : undefined
}

export const isHttpUrl = (text: string): boolean => /^https?:\/\//i.test(text) && URL.canParse(text)

/** A vendor's word for what happened, where it looks like one; what it may have quoted from us is left out. */
export const wordOf = (text: string | undefined): string | undefined =>
  text !== undefined && /^[A-Za-z0-9_.:-]{1,80}$/.test(text) ? text : undefined

/** Tells lanes apart without telling what their addresses are: a webhook's URL is its password. */
export const laneOf = (address: string): string =>
  createHash('sha256').update(address).digest('base64url').slice(0, 16)
