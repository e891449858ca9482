import { keepPreviousData, useQuery } from '@tanstack/react-query'
import { Monitor, Moon, Smartphone, Sun } from 'lucide-react'
import { type ReactNode, useId, useMemo, useState } from 'react'
import { type Answer, ApiError, type Body, call } from '../api/client.ts'
import { usePicturesOrigin } from '../blocks/block-image.tsx'
import { Badge, Button, IconButton, Notice, Spinner } from '../ui/controls.tsx'
import { wordsOf } from '../ui/toasts.tsx'
import { type Document, channelName, languageName, languagesOf } from './document.ts'
import type { Sample } from './editor.tsx'
import { placeOf } from './problems.tsx'
import { shownMail } from './shown-mail.ts'
import { SlackBlocks } from './slack-blocks.tsx'
import { useLater } from './use-later.ts'

type Rendered = Answer<'previewNotification'>
type Draft = NonNullable<Body<'previewNotification'>['draft']>

const PAUSE_MS = 300
/** Where a text is for all channels, the one it is shown as. */
const SHOWN_AS: Record<string, string> = { default: 'in_app' }

/** What a reader will get, made by the server of what is on the screen, saved or not. */
export function PreviewPane({
  document,
  draft,
  channel,
  language,
  onLanguage,
  sampleText,
  sample,
  onSample,
}: {
  document: Document
  /** The texts as they were when nobody typed for a moment. */
  draft: Draft
  channel: string
  language: string
  onLanguage(language: string): void
  sampleText: string
  sample: Sample
  onSample(text: string | undefined): void
}) {
  const data = useLater(sample.data, PAUSE_MS)
  const as = SHOWN_AS[channel] ?? channel
  const there = channel in draft.channels
  const found = useQuery({
    queryKey: ['preview', draft, as, language, data],
    queryFn: ({ signal }) =>
      call('previewNotification', {
        body: { draft, channel: as as Body<'previewNotification'>['channel'], locale: language, data },
        signal,
      }),
    enabled: there,
    placeholderData: keepPreviousData,
    gcTime: 30_000,
  })
  const id = useId()
  const shown = found.data?.channel === as ? found.data : undefined

  return (
    <aside
      aria-label="Preview"
      className="flex min-w-0 flex-col gap-3 border-line p-4 max-lg:border-t lg:sticky lg:top-14 lg:min-h-[calc(100dvh-3.5rem)] lg:max-h-[calc(100dvh-3.5rem)] lg:overflow-y-auto lg:border-l"
    >
      <div className="flex flex-wrap items-center gap-2">
        <h2 className="grow text-sm font-semibold">Preview · {channelName(channel)}</h2>
        {found.isFetching && (
          <span role="status" className="text-xs text-muted">
            Updating …
          </span>
        )}
        <select
          aria-label="Reader’s language"
          className="field !w-auto !min-h-8 !py-0.5 text-sm"
          value={language}
          onChange={({ target }) => onLanguage(target.value)}
        >
          {languagesOf(document).map(tag => (
            <option key={tag} value={tag}>
              {languageName(tag)}
            </option>
          ))}
        </select>
      </div>
      {found.isError && <Refusal error={found.error} />}
      {!found.isError && found.isPending && there && <Spinner label="Making the preview" />}
      {!found.isError && shown && <Shown rendered={shown} channel={as} />}
      {!found.isError && shown && shown.warnings.length > 0 && as !== 'sms' && (
        <Notice tone="warn">{shown.warnings.join('. ')}</Notice>
      )}
      <details className="card px-4 py-3">
        <summary className="text-sm font-medium">Sample data</summary>
        <div className="mt-3 flex flex-col gap-2">
          <label htmlFor={id} className="text-xs text-muted">
            What the event says, as JSON. Begins with the defaults of the variables.
          </label>
          <textarea
            id={id}
            rows={8}
            spellCheck={false}
            className="field font-mono text-xs"
            value={sampleText}
            aria-invalid={sample.error === undefined ? undefined : true}
            aria-describedby={sample.error === undefined ? undefined : `${id}-error`}
            onChange={({ target }) => onSample(target.value)}
          />
          {sample.error !== undefined && (
            <p id={`${id}-error`} className="text-xs text-bad">
              {sample.error}
            </p>
          )}
          <Button look="quiet" className="self-start" onClick={() => onSample(undefined)}>
            Back to the defaults
          </Button>
        </div>
      </details>
    </aside>
  )
}

