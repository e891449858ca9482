import { Tabs } from '@base-ui/react/tabs'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { Link, useBlocker, useNavigate } from '@tanstack/react-router'
import { ArrowLeft, Ellipsis, Redo2, Rocket, Save, Send, Trash2, Undo2 } from 'lucide-react'
import { useCallback, useEffect, useMemo, useState } from 'react'
import { type Answer, ApiError, call } from '../api/client.ts'
import { Button, IconButton, Notice } from '../ui/controls.tsx'
import { Dialog } from '../ui/dialog.tsx'
import { Menu } from '../ui/menu.tsx'
import { say, sayError } from '../ui/toasts.tsx'
import { ContentView } from './content-view.tsx'
import { type Document, documentOf, languagesOf, sampleOf, textsOf } from './document.ts'
import { type History, change, historyOf, redo, settle, undo } from './history.ts'
import { HistoryView } from './history-view.tsx'
import { StateBadge } from './list-page.tsx'
import { MessagesView } from './messages-view.tsx'
import { PreviewPane } from './preview-pane.tsx'
import { type Problem, ProblemsNotice } from './problems.tsx'
import { SettingsView } from './settings-view.tsx'
import { TestDialog } from './test-dialog.tsx'
import { unfinishedOf } from './unfinished.ts'
import { useLater } from './use-later.ts'
import { VariablesView } from './variables-view.tsx'

/** How the editor changes what is edited; changes `about` one thing in quick succession are undone together. */
export type Edit = (make: (document: Document) => Document, about?: string) => void

/** After the last letter, before the server is asked. */
const PAUSE_MS = 500

const VIEWS = {
  content: 'Content',
  variables: 'Variables',
  messages: 'Messages',
  settings: 'Settings',
  history: 'History',
} as const

