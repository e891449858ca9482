import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { FileText, Mail } from 'lucide-react'
import { type SubmitEvent, useState } from 'react'
import { ApiError, call } from '../api/client.ts'
import { DEFAULT_STYLE, newBlock } from '../blocks/block.ts'
import { printMail } from '../blocks/mjml.ts'
import { Button, TextField } from '../ui/controls.tsx'
import { Dialog } from '../ui/dialog.tsx'
import { sayError } from '../ui/toasts.tsx'
import { type Document, documentOf, textsOf } from './document.ts'

const EMPTY = {
  description: '',
  category: '',
  tags: [],
  enabled: true,
  locale: 'en',
  translations: {},
  variables: [],
  messages: {},
  partials: {},
  schemaVersion: '1.0',
}

/** What a new e-mail begins with: enough to see what there is. */
const firstMail = () =>
  printMail({
    preheader: '',
    style: DEFAULT_STYLE,
    blocks: [newBlock('heading'), newBlock('text'), newBlock('button')],
  })

const STARTS: {
  id: string
  label: string
  about: string
  icon: typeof Mail
  make(): Omit<Document, 'name'>
}[] = [
  {
    id: 'email',
    label: 'An e-mail',
    about: 'Put together from blocks.',
    icon: Mail,
    make: () => ({ ...EMPTY, channels: { email: { subject: 'Subject', mjml: firstMail() } } }),
  },
  {
    id: 'text',
    label: 'A text for every channel',
    about: 'A title and some text; channels can differ later.',
    icon: FileText,
    make: () => ({ ...EMPTY, channels: { default: { subject: 'Title', body: 'Some text.' } } }),
  },
]

export function NewTemplate({ onClose }: { onClose(): void }) {
  const [name, setName] = useState('')
  const [start, setStart] = useState('email')
  const [error, setError] = useState<string>()
  const [busy, setBusy] = useState(false)
  const navigate = useNavigate()
  const queries = useQueryClient()
  const defaults = useQuery({
    queryKey: ['defaults'],
    queryFn: ({ signal }) => call('listTemplateDefaults', { signal }),
    staleTime: Number.POSITIVE_INFINITY,
  })

  async function submit(event: SubmitEvent) {
    event.preventDefault()
    const form = event.currentTarget as HTMLFormElement
    // What is wrong with the name stands beside it, which may be out of sight by now.
    const refuse = (why: string) => {
      setError(why)
      form.querySelector('input')?.focus()
    }
    if (name.trim() === '') return refuse('Give it a name.')
    setBusy(true)
    setError(undefined)
    try {
      const given = defaults.data?.items.find(one => `default ${one.name}` === start)
      const document: Document = {
        ...(given ? documentOf(given) : STARTS.find(one => one.id === start)!.make()),
        name: name.trim(),
      }
      const { description, category, tags, enabled, schemaVersion } = document
      const made = await call('createTemplate', {
        body: {
          name: document.name,
          description,
          category,
          tags,
          enabled,
          schemaVersion,
          ...textsOf(document),
          draft: true,
        },
      })
      void queries.invalidateQueries({ queryKey: ['templates'] })
      await navigate({ to: '/templates/$id', params: { id: made.id } })
    } catch (thrown) {
      if (thrown instanceof ApiError && thrown.code === 'already_exists') refuse(thrown.message)
      else sayError(thrown, 'The template was not made')
      setBusy(false)
    }
  }

  const choose = (id: string, label: string, about: string, Icon: typeof Mail) => (
    <label
      key={id}
      className="flex cursor-pointer items-start gap-3 rounded-lg border border-line p-3 has-checked:border-accent has-checked:bg-accent-soft has-focus-visible:outline-2 has-focus-visible:outline-offset-2"
    >
      <input
        type="radio"
        name="start"
        value={id}
        checked={start === id}
        onChange={() => setStart(id)}
        className="mt-1 accent-accent"
      />
      <Icon aria-hidden className="mt-0.5 size-5 shrink-0 text-accent-ink" />
      <span>
        <span className="block text-sm font-medium">{label}</span>
        <span className="block text-xs text-muted">{about}</span>
      </span>
    </label>
  )

  return (
    <Dialog
      open
      onClose={onClose}
      title="New template"
      about="Nothing is sent with it before you publish it."
    >
      <form onSubmit={event => void submit(event)} className="flex flex-col gap-5" noValidate>
        <TextField
          label="Name"
          value={name}
          maxLength={255}
          error={error}
          autoFocus
          hint="What rules and programs call it, such as order-shipped."
          onChange={({ target }) => setName(target.value)}
        />
        <fieldset>
          <legend className="mb-2 text-sm font-medium">Begin with</legend>
          <div className="grid gap-2 sm:grid-cols-2">
            {STARTS.map(({ id, label, about, icon }) => choose(id, label, about, icon))}
            {defaults.data?.items.map(one =>
              choose(`default ${one.name}`, one.name, one.description, FileText),
            )}
          </div>
        </fieldset>
        <div className="sticky -bottom-4 -mx-5 -mb-4 flex justify-end gap-2 border-t border-line bg-raised px-5 py-3">
          <Button look="quiet" onClick={onClose}>
            Cancel
          </Button>
          <Button look="primary" type="submit" busy={busy}>
            Make the template
          </Button>
        </div>
      </form>
    </Dialog>
  )
}
