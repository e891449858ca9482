import { type TSchema, Type } from 'typebox'

/** The query of every list; spread it among the list's own filters. */
export const pageQuery = {
  limit: Type.Integer({ minimum: 1, maximum: 200, default: 50, description: 'How many items at most.' }),
  cursor: Type.Optional(
    Type.String({ minLength: 1, maxLength: 2048, description: '`nextCursor` of the page before.' }),
  ),
}

/** The answer of every list. */
export const pageOf = <S extends TSchema>(item: S) =>
  Type.Object({
    items: Type.Array(item),
    nextCursor: Type.Union([Type.String(), Type.Null()], { description: 'null on the last page.' }),
  })

/** A page of `rows`, of which the caller read one more than `limit`, to know whether any follow. */
export function toPage<R>(
  rows: R[],
  limit: number,
  cursor: (last: R) => string,
): { items: R[]; nextCursor: string | null } {
  const items = rows.length > limit ? rows.slice(0, limit) : rows
  return { items, nextCursor: rows.length > limit ? cursor(items.at(-1)!) : null }
}
