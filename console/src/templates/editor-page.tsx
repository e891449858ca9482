import { useQuery } from '@tanstack/react-query'
import { Link, useParams } from '@tanstack/react-router'
import { useState } from 'react'
import { call } from '../api/client.ts'
import { Notice, Spinner } from '../ui/controls.tsx'
import { wordsOf } from '../ui/toasts.tsx'
import { Editor } from './editor.tsx'

export function EditorPage() {
  const { id } = useParams({ from: '/templates/$id' })
  const [round, setRound] = useState(0)
  const found = useQuery({
    queryKey: ['template', id, round],
    queryFn: ({ signal }) => call('getTemplate', { params: { id }, query: { revision: 'last' }, signal }),
    // What is edited is a copy: nothing that comes later may pull it away.
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
  })
  if (found.isPending) return <Spinner label="Loading the template" />
  if (found.isError) {
    return (
      <main id="main" className="mx-auto w-full max-w-2xl p-8">
        <Notice tone="bad" role="alert">
          {wordsOf(found.error)}
        </Notice>
        <Link to="/templates" className="mt-4 inline-block text-accent-ink underline">
          Back to the templates
        </Link>
      </main>
    )
  }
  return (
    <Editor key={`${id} ${round}`} template={found.data} onReload={() => setRound(before => before + 1)} />
  )
}