/** One template: what it says, and beside it what its readers will see. */
export function Editor({ template, onReload }: { template: Answer<'getTemplate'>; onReload(): void }) {
  const { id } = template
  const queries = useQueryClient()
  const navigate = useNavigate()
  const [history, setHistory] = useState<History<Document>>(() => historyOf(documentOf(template)))
  const [saved, setSaved] = useState(() => ({ document: history.present, ...standing(template) }))
  const [view, setView] = useState<keyof typeof VIEWS>('content')
  const [wantedChannel, setChannel] = useState(() => firstChannel(history.present))
  const [wantedLanguage, setLanguage] = useState(history.present.locale)
  const [sampleText, setSampleText] = useState<string>()
  const [busy, setBusy] = useState<'save' | 'publish'>()
  const [refused, setRefused] = useState<readonly Problem[]>([])
  const [conflict, setConflict] = useState(false)
  const [unfinished, setUnfinished] = useState<readonly string[]>([])
  const [testing, setTesting] = useState(false)
  const [deleting, setDeleting] = useState(false)

  const document = history.present
  // Undoing may take away what was being looked at.
  const channel = wantedChannel in document.channels ? wantedChannel : firstChannel(document)
  const language = languagesOf(document).includes(wantedLanguage) ? wantedLanguage : document.locale
  const dirty = useMemo(
    () => JSON.stringify(document) !== JSON.stringify(saved.document),
    [document, saved.document],
  )
  const unpublished = dirty || saved.lastRevision !== saved.publishedRevision

  const edit: Edit = useCallback((make, about = '') => {
    setRefused([])
    setHistory(before => change(before, make(before.present), about, Date.now()))
  }, [])

  // ---- what the server says of it
  const texts = useMemo(() => textsOf(document), [document])
  const settled = useLater(texts, PAUSE_MS)
  const verdict = useQuery({
    queryKey: ['verdict', id, settled],
    queryFn: ({ signal }) => call('validateTemplate', { params: { id }, body: settled, signal }),
    placeholderData: before => before,
    gcTime: 30_000,
  })
  const problems: readonly Problem[] = refused.length > 0 ? refused : (verdict.data?.errors ?? [])
  const warnings = verdict.data?.warnings ?? []

  const sample = useMemo(() => readSample(sampleText, document), [sampleText, document])

  // ---- keeping it
  async function run(what: 'save' | 'publish') {
    setBusy(what)
    setRefused([])
    try {
      const { name, description, category, tags, enabled, schemaVersion } = document
      const body = {
        name,
        description,
        category,
        tags,
        enabled,
        schemaVersion,
        ...textsOf(document),
        revision: saved.lastRevision,
      }
      const answer =
        what === 'publish' && !dirty
          ? await call('publishTemplate', { params: { id }, body: { revision: saved.lastRevision } })
          : await call('updateTemplate', {
              params: { id },
              body: { ...body, ...(what === 'save' && { draft: true }) },
            })
      // A draft holds texts alone: name, category and tags are still to be published.
      const kept = what === 'publish' ? document : { ...saved.document, ...textFields(document) }
      setSaved({ document: kept, ...standing(answer) })
      setHistory(settle)
      void queries.invalidateQueries({ queryKey: ['templates'] })
      void queries.invalidateQueries({ queryKey: ['versions', id] })
      say(
        what === 'publish' ? 'Published' : 'Draft saved',
        what === 'publish'
          ? 'Messages are sent with this from now on.'
          : JSON.stringify(kept) === JSON.stringify(document)
            ? 'Nothing is sent with it before you publish it.'
            : 'Name, category, tags and whether it is on change when you publish.',
      )
    } catch (error) {
      if (error instanceof ApiError && error.code === 'conflict') setConflict(true)
      else {
        if (error instanceof ApiError) setRefused(error.errors)
        sayError(error, what === 'publish' ? 'It was not published' : 'It was not saved')
      }
    } finally {
      setBusy(undefined)
    }
  }

  /** Ours on top of whatever somebody else saved meanwhile; theirs stays in the history. */
  async function takeOver() {
    setConflict(false)
    try {
      const theirs = await call('getTemplate', { params: { id }, query: { revision: 'last' } })
      setSaved({ document: documentOf(theirs), ...standing(theirs) })
      say(
        'Yours is on top',
        'Save or publish again to keep it. What the other person wrote is in the history.',
      )
    } catch (error) {
      sayError(error, 'The newest revision could not be read')
    }
  }

  // ---- keys
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (!(event.ctrlKey || event.metaKey) || event.altKey) return
      const key = event.key.toLowerCase()
      if ((event.target as Element | null)?.closest?.('.cm-editor, [role=dialog]')) return
      if (key === 's') {
        event.preventDefault()
        if (dirty && !busy) void run('save')
      } else if (key === 'z' || key === 'y') {
        event.preventDefault()
        setHistory(key === 'y' || event.shiftKey ? redo : undo)
      }
    }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  })

  const blocker = useBlocker({
    shouldBlockFn: ({ current, next }) => dirty && !deleting && current.pathname !== next.pathname,
    enableBeforeUnload: dirty,
    withResolver: true,
  })

  const shared = { document, edit, problems }
  return (
    <main id="main" className="flex min-h-0 grow flex-col">
      <div className="sticky top-0 z-20 flex flex-wrap items-center gap-2 border-b border-line bg-surface px-4 py-2.5">
        <Link
          to="/templates"
          aria-label="Back to the templates"
          title="Back to the templates"
          className="inline-flex size-8 items-center justify-center rounded-md text-muted hover:bg-sunken hover:text-ink"
        >
          <ArrowLeft aria-hidden className="size-4" />
        </Link>
        <h1 className="min-w-0 truncate text-base font-semibold">{document.name || 'Without a name'}</h1>
        <StateBadge {...saved} enabled={saved.document.enabled} />
        <span role="status" className="grow text-xs text-muted">
          {dirty ? 'Not saved yet' : 'All changes saved'}
        </span>
        <IconButton
          icon={Undo2}
          label="Undo (Ctrl+Z)"
          disabled={history.past.length === 0}
          onClick={() => setHistory(undo)}
        />
        <IconButton
          icon={Redo2}
          label="Redo (Ctrl+Shift+Z)"
          disabled={history.future.length === 0}
          onClick={() => setHistory(redo)}
        />
        <Button icon={Send} onClick={() => setTesting(true)}>
          Send a test
        </Button>
        <Button icon={Save} busy={busy === 'save'} disabled={!dirty} onClick={() => void run('save')}>
          Save draft
        </Button>
        <Button
          look="primary"
          icon={Rocket}
          busy={busy === 'publish'}
          disabled={!unpublished}
          onClick={() => {
            const lacks = unfinishedOf(document)
            if (lacks.length > 0) setUnfinished(lacks)
            else void run('publish')
          }}
        >
          Publish
        </Button>
        <Menu
          trigger={<IconButton icon={Ellipsis} label="More" />}
          groups={[
            {
              entries: [
                { label: 'Delete the template', icon: Trash2, danger: true, run: () => setDeleting(true) },
              ],
            },
          ]}
        />
      </div>

      <div className="grid grow items-start lg:grid-cols-[minmax(0,1fr)_minmax(22rem,30rem)] xl:grid-cols-[minmax(0,1fr)_minmax(26rem,40rem)]">
        <Tabs.Root
          value={view}
          onValueChange={next => setView(next as keyof typeof VIEWS)}
          className="min-w-0"
        >
          <Tabs.List
            className="flex gap-1 overflow-x-auto border-b border-line bg-surface px-3"
            aria-label="Parts of the template"
          >
            {Object.entries(VIEWS).map(([name, label]) => (
              <Tabs.Tab
                key={name}
                value={name}
                className="border-b-2 border-transparent px-3 py-2.5 text-sm whitespace-nowrap text-muted outline-offset-[-2px] hover:text-ink aria-selected:border-accent aria-selected:font-medium aria-selected:text-ink"
              >
                {label}
              </Tabs.Tab>
            ))}
          </Tabs.List>
          <div className="p-4 sm:p-6">
            {problems.length > 0 && (
              <ProblemsNotice problems={problems} onShow={place => showProblem(place)} />
            )}
            <Tabs.Panel value="content" tabIndex={-1}>
              <ContentView
                {...shared}
                channel={channel}
                onChannel={setChannel}
                language={language}
                onLanguage={setLanguage}
                sample={sample.data}
              />
            </Tabs.Panel>
            <Tabs.Panel value="variables" tabIndex={-1}>
              <VariablesView {...shared} fields={verdict.data?.fields ?? []} />
            </Tabs.Panel>
            <Tabs.Panel value="messages" tabIndex={-1}>
              <MessagesView {...shared} />
            </Tabs.Panel>
            <Tabs.Panel value="settings" tabIndex={-1}>
              <SettingsView {...shared} />
            </Tabs.Panel>
            <Tabs.Panel value="history" tabIndex={-1}>
              <HistoryView id={id} saved={saved} dirty={dirty} onRolledBack={onReload} />
            </Tabs.Panel>
            {warnings.length > 0 && problems.length === 0 && (
              <div className="mt-6">
                <Notice tone="warn">
                  <p className="font-medium">Worth knowing</p>
                  <ul className="list-disc pl-5">
                    {warnings.map(({ field, message }) => (
                      <li key={field + message}>{message}</li>
                    ))}
                  </ul>
                </Notice>
              </div>
            )}
          </div>
        </Tabs.Root>
        <PreviewPane
          document={document}
          draft={settled}
          channel={channel}
          language={language}
          onLanguage={setLanguage}
          sampleText={sampleText ?? sample.text}
          sample={sample}
          onSample={setSampleText}
        />
      </div>

      {testing && (
        <TestDialog
          id={id}
          draft={texts}
          asPublished={!unpublished}
          channel={channel}
          language={language}
          sample={sample.data}
          channels={Object.keys(document.channels)}
          onClose={() => setTesting(false)}
        />
      )}
      {unfinished.length > 0 && (
        <Dialog
          open
          onClose={() => setUnfinished([])}
          title="Publish it unfinished?"
          about="Readers get it as it is from then on."
        >
          <div className="flex flex-col gap-4">
            <ul className="list-disc pl-5 text-sm">
              {unfinished.map(lack => (
                <li key={lack}>{lack}</li>
              ))}
            </ul>
            <div className="flex flex-wrap justify-end gap-2">
              <Button onClick={() => setUnfinished([])}>Go on writing</Button>
              <Button
                look="primary"
                icon={Rocket}
                onClick={() => {
                  setUnfinished([])
                  void run('publish')
                }}
              >
                Publish all the same
              </Button>
            </div>
          </div>
        </Dialog>
      )}
      {conflict && (
        <Dialog
          open
          onClose={() => setConflict(false)}
          title="Somebody else saved this template"
          about="There is a newer revision than the one you began with. Nothing of yours is lost."
        >
          <div className="flex flex-col gap-3">
            <p className="text-sm">
              Keep yours, and save it on top of theirs; or leave yours and look at theirs. Theirs stays in the
              history either way.
            </p>
            <div className="flex flex-wrap justify-end gap-2">
              <Button look="quiet" onClick={() => setConflict(false)}>
                Not now
              </Button>
              <Button onClick={onReload}>Leave mine, show theirs</Button>
              <Button look="primary" onClick={() => void takeOver()}>
                Keep mine
              </Button>
            </div>
          </div>
        </Dialog>
      )}
      {blocker.status === 'blocked' && (
        <Dialog
          open
          onClose={blocker.reset}
          title="Leave without saving?"
          about="What you changed since the last save is lost."
        >
          <div className="flex justify-end gap-2">
            <Button onClick={blocker.reset}>Stay</Button>
            <Button look="danger" onClick={blocker.proceed}>
              Leave
            </Button>
          </div>
        </Dialog>
      )}
      {deleting && (
        <Dialog
          open
          onClose={() => setDeleting(false)}
          title={`Delete ${document.name}?`}
          about="Nothing is sent with it any more. What was sent stays readable."
        >
          <div className="flex justify-end gap-2">
            <Button onClick={() => setDeleting(false)}>Keep it</Button>
            <Button
              look="danger"
              icon={Trash2}
              onClick={() =>
                void call('deleteTemplate', { params: { id } }).then(
                  async () => {
                    await queries.invalidateQueries({ queryKey: ['templates'] })
                    await navigate({ to: '/templates' })
                  },
                  (error: unknown) => {
                    setDeleting(false)
                    sayError(error, 'It was not deleted')
                  },
                )
              }
            >
              Delete
            </Button>
          </div>
        </Dialog>
      )}
    </main>
  )

  function showProblem(field: string) {
    const [, part, first, second] = field.split('/')
    if (part === 'channels' && first) {
      setView('content')
      setChannel(first)
      setLanguage(document.locale)
    } else if (part === 'translations' && first) {
      setView('content')
      setLanguage(first)
      if (second && second in document.channels) setChannel(second)
    } else if (part === 'variables' || part === 'messages') setView(part)
    else setView('settings')
  }
}

