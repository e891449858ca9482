import { parentPort, workerData } from 'node:worker_threads'
import { AppError } from '../errors.ts'
import { compileRevision, render } from './content.ts'
import { sharedMessages } from './messages.ts'
import { type Draft, type Previewed, previewLinks } from './preview.ts'
import { loadMarkup } from './publish.ts'
import { publishable } from './templates.ts'
import { templateView } from './view.ts'

/** The thread of a preview: one draft in, one content or its mistakes out. */
async function preview({ definition, channel, locale, view, messages, links }: Draft): Promise<Previewed> {
  try {
    const shared = sharedMessages(messages)
    const prepared = await publishable(definition, () => definition.layouts ?? {}, shared)
    const compiled = compileRevision({ ...prepared, templateId: '', revision: 0 })
    const seen = templateView({ ...view, messages: shared, links: links && previewLinks(links) })
    return { content: render(compiled, channel, locale, seen) }
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    return { error: { code: error.code, message: error.message, errors: error.errors } }
  }
}

const draft = workerData as Draft
// What has to be loaded is loaded before the clock starts: it says nothing about the draft.
await loadMarkup(draft.definition)
parentPort!.postMessage('ready')
parentPort!.postMessage(await preview(draft))
