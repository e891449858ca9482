import { existsSync } from 'node:fs'
import { join } from 'node:path'
import fastifyStatic from '@fastify/static'
import type { FastifyReply } from 'fastify'
import { AppError } from '../errors.ts'
import type { Api } from './api.ts'

/** Their names have a hash of what is in them. */
const YEAR_MS = 31_536_000_000

/**
 * Scripts come from this server only, and what a template says is shown in frames that run none. Styles may be inline,
 * since those frames inherit this policy and mail is styled no other way; pictures come from here, so that looking at
 * a template tells nobody that somebody looked.
 */
const CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data: blob:",
  "connect-src 'self'",
  "font-src 'self'",
  "frame-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

const NOT_BUILT = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Carillon console</title></head>
<body><h1>The console is not built</h1>
<p>Run <code>npm run build:console</code> in the folder of Carillon, then load this page again. <code>npm start</code> does it by itself.</p>
</body></html>
`

export interface ConsoleOptions {
  /** Where scripts/build-console.ts puts what it builds. */
  folder: string
}

/**
 * The console at `/console`: files that never change under their name, and one page for every other path, as the
 * console finds its way by itself. Nothing here needs credentials; all that is shown comes from the API, which does.
 */
export async function consoleRoutes(api: Api, { folder }: ConsoleOptions): Promise<void> {
  const config = { access: { role: 'public' as const }, limit: false as const }

  await api.register(async scope => {
    scope.addHook('onRoute', route => {
      route.config = { ...route.config, ...config }
    })
    // Only `sendFile`: which paths there are is said below.
    await scope.register(fastifyStatic, { root: folder, serve: false, preCompressed: true })

    const page = (reply: FastifyReply) => {
      reply.header('content-security-policy', CSP).header('cache-control', 'no-cache')
      return existsSync(join(folder, 'index.html'))
        ? reply.sendFile('index.html', { cacheControl: false })
        : reply.code(503).type('text/html; charset=utf-8').send(NOT_BUILT)
    }
    // Who types the address alone looks for something to look at.
    scope.get('/', { schema: { hide: true } }, (_request, reply) => reply.redirect('/console'))
    scope.get('/console', { schema: { hide: true } }, (_request, reply) => page(reply))
    scope.get<{ Params: { '*': string } }>('/console/*', { schema: { hide: true } }, (request, reply) => {
      const path = request.params['*']
      if (!path.startsWith('assets/')) return page(reply)
      if (!/^assets\/[\w-][\w.-]*$/.test(path) || !existsSync(join(folder, path))) {
        throw new AppError('not_found', 'The console has no such file.')
      }
      return reply.sendFile(path, { maxAge: YEAR_MS, immutable: true })
    })
  })
}
