import { Send } from 'lucide-react'
import { type SubmitEvent, useState } from 'react'
import { type Body, call } from '../api/client.ts'
import { Button, Notice, SelectField, TextField } from '../ui/controls.tsx'
import { Dialog } from '../ui/dialog.tsx'
import { wordsOf } from '../ui/toasts.tsx'
import { channelName } from './document.ts'

type ChannelName = NonNullable<Body<'sendTestOfTemplate'>['channel']>
/** Where somebody has an address that can be typed. */
const ADDRESSED = new Set(['email', 'sms', 'whatsapp', 'slack'])

/**
 * Sends somebody what is on the screen. A user gets what is published by the same way as always; what is not published,
 * and an address, get it rendered with the sample data.
 */
export function TestDialog({
  id,
  draft,
  asPublished,
  channel,
  language,
  sample,
  channels,
  onClose,
}: {
  id: string
  draft: Body<'validateTemplate'>
  asPublished: boolean
  channel: string
  language: string
  sample: Record<string, unknown>
  channels: readonly string[]
  onClose(): void
}) {
  const choices = [...new Set([...channels.filter(name => name !== 'default'), 'in_app', 'email'])]
  const [on, setOn] = useState(channel === 'default' ? 'in_app' : channel)
  const [to, setTo] = useState<'user' | 'address'>(ADDRESSED.has(on) ? 'address' : 'user')
  const [who, setWho] = useState('')
  const [error, setError] = useState<string>()
  const [sent, setSent] = useState<boolean>()
  const [busy, setBusy] = useState(false)
  const toAddress = to === 'address' && ADDRESSED.has(on)

  async function submit(event: SubmitEvent) {
    event.preventDefault()
    const name = who.trim()
    if (name === '') return setError(toAddress ? 'Say which address.' : 'Say which user.')
    // The server takes it and only says later, in the delivery, that it is none.
    if (toAddress && on === 'email' && !/^\S+@\S+$/.test(name)) {
      return setError('An e-mail address looks like you@example.com.')
    }
    setBusy(true)
    setError(undefined)
    setSent(undefined)
    try {
      const answer =
        asPublished && !toAddress
          ? await call('sendTestOfTemplate', {
              params: { id },
              body: { userId: name, channel: on as ChannelName, templateVars: sample },
            })
          : await sendRendered(name)
      setSent(answer.status !== 'SUPPRESSED')
    } catch (thrown) {
      setError(wordsOf(thrown))
    } finally {
      setBusy(false)
    }
  }

  async function sendRendered(name: string) {
    const { content } = await call('previewNotification', {
      body: {
        draft: draft ?? undefined,
        channel: on as ChannelName,
        locale: language,
        data: sample,
        ...(!toAddress && { userId: name }),
      },
    })
    return call('sendNotification', {
      body: {
        ...(toAddress
          ? { recipientType: 'system', address: name }
          : { recipientType: 'user', recipientId: name }),
        channels: [on as ChannelName],
        category: 'test',
        ...(content.subject && { subject: content.subject }),
        ...(content.body && { body: content.body }),
        ...(content.html && { bodyHtml: content.html }),
        ...(content.data && { data: content.data }),
      },
    })
  }

  return (
    <Dialog
      open
      onClose={onClose}
      title="Send a test"
      about="What is on the screen now, with the sample data. Limits hold; nobody else gets it."
    >
      <form onSubmit={event => void submit(event)} className="flex flex-col gap-4" noValidate>
        <div className="grid gap-4 sm:grid-cols-2">
          <SelectField
            label="Channel"
            value={on}
            options={choices.map(name => [name, channelName(name)] as const)}
            onChange={({ target }) => setOn(target.value)}
          />
          <SelectField
            label="To"
            value={toAddress ? 'address' : 'user'}
            options={[['user', 'A user'], ...(ADDRESSED.has(on) ? [['address', 'An address'] as const] : [])]}
            onChange={({ target }) => setTo(target.value as 'user' | 'address')}
          />
        </div>
        <TextField
          label={toAddress ? 'Address' : 'User id'}
          value={who}
          error={error}
          autoFocus
          placeholder={toAddress ? 'you@example.com' : 'alice'}
          onChange={({ target }) => {
            setWho(target.value)
            setSent(undefined)
          }}
        />
        {sent !== undefined && (
          <Notice tone={sent ? 'good' : 'warn'} role="status">
            {sent
              ? 'It is on its way.'
              : `Nothing was sent: ${toAddress ? 'this address' : 'this person'} cannot be reached there, or a limit is used up.`}
          </Notice>
        )}
        <div className="flex justify-end gap-2">
          <Button look="quiet" onClick={onClose}>
            Close
          </Button>
          <Button look="primary" type="submit" icon={Send} busy={busy}>
            Send
          </Button>
        </div>
      </form>
    </Dialog>
  )
}
