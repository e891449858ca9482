import { Worker } from 'node:worker_threads'
import { AppError } from '../errors.ts'
import type { Channel, Content } from '../types.ts'
import { CODE_LENGTH, isOwnLink, shortLength, withLinks } from '../text-links.ts'
import type { Messages } from './messages.ts'
import type { TemplateDefinition } from './templates.ts'
import type { TextLinks } from './template.ts'
import type { ViewInput } from './view.ts'

/** One text to be rendered that nobody has saved, and so nobody has checked. */
export interface Draft {
  definition: TemplateDefinition
  channel: Channel
  locale: string
  /** Without messages and links: they come as they are written. */
  view: Omit<ViewInput, 'messages' | 'links'>
  messages: Messages
  links?: PreviewLinks | undefined
}

/** Links as they would be: nobody keeps those of a preview, so their code is only as long as one. */
export interface PreviewLinks {
  /** Without a slash at the end. */
  publicUrl: string
  /** Whether the tenant wants them short on this channel. */
  wanted: boolean
}

export const previewLinks = ({ publicUrl, wanted }: PreviewLinks): TextLinks => ({
  wanted,
  shorten: text =>
    withLinks(text, url =>
      url.length <= shortLength(publicUrl) || isOwnLink(publicUrl, url)
        ? url
        : `${publicUrl}/s/${'x'.repeat(CODE_LENGTH)}`,
    ),
})

export type Previewed = { content: Content } | { error: { code: string; message: string; errors?: unknown } }

/** Compiling and rendering a large draft takes some 300 ms; what takes longer is a mistake. */
const DEADLINE_MS = 3_000
/** Before that a thread loads its modules, MJML among them: 1 s on a quiet machine. */
const START_MS = 20_000
const MEMORY_MB = 128
/** Each is a thread of its own. */
const MAX_RUNNING = 4

let running = 0

/**
 * Renders a draft in a thread of its own with a deadline and a bound of memory, so that no text can hold up the server,
 * whatever is in it.
 *
 * @throws AppError invalid_template; queue_full when too many run already
 */
export async function renderDraft(draft: Draft): Promise<Content> {
  if (running >= MAX_RUNNING) {
    throw new AppError('queue_full', 'Too many previews are being made.', { retryAfterSeconds: 1 })
  }
  running++
  try {
    const said = await inThread(draft)
    if ('content' in said) return said.content
    throw new AppError('invalid_template', said.error.message, {
      ...(said.error.errors !== undefined && { errors: said.error.errors as never }),
    })
  } finally {
    running--
  }
}

function inThread(draft: Draft): Promise<Previewed> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./preview-worker.ts', import.meta.url), {
      workerData: draft,
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
    })
    const within = (ms: number) =>
      setTimeout(() => {
        resolve({ error: { code: 'invalid_template', message: `It takes longer than ${ms} ms` } })
        void worker.terminate()
      }, ms)
    let late = within(START_MS)
    worker.on('message', (said: Previewed | 'ready') => {
      clearTimeout(late)
      if (said === 'ready') {
        late = within(DEADLINE_MS)
        return
      }
      resolve(said)
      void worker.terminate()
    })
    worker.once('error', error => {
      clearTimeout(late)
      if ((error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY') {
        resolve({ error: { code: 'invalid_template', message: `It takes more than ${MEMORY_MB} MB` } })
      } else reject(error)
    })
  })
}
