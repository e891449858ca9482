import { useInfiniteQuery } from '@tanstack/react-query'
import { Link, useNavigate, useSearch } from '@tanstack/react-router'
import { FilePlus2, Search } from 'lucide-react'
import { useEffect, useState } from 'react'
import { call } from '../api/client.ts'
import { Badge, Button, Notice, Spinner } from '../ui/controls.tsx'
import { wordsOf } from '../ui/toasts.tsx'
import { channelName, languageName } from './document.ts'
import { NewTemplate } from './new-template.tsx'

const PAGE = 50
/** Long enough that typing a word asks once. */
const PAUSE_MS = 250

export function ListPage() {
  const search = useSearch({ from: '/templates' })
  const navigate = useNavigate({ from: '/templates' })
  const [making, setMaking] = useState(false)
  const found = useInfiniteQuery({
    queryKey: ['templates', search],
    queryFn: ({ pageParam, signal }) =>
      call('listTemplates', {
        query: { ...search, limit: PAGE, ...(pageParam && { cursor: pageParam }) },
        signal,
      }),
    initialPageParam: '',
    getNextPageParam: last => last.nextCursor ?? undefined,
    placeholderData: before => before,
  })
  const narrow = (more: Partial<typeof search>) =>
    void navigate({ search: before => ({ ...before, ...more }), replace: true })
  const items = found.data?.pages.flatMap(page => page.items) ?? []
  const filtered = Object.values(search).some(value => value !== undefined)

  return (
    <main id="main" className="mx-auto w-full max-w-6xl grow p-4 sm:p-8">
      <div className="mb-6 flex flex-wrap items-center justify-between gap-3">
        <div>
          <h1 className="text-2xl font-semibold tracking-tight">Templates</h1>
          <p className="text-sm text-muted">
            What your messages say, on every channel and in every language.
          </p>
        </div>
        <Button look="primary" icon={FilePlus2} onClick={() => setMaking(true)}>
          New template
        </Button>
      </div>
      <search className="mb-4 flex flex-wrap gap-2">
        <div className="relative min-w-56 grow">
          <Search aria-hidden className="pointer-events-none absolute top-2.5 left-3 size-4 text-muted" />
          <Typed
            label="Search by name"
            value={search.search}
            onChange={text => narrow({ search: text })}
            className="pl-9"
          />
        </div>
        <Typed
          label="Category"
          value={search.category}
          onChange={text => narrow({ category: text })}
          className="max-w-44"
        />
        <Typed label="Tag" value={search.tag} onChange={text => narrow({ tag: text })} className="max-w-40" />
        <select
          aria-label="State"
          className="field max-w-40"
          value={search.enabled === undefined ? '' : String(search.enabled)}
          onChange={({ target }) =>
            narrow({ enabled: target.value === '' ? undefined : target.value === 'true' })
          }
        >
          <option value="">On and off</option>
          <option value="true">On</option>
          <option value="false">Off</option>
        </select>
      </search>

      {found.isPending && <Spinner label="Loading templates" />}
      {found.isError && (
        <Notice tone="bad" role="alert">
          {wordsOf(found.error)}{' '}
          <button type="button" className="underline" onClick={() => void found.refetch()}>
            Try again
          </button>
        </Notice>
      )}
      {found.isSuccess && items.length === 0 && (
        <div className="card grid place-items-center gap-3 px-6 py-16 text-center">
          <h2 className="text-lg font-semibold">{filtered ? 'Nothing fits' : 'No template yet'}</h2>
          <p className="max-w-md text-sm text-muted">
            {filtered
              ? 'No template has this name, category, tag and state.'
              : 'Write what a message says once, see it as its readers will, and publish it when it is right.'}
          </p>
          {!filtered && (
            <Button look="primary" icon={FilePlus2} onClick={() => setMaking(true)}>
              Write the first one
            </Button>
          )}
        </div>
      )}
      {items.length > 0 && (
        <ul className="card divide-y divide-line overflow-hidden" aria-label="Templates">
          {items.map(item => (
            <li key={item.id}>
              <Link
                to="/templates/$id"
                params={{ id: item.id }}
                className="flex flex-wrap items-center gap-x-4 gap-y-1 px-5 py-3.5 outline-offset-[-2px] hover:bg-sunken"
              >
                <span className="min-w-48 grow basis-64">
                  <span className="block font-medium break-words">{item.name}</span>
                  {item.description !== '' && (
                    <span className="line-clamp-1 text-sm text-muted">{item.description}</span>
                  )}
                </span>
                <span className="flex flex-wrap items-center gap-1.5">
                  {item.category !== '' && <Badge>{item.category}</Badge>}
                  {item.channels.map(channel => (
                    <Badge key={channel} tone="accent">
                      {channelName(channel)}
                    </Badge>
                  ))}
                  {item.locales.length > 0 && (
                    <Badge>{[item.locale, ...item.locales].map(languageName).join(', ')}</Badge>
                  )}
                </span>
                <span className="flex items-center gap-2 sm:w-40 sm:justify-end">
                  <StateBadge {...item} />
                </span>
                <time dateTime={item.updatedAt} className="w-24 text-right text-sm text-muted max-sm:hidden">
                  {new Date(item.updatedAt).toLocaleDateString()}
                </time>
              </Link>
            </li>
          ))}
        </ul>
      )}
      {found.hasNextPage && (
        <div className="mt-4 text-center">
          <Button busy={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>
            More
          </Button>
        </div>
      )}
      {making && <NewTemplate onClose={() => setMaking(false)} />}
    </main>
  )
}

export function StateBadge({
  enabled,
  publishedRevision,
  lastRevision,
}: {
  enabled: boolean
  publishedRevision: number | null
  lastRevision: number
}) {
  if (!enabled) return <Badge tone="warn">Off</Badge>
  if (publishedRevision === null) return <Badge>Draft</Badge>
  return lastRevision > publishedRevision ? (
    <Badge tone="warn">Unpublished changes</Badge>
  ) : (
    <Badge tone="good">Published</Badge>
  )
}

/** Asks when somebody pauses, not at each letter. */
function Typed({
  label,
  value = '',
  onChange,
  className,
}: {
  label: string
  value: string | undefined
  onChange(text: string | undefined): void
  className: string
}) {
  const [text, setText] = useState(value)
  useEffect(() => {
    if (text === value) return
    const later = setTimeout(() => onChange(text === '' ? undefined : text), PAUSE_MS)
    return () => clearTimeout(later)
    // oxlint-disable-next-line exhaustive-deps -- only what is typed sets the clock
  }, [text])
  return (
    <input
      type="search"
      aria-label={label}
      placeholder={label}
      autoComplete="off"
      value={text}
      maxLength={255}
      onChange={({ target }) => setText(target.value)}
      className={`field ${className}`}
    />
  )
}
