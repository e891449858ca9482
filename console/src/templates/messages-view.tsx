import { Plus, Trash2 } from 'lucide-react'
import { useState } from 'react'
import { Badge, Button, IconButton, Notice } from '../ui/controls.tsx'
import { type Document, languageName, languagesOf, without } from './document.ts'
import type { Edit } from './editor.tsx'
import { type Problem, problemAt } from './problems.tsx'

const KEY = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$/

/** Texts that differ only in words: a key each, and what it says in each language. */
export function MessagesView({
  document,
  edit,
  problems,
}: {
  document: Document
  edit: Edit
  problems: readonly Problem[]
}) {
  const [key, setKey] = useState('')
  const languages = languagesOf(document)
  const keys = [...new Set(Object.values(document.messages).flatMap(texts => Object.keys(texts)))].sort()
  const wrong = key !== '' && !KEY.test(key)

  const set = (tag: string, of: string, text: string) =>
    edit(
      before => ({
        ...before,
        messages: { ...before.messages, [tag]: { ...before.messages[tag], [of]: text } },
      }),
      `message ${tag} ${of}`,
    )
  const remove = (of: string) =>
    edit(before => ({
      ...before,
      messages: Object.fromEntries(
        Object.entries(before.messages).map(([tag, texts]) => [tag, without(texts, of)]),
      ),
    }))

  return (
    <section aria-label="Messages" className="flex flex-col gap-4">
      <p className="max-w-prose text-sm text-muted">
        For sentences that many texts share, or that count things:{' '}
        <code>{'{n, plural, one {# item} other {# items}}'}</code> is written as each language counts. Texts
        use one by “Insert”, “Messages”.
      </p>
      {keys.length > 0 && languages.length === 1 && (
        <Notice>Add a language under Content to translate messages too.</Notice>
      )}
      {keys.map(of => (
        <div key={of} className="card p-4">
          <div className="mb-2 flex items-center justify-between">
            <h3 className="font-mono text-sm font-semibold">{of}</h3>
            <IconButton icon={Trash2} label={`Remove the message ${of}`} onClick={() => remove(of)} />
          </div>
          <div className="grid gap-3 md:grid-cols-2">
            {languages.map(tag => {
              const text = document.messages[tag]?.[of] ?? ''
              const error = problemAt(problems, `/messages/${tag}/${of}`)
              return (
                <label key={tag} className="flex flex-col gap-1 text-sm">
                  <span className="flex items-center gap-2 font-medium">
                    {languageName(tag)}
                    {text === '' && <Badge tone={tag === document.locale ? 'bad' : 'warn'}>missing</Badge>}
                  </span>
                  <textarea
                    rows={2}
                    lang={tag}
                    dir="auto"
                    className="field"
                    value={text}
                    aria-invalid={error === undefined ? undefined : true}
                    onChange={({ target }) => set(tag, of, target.value)}
                  />
                  {error !== undefined && <span className="text-xs text-bad">{error}</span>}
                </label>
              )
            })}
          </div>
        </div>
      ))}
      <form
        className="flex flex-wrap items-start gap-2"
        onSubmit={event => {
          event.preventDefault()
          if (!KEY.test(key)) return
          set(document.locale, key, document.messages[document.locale]?.[key] ?? '')
          setKey('')
        }}
      >
        <div>
          <input
            aria-label="Key of a new message"
            placeholder="key, such as greeting"
            className="field w-64 font-mono"
            value={key}
            aria-invalid={wrong || undefined}
            onChange={({ target }) => setKey(target.value)}
          />
          {wrong && <p className="text-xs text-bad">Letters, digits, dots, hyphens and underscores.</p>}
        </div>
        <Button icon={Plus} type="submit" disabled={key === '' || wrong}>
          Add a message
        </Button>
      </form>
    </section>
  )
}
