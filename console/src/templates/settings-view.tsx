import { CheckField, TextArea, TextField } from '../ui/controls.tsx'
import { useState } from 'react'
import { type Document, canonicalLanguage, languageName } from './document.ts'
import type { Edit } from './editor.tsx'
import { type Problem, problemAt } from './problems.tsx'

/** How a template is found, and whether it is used. */
export function SettingsView({
  document,
  edit,
  problems,
}: {
  document: Document
  edit: Edit
  problems: readonly Problem[]
}) {
  const [tags, setTags] = useState(document.tags.join(', '))
  const [locale, setLocale] = useState(document.locale)
  const set = (change: Partial<Document>) =>
    edit(before => ({ ...before, ...change }), `settings ${Object.keys(change).join()}`)
  const tag = canonicalLanguage(locale)
  return (
    <section aria-label="Settings" className="flex max-w-xl flex-col gap-5">
      <TextField
        label="Name"
        value={document.name}
        maxLength={255}
        hint="Rules and programs name it by this."
        error={document.name.trim() === '' ? 'A template has a name.' : problemAt(problems, '/name')}
        onChange={({ target }) => set({ name: target.value })}
      />
      <TextArea
        label="Description"
        value={document.description}
        maxLength={10_000}
        onChange={({ target }) => set({ description: target.value })}
      />
      <div className="grid gap-5 sm:grid-cols-2">
        <TextField
          label="Category"
          value={document.category}
          maxLength={255}
          onChange={({ target }) => set({ category: target.value })}
        />
        <TextField
          label="Tags"
          value={tags}
          hint="Separated by commas."
          onChange={({ target }) => {
            setTags(target.value)
            set({
              tags: [
                ...new Set(
                  target.value
                    .split(',')
                    .map(one => one.trim())
                    .filter(Boolean),
                ),
              ],
            })
          }}
        />
      </div>
      <TextField
        label="Language of the texts"
        value={locale}
        hint={tag === undefined ? undefined : languageName(tag)}
        error={
          tag === undefined ? 'A language tag, such as en, de or pt-BR.' : problemAt(problems, '/locale')
        }
        onChange={({ target }) => {
          setLocale(target.value)
          const next = canonicalLanguage(target.value)
          if (next !== undefined && !(next in document.translations)) set({ locale: next })
        }}
      />
      <CheckField
        label="In use"
        hint="Off: nothing is sent with it, and who names it is told so."
        checked={document.enabled}
        onChange={({ target }) => set({ enabled: target.checked })}
      />
      <p className="text-sm text-muted">Everything on this page but the language changes when you publish.</p>
    </section>
  )
}
