import { KeyRound } from 'lucide-react'
import { type SubmitEvent, useState } from 'react'
import { ApiError, call } from '../api/client.ts'
import bell from '../bell.svg'
import { Button, TextField } from '../ui/controls.tsx'
import { signIn } from './session.ts'

/** Asks for a key, and tries it out before anything is shown. */
export function SignIn({ again = false }: { again?: boolean }) {
  const [key, setKey] = useState('')
  const [error, setError] = useState<string>()
  const [busy, setBusy] = useState(false)

  async function submit(event: SubmitEvent) {
    event.preventDefault()
    const given = key.trim()
    if (given === '') return setError('Paste a key.')
    setBusy(true)
    setError(undefined)
    try {
      await call('listTemplates', { query: { limit: 1 }, key: given })
      signIn(given)
    } catch (thrown) {
      setError(refusal(thrown))
    } finally {
      setBusy(false)
    }
  }

  return (
    <main className="grid min-h-dvh place-items-center p-4">
      <div className="card w-full max-w-md p-7">
        <img src={bell} alt="" className="mb-5 size-10" />
        <h1 className="text-xl font-semibold">Sign in to Carillon</h1>
        <p className="mt-1 mb-5 text-sm text-muted">
          {again
            ? 'The server does not take your key any more. Sign in again: what you were working on is still there.'
            : 'With an API key. It stays in this tab and is forgotten when you close it.'}
        </p>
        <form onSubmit={event => void submit(event)} className="flex flex-col gap-4" noValidate>
          <TextField
            label="API key"
            type="password"
            name="key"
            placeholder="crl_…"
            autoFocus
            value={key}
            error={error}
            onChange={event => setKey(event.target.value)}
          />
          <Button look="primary" type="submit" icon={KeyRound} busy={busy}>
            Sign in
          </Button>
        </form>
        <p className="mt-5 text-xs text-muted">
          No key yet? A server you started yourself has one in the file <code>admin.key</code> of its data
          folder. Else ask whoever runs it for a key with the scopes <code>templates:read</code> and{' '}
          <code>templates:write</code>.
        </p>
      </div>
    </main>
  )
}

function refusal(error: unknown): string {
  if (!(error instanceof ApiError)) return (error as Error).message
  if (error.status === 401)
    return 'The server does not know this key. It may have been revoked, or a part is missing.'
  if (error.status === 403) return 'This key may not read templates: it needs the scope templates:read.'
  return error.message
}
