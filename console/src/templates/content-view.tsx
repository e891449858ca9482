import { Languages, Plus, Trash2 } from 'lucide-react'
import { useState } from 'react'
import { Badge, Button, Notice, TextField } from '../ui/controls.tsx'
import { Dialog } from '../ui/dialog.tsx'
import { Menu } from '../ui/menu.tsx'
import { aligned } from './align.ts'
import { ChannelForm } from './channel-form.tsx'
import {
  CHANNELS,
  type Content,
  type Document,
  canonicalLanguage,
  channelName,
  channelsOf,
  languageName,
  languagesOf,
  missingIn,
  without,
} from './document.ts'
import type { Edit } from './editor.tsx'
import type { Problem } from './problems.tsx'

/** What each channel says, in each language. */
export function ContentView({
  document,
  edit,
  problems,
  channel,
  onChannel,
  language,
  onLanguage,
  sample,
}: {
  document: Document
  edit: Edit
  problems: readonly Problem[]
  channel: string
  onChannel(channel: string): void
  language: string
  onLanguage(language: string): void
  sample: Record<string, unknown>
}) {
  const [adding, setAdding] = useState(false)
  const shown = channelsOf(document)
  const here = channel in document.channels ? channel : (shown[0] ?? 'default')
  const source = document.channels[here] ?? {}
  const translating = language !== document.locale
  const translation = document.translations[language]?.[here]
  const languages = languagesOf(document)

  const setContent = (change: (content: Content) => Content, about = '') =>
    edit(
      before =>
        translating
          ? {
              ...before,
              translations: {
                ...before.translations,
                [language]: {
                  ...before.translations[language],
                  [here]: change(before.translations[language]?.[here] ?? {}),
                },
              },
            }
          : aligned(
              before,
              { ...before, channels: { ...before.channels, [here]: change(before.channels[here] ?? {}) } },
              here,
            ),
      about && `${language} ${here} ${about}`,
    )

  function addChannel(name: string) {
    const { subject, title, body } = document.channels.default ?? source
    edit(before => ({
      ...before,
      channels: {
        ...before.channels,
        [name]: { ...((subject ?? title) && { subject: subject ?? title }), body: body ?? '' },
      },
    }))
    onChannel(name)
  }

  function removeChannel() {
    edit(before => {
      const translations = Object.fromEntries(
        Object.entries(before.translations).map(([tag, contents]) => [tag, without(contents, here)]),
      )
      return { ...before, channels: without(before.channels, here), translations }
    })
    onChannel(shown.find(name => name !== here) ?? 'default')
  }

  function removeLanguage() {
    edit(before => ({
      ...before,
      translations: without(before.translations, language),
      messages: without(before.messages, language),
    }))
    onLanguage(document.locale)
  }

  return (
    <div className="flex flex-col gap-5">
      <div className="flex flex-wrap items-center gap-x-4 gap-y-2">
        <div role="group" aria-label="Channel" className="flex flex-wrap gap-1 rounded-lg bg-sunken p-1">
          {shown.map(name => (
            <button
              key={name}
              type="button"
              aria-pressed={name === here}
              onClick={() => onChannel(name)}
              className="rounded-md px-3 py-1 text-sm text-muted hover:text-ink aria-pressed:bg-raised aria-pressed:font-medium aria-pressed:text-ink aria-pressed:shadow-card"
            >
              {channelName(name)}
            </button>
          ))}
          <Menu
            trigger={
              <Button look="quiet" icon={Plus} className="!min-h-7 !px-2">
                Channel
              </Button>
            }
            groups={[
              {
                label: 'Say it differently on',
                entries: Object.entries(CHANNELS)
                  .filter(([name]) => !(name in document.channels))
                  .map(([name, label]) => ({ label, run: () => addChannel(name) })),
              },
            ]}
            empty="Every channel has its own text."
          />
        </div>
        <div role="group" aria-label="Language" className="flex flex-wrap items-center gap-1">
          <Languages aria-hidden className="mr-1 size-4 text-muted" />
          {languages.map(tag => {
            const missing = missingIn(document, tag)
            return (
              <button
                key={tag}
                type="button"
                aria-pressed={tag === language}
                onClick={() => onLanguage(tag)}
                className="flex items-center gap-1.5 rounded-full border border-line px-3 py-1 text-sm text-muted hover:bg-sunken aria-pressed:border-accent aria-pressed:bg-accent-soft aria-pressed:font-medium aria-pressed:text-accent-ink"
              >
                {languageName(tag)}
                {missing.length > 0 && <Badge tone="warn">{missing.length} missing</Badge>}
              </button>
            )
          })}
          <Button look="quiet" icon={Plus} className="!min-h-7 !px-2" onClick={() => setAdding(true)}>
            Language
          </Button>
        </div>
      </div>

      {here === 'default' && !translating && (
        <p className="text-sm text-muted">Said on every channel that has no text of its own.</p>
      )}
      {translating && translation === undefined && (
        <Notice tone="warn">
          {languageName(language)} has nothing for {channelName(here)} yet: its readers get it in{' '}
          {document.translations[language]?.default
            ? 'the words for all others'
            : languageName(document.locale)}
          .
        </Notice>
      )}

      <ChannelForm
        key={`${here} ${language}`}
        document={document}
        problems={problems}
        pointer={translating ? `/translations/${language}/${here}` : `/channels/${here}`}
        channel={here}
        language={language}
        source={source}
        content={translating ? (translation ?? {}) : source}
        translating={translating}
        onChange={setContent}
        sample={sample}
      />

      <div className="flex flex-wrap gap-2 border-t border-line pt-4">
        {translating ? (
          <Button look="quiet" icon={Trash2} onClick={removeLanguage}>
            Remove {languageName(language)}
          </Button>
        ) : (
          shown.length > 1 && (
            <Button look="quiet" icon={Trash2} onClick={removeChannel}>
              Remove the text for {channelName(here)}
            </Button>
          )
        )}
      </div>
      {adding && (
        <AddLanguage
          taken={languages}
          onClose={() => setAdding(false)}
          onAdd={tag => {
            setAdding(false)
            edit(before => ({ ...before, translations: { ...before.translations, [tag]: {} } }))
            onLanguage(tag)
          }}
        />
      )}
    </div>
  )
}

