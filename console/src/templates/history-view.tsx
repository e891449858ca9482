import { useInfiniteQuery, useQuery } from '@tanstack/react-query'
import { RotateCcw } from 'lucide-react'
import { useState } from 'react'
import { call } from '../api/client.ts'
import { Badge, Button, Notice, Spinner } from '../ui/controls.tsx'
import { Dialog } from '../ui/dialog.tsx'
import { say, sayError, wordsOf } from '../ui/toasts.tsx'
import { without } from './document.ts'
import { placeOf } from './problems.tsx'

const PAGE = 20
const TONES = { published: 'good', draft: 'warn', earlier: 'plain' } as const

/** Every state there was, what changed with each, and the way back. */
export function HistoryView({
  id,
  saved,
  dirty,
  onRolledBack,
}: {
  id: string
  saved: { lastRevision: number }
  dirty: boolean
  onRolledBack(): void
}) {
  const [shown, setShown] = useState<number>()
  const [back, setBack] = useState<number>()
  const found = useInfiniteQuery({
    queryKey: ['versions', id, saved.lastRevision],
    queryFn: ({ pageParam, signal }) =>
      call('listTemplateVersions', {
        params: { id },
        query: { limit: PAGE, ...(pageParam && { cursor: pageParam }) },
        signal,
      }),
    initialPageParam: '',
    getNextPageParam: last => last.nextCursor ?? undefined,
  })
  if (found.isPending) return <Spinner label="Loading the history" />
  if (found.isError) return <Notice tone="bad">{wordsOf(found.error)}</Notice>

  return (
    <section aria-label="History" className="flex flex-col gap-3">
      <ol className="card divide-y divide-line">
        {found.data.pages
          .flatMap(page => page.items)
          .map(({ revision, status, version, createdAt, createdBy }) => (
            <li key={revision} className="px-4 py-3">
              <div className="flex flex-wrap items-center gap-3">
                <span className="font-medium">Revision {revision}</span>
                <Badge tone={TONES[status]}>{status}</Badge>
                <span className="grow text-sm text-muted">
                  {new Date(createdAt).toLocaleString()} · {version}
                  {createdBy !== null && ` · ${createdBy.slice(0, 8)}`}
                </span>
                {revision > 1 && (
                  <Button
                    look="quiet"
                    aria-expanded={shown === revision}
                    onClick={() => setShown(shown === revision ? undefined : revision)}
                  >
                    {shown === revision ? 'Hide changes' : 'Show changes'}
                  </Button>
                )}
                {status !== 'published' && status !== 'draft' && (
                  <Button icon={RotateCcw} onClick={() => setBack(revision)}>
                    Go back to it
                  </Button>
                )}
              </div>
              {shown === revision && <Changes id={id} revision={revision} />}
            </li>
          ))}
      </ol>
      {found.hasNextPage && (
        <Button
          className="self-center"
          busy={found.isFetchingNextPage}
          onClick={() => void found.fetchNextPage()}
        >
          Earlier
        </Button>
      )}
      {back !== undefined && (
        <Dialog
          open
          onClose={() => setBack(undefined)}
          title={`Go back to revision ${back}?`}
          about="Its texts are published at once, as a new revision. Nothing of the history is lost."
        >
          {dirty && <Notice tone="warn">What you changed here since the last save is lost.</Notice>}
          <div className="mt-4 flex justify-end gap-2">
            <Button onClick={() => setBack(undefined)}>Cancel</Button>
            <Button
              look="primary"
              icon={RotateCcw}
              onClick={() =>
                void call('rollBackTemplate', { params: { id }, body: { revision: back } }).then(
                  () => {
                    say(`Back at revision ${back}`)
                    onRolledBack()
                  },
                  (error: unknown) => {
                    setBack(undefined)
                    sayError(error, 'It stayed as it was')
                  },
                )
              }
            >
              Publish revision {back} again
            </Button>
          </div>
        </Dialog>
      )}
    </section>
  )
}

function Changes({ id, revision }: { id: string; revision: number }) {
  const found = useQuery({
    queryKey: ['diff', id, revision],
    queryFn: ({ signal }) =>
      call('diffTemplate', { params: { id }, query: { from: revision - 1, to: revision }, signal }),
    staleTime: Number.POSITIVE_INFINITY,
  })
  if (found.isPending) return <Spinner label="Comparing" />
  if (found.isError) return <Notice tone="bad">{wordsOf(found.error)}</Notice>
  // The HTML beside MJML is made of it, and says the same again.
  const made = new Set(
    found.data.changes
      .filter(one => one.field.endsWith('/mjml'))
      .map(one => one.field.replace(/mjml$/, 'html')),
  )
  const changes = found.data.changes.filter(({ field }) => !made.has(field))
  if (changes.length === 0) return <p className="pt-2 text-sm text-muted">The texts are the same.</p>
  return (
    <dl className="mt-3 flex flex-col gap-3">
      {changes.map(({ field, before, after }) => (
        <div key={field}>
          <dt className="text-sm font-medium">{placeOf(field)}</dt>
          <dd className="mt-1 grid gap-2 text-xs md:grid-cols-2">
            <Side label="Before" tone="bad" lines={linesOf(before)} others={linesOf(after)} />
            <Side label="After" tone="good" lines={linesOf(after)} others={linesOf(before)} />
          </dd>
        </div>
      ))}
    </dl>
  )
}

/** HTML beside MJML is what the server made of it. */
const withoutMade = (_key: string, value: unknown): unknown =>
  typeof value === 'object' && value !== null && 'mjml' in value && 'html' in value
    ? without(value, 'html')
    : value

const linesOf = (value: unknown): string[] =>
  value === undefined
    ? []
    : (typeof value === 'string' ? value : JSON.stringify(value, withoutMade, 2)).split('\n')

/** Lines that the other side does not have stand out. */
function Side({
  label,
  tone,
  lines,
  others,
}: {
  label: string
  tone: 'good' | 'bad'
  lines: string[]
  others: string[]
}) {
  const known = new Set(others)
  return (
    <pre
      aria-label={label}
      tabIndex={0}
      className="max-h-72 overflow-auto rounded-lg border border-line bg-sunken p-2 whitespace-pre-wrap"
    >
      {lines.length === 0 && <span className="text-muted">nothing</span>}
      {lines.map((line, at) => (
        <span
          key={at}
          className={`block ${known.has(line) ? '' : tone === 'good' ? 'bg-good-soft text-good' : 'bg-bad-soft text-bad'}`}
        >
          {line || ' '}
        </span>
      ))}
    </pre>
  )
}
