import { Blocks, CodeXml, Plus, Trash2 } from 'lucide-react'
import { Suspense, lazy, useMemo, useState } from 'react'
import { DEFAULT_STYLE, type Mail, newBlock } from '../blocks/block.ts'
import { MailEditor } from '../blocks/mail-editor.tsx'
import { parseMail, printMail } from '../blocks/mjml.ts'
import { PlainField } from '../blocks/rich-field.tsx'
import { Button, CheckField, IconButton, Notice, SelectField, Spinner } from '../ui/controls.tsx'
import { Dialog } from '../ui/dialog.tsx'
import { type Content, type Document, channelName, languageName, without } from './document.ts'
import { insertionsFor } from './insertions.ts'
import { MailTranslation } from './mail-translation.tsx'
import { type Problem, problemAt } from './problems.tsx'

const SourceEditor = lazy(() => import('./source-editor.tsx'))

export type ChangeContent = (change: (content: Content) => Content, about?: string) => void

interface Props {
  document: Document
  problems: readonly Problem[]
  /** Where this content is, for the server's mistakes. */
  pointer: string
  channel: string
  language: string
  /** In the language of the template. */
  source: Content
  content: Content
  translating: boolean
  onChange: ChangeContent
  sample: Record<string, unknown>
}

/** Channels on which every letter of a link counts. */
const LINKED = new Set(['sms', 'whatsapp', 'push', 'web_push'])
/** Channels on which a title is shown. */
const TITLED = new Set([
  'default',
  'email',
  'push',
  'web_push',
  'in_app',
  'slack',
  'webhook',
  'pagerduty',
  'discord',
  'telegram',
  'teams',
  'ntfy',
])
const PICTURED = new Set(['default', 'push', 'web_push', 'in_app', 'email', 'whatsapp'])
const BUTTONED = new Set(['default', 'push', 'web_push', 'in_app', 'slack', 'email'])
const RAW_DATA = new Set(['slack', 'webhook', 'pagerduty', 'push', 'whatsapp'])

const SUBJECTS: Record<string, string> = { email: 'Subject' }

/** The fields that a channel has. In another language the original stands beside each. */
export function ChannelForm(props: Props) {
  const { document, problems, pointer, channel, language, source, content, translating, onChange } = props
  const insertions = useMemo(() => insertionsFor(document, { logic: true }), [document])
  const titleField = source.subject === undefined && source.title !== undefined ? 'title' : 'subject'
  const error = (field: string) => problemAt(problems, `${pointer}/${field}`)

  const text = (
    field: 'subject' | 'title' | 'body' | 'image',
    label: string,
    mode: 'line' | 'lines',
    hint?: string,
  ) => (
    <Beside
      translating={translating}
      language={document.locale}
      original={
        <PlainField
          label={`${label}, original`}
          bare
          mode={mode}
          value={source[field] ?? ''}
          lang={document.locale}
          className="field bg-sunken"
        />
      }
    >
      <PlainField
        label={label}
        mode={mode}
        value={content[field] ?? ''}
        lang={language}
        hint={hint}
        error={error(field)}
        insertions={insertions}
        placeholder={translating ? (source[field] ?? '') : undefined}
        onChange={value => onChange(before => ({ ...before, [field]: value }), field)}
      />
    </Beside>
  )

  return (
    <div className="flex flex-col gap-5">
      {TITLED.has(channel) && text(titleField, SUBJECTS[channel] ?? 'Title', 'line')}
      {channel === 'email' ? (
        <MailBody {...props} insertions={insertions} />
      ) : (
        <>
          {isJson(source.body) ? (
            <JsonBody {...props} field="body" label="Blocks, as JSON" />
          ) : (
            text('body', channel === 'voice' ? 'What is said' : 'Text', 'lines')
          )}
        </>
      )}
      {LINKED.has(channel) && !translating && (
        <SelectField
          label="Links in the text"
          className="max-w-xs"
          value={content.links ?? ''}
          options={[
            ['', 'As everywhere'],
            ['short', 'Made short'],
            ['whole', 'Left whole'],
          ]}
          onChange={({ target }) => {
            const links = (target.value || undefined) as Content['links']
            onChange(before => (links === undefined ? without(before, 'links') : { ...before, links }))
          }}
        />
      )}
      {PICTURED.has(channel) &&
        channel !== 'email' &&
        !translating &&
        text('image', 'Picture', 'line', 'Its address; shown where the channel shows pictures.')}
      {BUTTONED.has(channel) &&
        !translating &&
        !(channel === 'email' && (content.mjml !== undefined || content.html !== undefined)) &&
        !isJson(content.body) && <Actions {...props} insertions={insertions} />}
      {RAW_DATA.has(channel) && !translating && content.data !== undefined && (
        <JsonBody {...props} field="data" label="Data" />
      )}
      {RAW_DATA.has(channel) && !translating && content.data === undefined && (
        <Button
          look="quiet"
          icon={CodeXml}
          className="self-start"
          onClick={() => onChange(before => ({ ...before, data: {} }))}
        >
          Add data for {channelName(channel)}
        </Button>
      )}
      {channel === 'slack' && !translating && !isJson(content.body) && (
        <Button
          look="quiet"
          icon={Blocks}
          className="self-start"
          onClick={() => onChange(before => ({ ...before, body: slackBlocks(before) }))}
        >
          Turn it into blocks
        </Button>
      )}
    </div>
  )
}