function Refusal({ error }: { error: unknown }) {
  const errors = error instanceof ApiError ? error.errors : []
  return (
    <Notice tone="bad">
      <p className="font-medium">There is no preview of this</p>
      {errors.length === 0 ? (
        <p>{wordsOf(error)}</p>
      ) : (
        <ul className="list-disc pl-5">
          {errors.map(({ field, message }) => (
            <li key={field + message}>
              {placeOf(field)}: {message}
            </li>
          ))}
        </ul>
      )}
    </Notice>
  )
}

function Shown({ rendered, channel }: { rendered: Rendered; channel: string }) {
  const { content } = rendered
  switch (channel) {
    case 'email':
      return <MailPreview rendered={rendered} />
    case 'sms':
    case 'whatsapp':
      return (
        <Phone>
          <div className="max-w-[85%] self-start rounded-2xl rounded-bl-sm bg-sunken px-3.5 py-2 text-sm whitespace-pre-wrap">
            {content.body}
          </div>
          {rendered.size.sms && <SmsSize {...rendered.size.sms} />}
        </Phone>
      )
    case 'push':
    case 'web_push':
      return (
        <Phone>
          <div className="rounded-2xl border border-line bg-raised p-3.5 shadow-high">
            <p className="text-xs text-muted">Now</p>
            {content.subject !== undefined && <p className="text-sm font-semibold">{content.subject}</p>}
            <p className="text-sm whitespace-pre-wrap">{content.body}</p>
            <Buttons actions={content.actions} />
          </div>
        </Phone>
      )
    case 'slack':
      return <SlackPreview rendered={rendered} />
    default:
      return (
        <div className="card flex flex-col gap-2 p-4">
          {content.subject !== undefined && <p className="font-semibold">{content.subject}</p>}
          <p className="text-sm whitespace-pre-wrap">{content.body}</p>
          <Buttons actions={content.actions} />
          {content.data !== undefined && <Json value={content.data} />}
        </div>
      )
  }
}

function Buttons({ actions }: { actions: readonly unknown[] | undefined }) {
  if (!actions?.length) return null
  return (
    <div className="mt-2 flex flex-wrap gap-2">
      {(actions as { id: string; label: string }[]).map(({ id, label }) => (
        <span key={id} className="rounded-md border border-outline px-3 py-1 text-sm font-medium">
          {label}
        </span>
      ))}
    </div>
  )
}

const Phone = ({ children }: { children: ReactNode }) => (
  <div className="mx-auto flex min-h-72 w-full max-w-80 flex-col gap-3 rounded-[2rem] border-4 border-line bg-surface p-4 pt-8">
    {children}
  </div>
)

const ENCODINGS = {
  gsm7: 'GSM-7: 160 characters each, 153 where there are several',
  ucs2: 'UCS-2: 70 characters each, 67 where there are several',
}

const SmsSize = ({ encoding, units, segments }: NonNullable<Rendered['size']['sms']>) => (
  <div className="mt-auto flex flex-wrap items-center gap-2 text-xs text-muted">
    <Badge tone={segments > 1 ? 'warn' : 'good'}>
      {segments} {segments === 1 ? 'segment' : 'segments'}
    </Badge>
    <span>{units} characters</span>
    <span>{ENCODINGS[encoding]}</span>
  </div>
)

const Json = ({ value }: { value: unknown }) => (
  <pre tabIndex={0} className="max-h-96 overflow-auto rounded-lg bg-sunken p-3 text-xs whitespace-pre-wrap">
    {JSON.stringify(value, null, 2)}
  </pre>
)

