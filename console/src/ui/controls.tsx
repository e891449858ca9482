import { type LucideIcon, LoaderCircle } from 'lucide-react'
import {
  type ButtonHTMLAttributes,
  type InputHTMLAttributes,
  type ReactNode,
  type SelectHTMLAttributes,
  type TextareaHTMLAttributes,
  useId,
} from 'react'

const LOOKS = {
  primary: 'bg-accent text-on-accent hover:bg-accent-hover border-transparent shadow-card',
  plain: 'bg-surface text-ink border-outline hover:bg-sunken',
  quiet: 'bg-transparent text-ink border-transparent hover:bg-sunken',
  danger: 'bg-surface text-bad border-bad hover:bg-bad-soft',
} as const

export type Look = keyof typeof LOOKS

export function Button({
  look = 'plain',
  icon: Icon,
  busy = false,
  children,
  className = '',
  ...rest
}: ButtonHTMLAttributes<HTMLButtonElement> & { look?: Look; icon?: LucideIcon; busy?: boolean }) {
  return (
    <button
      type="button"
      {...rest}
      aria-busy={busy || undefined}
      disabled={rest.disabled || busy}
      className={`inline-flex min-h-9 items-center justify-center gap-2 rounded-md border px-3 text-sm font-medium whitespace-nowrap transition-colors disabled:opacity-55 ${LOOKS[look]} ${className}`}
    >
      {busy ? (
        <LoaderCircle aria-hidden className="size-4 animate-spin" />
      ) : (
        Icon && <Icon aria-hidden className="size-4 shrink-0" />
      )}
      {children}
    </button>
  )
}

/** A button that shows a picture alone; its name is said and shown on hovering. */
export function IconButton({
  icon: Icon,
  label,
  className = '',
  pressed,
  ...rest
}: Omit<ButtonHTMLAttributes<HTMLButtonElement>, 'children'> & {
  icon: LucideIcon
  label: string
  pressed?: boolean
}) {
  return (
    <button
      type="button"
      {...rest}
      aria-label={label}
      aria-pressed={pressed}
      title={label}
      className={`inline-flex size-8 shrink-0 items-center justify-center rounded-md text-muted hover:bg-sunken hover:text-ink disabled:opacity-40 aria-pressed:bg-accent-soft aria-pressed:text-accent-ink ${className}`}
    >
      <Icon aria-hidden className="size-4" />
    </button>
  )
}

interface Labelled {
  label: string
  hint?: ReactNode
  error?: string | undefined
  /** Beside the label, such as what can be inserted. */
  aside?: ReactNode
}

/** A name above, a hint or a mistake below, tied to the field for those who do not see them. */
export function Field({
  label,
  hint,
  error,
  aside,
  children,
}: Labelled & {
  children: (ids: {
    id: string
    'aria-describedby': string | undefined
    'aria-invalid': true | undefined
  }) => ReactNode
}) {
  const id = useId()
  const below = error ?? hint
  return (
    <div className="flex min-w-0 flex-col gap-1">
      <div className="flex min-h-6 items-end justify-between gap-2">
        <label htmlFor={id} className="text-sm font-medium">
          {label}
        </label>
        {aside}
      </div>
      {children({
        id,
        'aria-describedby': below === undefined ? undefined : `${id}-below`,
        'aria-invalid': error === undefined ? undefined : true,
      })}
      {below !== undefined && (
        <p id={`${id}-below`} className={`text-xs ${error === undefined ? 'text-muted' : 'text-bad'}`}>
          {below}
        </p>
      )}
    </div>
  )
}

export function TextField({
  label,
  hint,
  error,
  aside,
  className = '',
  ...rest
}: Labelled & InputHTMLAttributes<HTMLInputElement>) {
  return (
    <Field label={label} hint={hint} error={error} aside={aside}>
      {ids => <input type="text" autoComplete="off" {...rest} {...ids} className={`field ${className}`} />}
    </Field>
  )
}

export function TextArea({
  label,
  hint,
  error,
  aside,
  className = '',
  ...rest
}: Labelled & TextareaHTMLAttributes<HTMLTextAreaElement>) {
  return (
    <Field label={label} hint={hint} error={error} aside={aside}>
      {ids => <textarea rows={4} {...rest} {...ids} className={`field ${className}`} />}
    </Field>
  )
}

export function SelectField({
  label,
  hint,
  error,
  options,
  className = '',
  ...rest
}: Labelled &
  SelectHTMLAttributes<HTMLSelectElement> & {
    options: readonly (readonly [value: string, name: string])[]
  }) {
  return (
    <Field label={label} hint={hint} error={error}>
      {ids => (
        <select {...rest} {...ids} className={`field ${className}`}>
          {options.map(([value, name]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
      )}
    </Field>
  )
}

export function CheckField({
  label,
  hint,
  ...rest
}: InputHTMLAttributes<HTMLInputElement> & { label: string; hint?: string }) {
  return (
    <label className="flex items-start gap-2 text-sm">
      <input type="checkbox" {...rest} className="mt-0.5 size-4 accent-accent" />
      <span>
        {label}
        {hint !== undefined && <span className="block text-xs text-muted">{hint}</span>}
      </span>
    </label>
  )
}

const TONES = {
  plain: 'bg-sunken text-muted',
  accent: 'bg-accent-soft text-accent-ink',
  good: 'bg-good-soft text-good',
  warn: 'bg-warn-soft text-warn',
  bad: 'bg-bad-soft text-bad',
} as const

export type Tone = keyof typeof TONES

export const Badge = ({ tone = 'plain', children }: { tone?: Tone; children: ReactNode }) => (
  <span
    className={`inline-flex items-center rounded-full px-2 py-0.5 text-xs font-medium whitespace-nowrap ${TONES[tone]}`}
  >
    {children}
  </span>
)

export function Notice({
  tone = 'plain',
  children,
  role,
}: {
  tone?: Tone
  children: ReactNode
  role?: 'alert' | 'status'
}) {
  return (
    <div role={role} className={`rounded-lg px-3 py-2 text-sm ${TONES[tone]}`}>
      {children}
    </div>
  )
}

export const Spinner = ({ label }: { label: string }) => (
  <div role="status" className="flex items-center gap-2 p-6 text-muted">
    <LoaderCircle aria-hidden className="size-4 animate-spin" />
    {label}
  </div>
)