const isJson = (body: string | undefined): boolean => body !== undefined && /^\s*(\[\s*)?\{(?!\{)/.test(body)

/** Text with its title as Block Kit, to begin with. */
const slackBlocks = ({ subject = '', body = '' }: Content): string =>
  JSON.stringify(
    {
      blocks: [
        ...(subject === '' ? [] : [{ type: 'header', text: { type: 'plain_text', text: subject } }]),
        { type: 'section', text: { type: 'mrkdwn', text: body } },
      ],
    },
    null,
    2,
  )

/** The original on the left, its translation on the right. */
function Beside({
  translating,
  language,
  original,
  children,
}: {
  translating: boolean
  language: string
  original: React.ReactNode
  children: React.ReactNode
}) {
  if (!translating) return children
  return (
    <div className="grid gap-4 md:grid-cols-2">
      <div className="flex flex-col gap-1">
        <span className="flex min-h-7 items-end text-sm font-medium text-muted">
          {languageName(language)}
        </span>
        {original}
      </div>
      {children}
    </div>
  )
}

type WithInsertions = Props & { insertions: ReturnType<typeof insertionsFor> }

/** A mail as blocks where it was made of blocks, else as its source, else as text in the plain layout. */
function MailBody(props: WithInsertions) {
  const {
    document,
    problems,
    pointer,
    language,
    source,
    content,
    translating,
    onChange,
    insertions,
    sample,
  } = props
  const [toSource, setToSource] = useState(false)
  const [asSource, setAsSource] = useState(false)
  const mail = useMemo(
    () => (content.mjml === undefined ? undefined : parseMail(content.mjml)),
    [content.mjml],
  )
  const sourceMail = useMemo(
    () => (source.mjml === undefined ? undefined : parseMail(source.mjml)),
    [source.mjml],
  )
  const setMail = (next: Mail, about = '') =>
    onChange(before => ({ ...before, mjml: printMail(next) }), about)

  if (translating && sourceMail) {
    return (
      <MailTranslation
        document={document}
        language={language}
        source={sourceMail}
        translation={mail}
        onChange={setMail}
        insertions={insertions}
      />
    )
  }

  const markup = content.mjml !== undefined ? 'mjml' : content.html !== undefined ? 'html' : undefined
  if (markup === undefined) {
    return (
      <>
        <PlainField
          label="Text"
          mode="lines"
          value={content.body ?? ''}
          lang={language}
          error={problemAt(problems, `${pointer}/body`)}
          insertions={insertions}
          onChange={value => onChange(before => ({ ...before, body: value }), 'body')}
          hint="Sent in a plain layout that follows the reader's light or dark mode."
        />
        {!translating && (
          <CheckField
            label="Send the text alone"
            hint="Without the layout: as a person would write it."
            checked={content.layout === 'none'}
            onChange={({ target }) =>
              onChange(before =>
                target.checked ? { ...before, layout: 'none' as const } : without(before, 'layout'),
              )
            }
          />
        )}
        <Button
          icon={Blocks}
          className="self-start"
          onClick={() =>
            onChange(({ body, ...before }) => ({ ...before, mjml: printMail(mailOf(body ?? '')) }))
          }
        >
          Design it with blocks
        </Button>
      </>
    )
  }

  if (mail && !asSource) {
    return (
      <>
        <MailEditor
          mail={mail}
          onChange={setMail}
          document={document}
          sample={sample}
          error={problemAt(problems, `${pointer}/mjml`)}
          extra={
            <Button look="quiet" icon={CodeXml} onClick={() => setAsSource(true)}>
              Source
            </Button>
          }
        />
        <AlsoAsText {...props} />
      </>
    )
  }

  return (
    <div className="flex flex-col gap-2">
      <div className="flex flex-wrap items-center justify-between gap-2">
        <h3 className="text-sm font-medium">{markup === 'mjml' ? 'MJML' : 'HTML'}</h3>
        {mail ? (
          <Button look="quiet" icon={Blocks} onClick={() => setAsSource(false)}>
            Back to blocks
          </Button>
        ) : (
          !translating && (
            <Button look="quiet" icon={Blocks} onClick={() => setToSource(true)}>
              Start over with blocks
            </Button>
          )
        )}
      </div>
      {!mail && markup === 'mjml' && (
        <p className="text-sm text-muted">This was written by hand, and is kept exactly as it is.</p>
      )}
      <Suspense fallback={<Spinner label="Loading the editor" />}>
        <SourceEditor
          label={markup === 'mjml' ? 'MJML source' : 'HTML source'}
          language="html"
          value={content[markup] ?? ''}
          problems={problems.filter(({ field }) => field === `${pointer}/${markup}`)}
          onChange={value => onChange(before => ({ ...before, [markup]: value }), markup)}
        />
      </Suspense>
      <AlsoAsText {...props} />
      {toSource && (
        <Dialog
          open
          onClose={() => setToSource(false)}
          title="Start over with blocks?"
          about="What is written here is replaced. It stays in the history, and Undo brings it back."
        >
          <div className="flex justify-end gap-2">
            <Button onClick={() => setToSource(false)}>Cancel</Button>
            <Button
              look="primary"
              onClick={() => {
                setToSource(false)
                onChange(({ html: _, ...before }) => ({
                  ...before,
                  mjml: printMail(mailOf(before.body ?? '')),
                }))
              }}
            >
              Start over
            </Button>
          </div>
        </Dialog>
      )}
    </div>
  )
}

/** The text alternative, which the server makes of the mail unless somebody writes one. */
function AlsoAsText({ content, onChange, document, language, problems, pointer }: Props) {
  const own = content.body !== undefined
  return (
    <details className="card px-4 py-3" open={own && content.body !== ''}>
      <summary className="text-sm font-medium">For readers of plain text</summary>
      <div className="mt-3 flex flex-col gap-3">
        <CheckField
          label="Write it myself"
          hint="Else it is made of the mail."
          checked={own}
          onChange={({ target }) =>
            onChange(({ body: _, ...before }) => (target.checked ? { ...before, body: '' } : before))
          }
        />
        {own && (
          <PlainField
            label="Plain text"
            mode="lines"
            lang={language}
            value={content.body ?? ''}
            error={problemAt(problems, `${pointer}/body`)}
            insertions={insertionsFor(document, { logic: true })}
            onChange={value => onChange(before => ({ ...before, body: value }), 'body')}
          />
        )}
      </div>
    </details>
  )
}

const mailOf = (body: string): Mail => ({
  preheader: '',
  style: DEFAULT_STYLE,
  blocks: [
    newBlock('heading'),
    body.trim() === ''
      ? newBlock('text')
      : {
          ...(newBlock('text') as Extract<Mail['blocks'][number], { kind: 'text' }>),
          rich: body
            .split(/\n\s*\n|\n/)
            .filter(line => line.trim() !== '')
            .map(line => ({ kind: 'p' as const, spans: [{ text: line }] })),
        },
    newBlock('button'),
  ],
})

function JsonBody({
  field,
  label,
  content,
  problems,
  pointer,
  onChange,
}: Props & { field: 'body' | 'data'; label: string }) {
  const value = content[field]
  const [text, setText] = useState(() =>
    typeof value === 'string' ? value : value === undefined ? '' : JSON.stringify(value, null, 2),
  )
  const [wrong, setWrong] = useState<string>()
  return (
    <div className="flex flex-col gap-2">
      <div className="flex items-center justify-between">
        <h3 className="text-sm font-medium">{label}</h3>
        <IconButton
          icon={Trash2}
          label={`Remove ${label}`}
          onClick={() =>
            onChange(({ [field]: _, ...before }) => (field === 'body' ? { ...before, body: '' } : before))
          }
        />
      </div>
      <Suspense fallback={<Spinner label="Loading the editor" />}>
        <SourceEditor
          label={label}
          language="json"
          value={text}
          problems={problems.filter(one => one.field.startsWith(`${pointer}/${field}`))}
          onChange={next => {
            setText(next)
            setWrong(undefined)
            if (field === 'body' || typeof value === 'string')
              return onChange(before => ({ ...before, [field]: next }), field)
            try {
              const data: unknown = JSON.parse(next)
              onChange(before => ({ ...before, data: data as Record<string, unknown> }), 'data')
            } catch (error) {
              setWrong((error as Error).message)
            }
          }}
        />
      </Suspense>
      {wrong !== undefined && <Notice tone="bad">{wrong}</Notice>}
    </div>
  )
}

/** Buttons of a message that is no mail of blocks. */
function Actions({ content, onChange, problems, pointer, insertions }: WithInsertions) {
  const actions = content.actions ?? []
  const set = (at: number, change: { label?: string; url?: string }) =>
    onChange(
      before => ({
        ...before,
        actions: (before.actions ?? []).map((one, i) => (i === at ? { ...one, ...change } : one)),
      }),
      `action ${at} ${Object.keys(change).join()}`,
    )
  return (
    <fieldset className="flex flex-col gap-3">
      <legend className="mb-1 text-sm font-medium">Buttons</legend>
      {actions.map(({ label, url = '' }, at) => (
        <div key={at} className="card grid gap-3 p-3 sm:grid-cols-[1fr_1fr_auto] sm:items-start">
          <PlainField
            label="Words"
            mode="line"
            value={label}
            insertions={insertions}
            error={problemAt(problems, `${pointer}/actions/${at}/label`)}
            onChange={value => set(at, { label: value })}
          />
          <PlainField
            label="Leads to"
            mode="line"
            value={url}
            insertions={insertions}
            error={problemAt(problems, `${pointer}/actions/${at}/url`)}
            onChange={value => set(at, { url: value })}
          />
          <IconButton
            icon={Trash2}
            label={`Remove the button ${label}`}
            className="sm:mt-8"
            onClick={() =>
              onChange(before => ({ ...before, actions: (before.actions ?? []).filter((_, i) => i !== at) }))
            }
          />
        </div>
      ))}
      {actions.length < 10 && (
        <Button
          icon={Plus}
          className="self-start"
          onClick={() =>
            onChange(before => ({
              ...before,
              actions: [...(before.actions ?? []), { label: 'Open', url: 'https://' }],
            }))
          }
        >
          Add a button
        </Button>
      )}
    </fieldset>
  )
}