function SlackPreview({ rendered: { content } }: { rendered: Rendered }) {
  const [json, setJson] = useState(false)
  const blocks = (content.data as { blocks?: unknown[] } | undefined)?.blocks
  return (
    <div className="card flex flex-col gap-2 p-4">
      {blocks && (
        <Button look="quiet" className="self-end" onClick={() => setJson(!json)}>
          {json ? 'As a message' : 'As JSON'}
        </Button>
      )}
      {blocks && !json ? (
        <SlackBlocks blocks={blocks} />
      ) : json ? (
        <Json value={content.data} />
      ) : (
        <>
          {content.subject !== undefined && <p className="font-semibold">{content.subject}</p>}
          <p className="text-sm whitespace-pre-wrap">{content.body}</p>
          <Buttons actions={content.actions} />
        </>
      )}
    </div>
  )
}

const WIDTHS = { desktop: 680, phone: 375 } as const

/** A mail as two sizes of screen and both modes show it, in a frame that runs nothing. */
function MailPreview({ rendered: { content, size } }: { rendered: Rendered }) {
  const [device, setDevice] = useState<keyof typeof WIDTHS>('desktop')
  const [dark, setDark] = useState(() => matchMedia('(prefers-color-scheme: dark)').matches)
  const [plain, setPlain] = useState(false)
  const html = content.html ?? ''
  const pictures = usePicturesOrigin()
  const shown = useMemo(
    () => shownMail(html, { mode: dark ? 'dark' : 'light', pictures, here: location.origin }),
    [html, dark, pictures],
  )
  const elsewhere = useMemo(
    () =>
      [...shown.matchAll(/<img\b[^>]*\ssrc="(https?:\/\/[^"]+)"/gi)].some(
        ([, src]) => !src!.startsWith(`${location.origin}/`),
      ),
    [shown],
  )
  const width = WIDTHS[device]
  return (
    <>
      <div className="flex flex-wrap items-center gap-1">
        <IconButton
          icon={Monitor}
          label="Desktop"
          pressed={device === 'desktop'}
          onClick={() => setDevice('desktop')}
        />
        <IconButton
          icon={Smartphone}
          label="Phone"
          pressed={device === 'phone'}
          onClick={() => setDevice('phone')}
        />
        <span className="mx-1 h-5 w-px bg-line" />
        <IconButton icon={Sun} label="Light" pressed={!dark} onClick={() => setDark(false)} />
        <IconButton icon={Moon} label="Dark" pressed={dark} onClick={() => setDark(true)} />
        <span className="mx-1 h-5 w-px bg-line" />
        <Button
          look="quiet"
          aria-pressed={plain}
          className="aria-pressed:bg-accent-soft"
          onClick={() => setPlain(!plain)}
        >
          Plain text
        </Button>
        <span className="grow text-right text-xs text-muted">
          {size.html !== undefined && `${(size.html / 1024).toFixed(1)} KB`}
        </span>
      </div>
      <div className="card overflow-hidden">
        <div className="border-b border-line px-4 py-3">
          <p className="text-xs text-muted">Subject</p>
          <p className="font-semibold break-words">{content.subject || '(none)'}</p>
        </div>
        {plain ? (
          <pre tabIndex={0} className="min-h-96 p-4 text-sm whitespace-pre-wrap">
            {content.body}
          </pre>
        ) : (
          <div className="overflow-x-auto" style={{ background: dark ? '#121212' : '#ffffff' }}>
            <iframe
              key={String(dark)}
              title="The mail"
              sandbox=""
              referrerPolicy="no-referrer"
              srcDoc={shown}
              style={{ width: device === 'phone' ? width : '100%', colorScheme: dark ? 'dark' : 'light' }}
              className="mx-auto block h-[34rem] max-w-full border-0"
            />
          </div>
        )}
      </div>
      {elsewhere && <Notice>Pictures from other servers are not loaded here. Uploaded ones are.</Notice>}
    </>
  )
}