const COMMON = ['de', 'fr', 'es', 'pt-BR', 'it', 'nl', 'pl', 'tr', 'ar', 'hi', 'ja', 'zh']

function AddLanguage({
  taken,
  onAdd,
  onClose,
}: {
  taken: readonly string[]
  onAdd(tag: string): void
  onClose(): void
}) {
  const [text, setText] = useState('')
  const tag = text === '' ? undefined : canonicalLanguage(text)
  const error =
    text === ''
      ? undefined
      : tag === undefined
        ? 'A language tag, such as de or pt-BR.'
        : taken.includes(tag)
          ? 'It is there already.'
          : undefined
  return (
    <Dialog
      open
      onClose={onClose}
      title="Add a language"
      about="Readers get it when it is theirs; what it lacks comes from the original."
    >
      <form
        className="flex flex-col gap-4"
        onSubmit={event => {
          event.preventDefault()
          if (tag !== undefined && error === undefined) onAdd(tag)
        }}
      >
        <div className="flex flex-wrap gap-2">
          {COMMON.filter(one => !taken.includes(one)).map(one => (
            <Button key={one} onClick={() => onAdd(one)}>
              {languageName(one)}
            </Button>
          ))}
        </div>
        <TextField
          label="Or any other, by its tag"
          value={text}
          error={error}
          hint={tag === undefined ? 'Such as sv or sr-Latn.' : languageName(tag)}
          onChange={({ target }) => setText(target.value)}
        />
        <Button
          look="primary"
          type="submit"
          className="self-end"
          disabled={tag === undefined || error !== undefined}
        >
          Add it
        </Button>
      </form>
    </Dialog>
  )
}