const standing = ({
  publishedRevision,
  lastRevision,
}: {
  publishedRevision: number | null
  lastRevision: number
}) => ({
  publishedRevision,
  lastRevision,
})

const textFields = ({ locale, channels, translations, variables, messages, partials }: Document) => ({
  locale,
  channels,
  translations,
  variables,
  messages,
  partials,
})

const firstChannel = ({ channels }: Document): string =>
  ['email', 'default'].find(name => name in channels) ?? Object.keys(channels)[0] ?? 'default'

export interface Sample {
  text: string
  data: Record<string, unknown>
  error: string | undefined
}

/** What is previewed with: what was typed where that is an object, else what the variables suggest. */
function readSample(typed: string | undefined, { variables }: Document): Sample {
  const suggested = sampleOf(variables)
  if (typed === undefined)
    return { text: JSON.stringify(suggested, null, 2), data: suggested, error: undefined }
  try {
    const data: unknown = JSON.parse(typed)
    if (typeof data === 'object' && data !== null && !Array.isArray(data)) {
      return { text: typed, data: data as Record<string, unknown>, error: undefined }
    }
    return { text: typed, data: suggested, error: 'Sample data is one JSON object, in braces.' }
  } catch (error) {
    return { text: typed, data: suggested, error: (error as Error).message }
  }
}
