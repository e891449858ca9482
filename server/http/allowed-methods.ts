import type { RouteOptions } from 'fastify'

/**
 * Which methods a path offers; none when there is no such path. Asked only when nothing matched, so a plain
 * comparison with every route will do. `routes` may still grow until the first question.
 */
export function allowedMethods(routes: readonly Pick<RouteOptions, 'method' | 'url'>[]) {
  let patterns: { parts: string[]; methods: string[] }[] | undefined
  return (path: string): string[] => {
    patterns ??= routes.map(({ url, method }) => ({
      parts: url.split('/'),
      methods: Array.isArray(method) ? method : [method],
    }))
    const parts = path.split('/')
    const found = patterns.filter(pattern => fits(pattern.parts, parts)).flatMap(pattern => pattern.methods)
    return [...new Set(found)].toSorted()
  }
}

function fits(pattern: string[], path: string[]): boolean {
  for (const [i, part] of pattern.entries()) {
    // The catch-all of a CORS preflight is no path of ours.
    if (part === '*') return pattern.length > 1 && path.length > i
    if (i >= path.length) return false
    if (part.startsWith(':') ? path[i] === '' : part !== path[i]) return false
  }
  return pattern.length === path.length
}
