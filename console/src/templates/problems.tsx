import { Notice } from '../ui/controls.tsx'
import { channelName, languageName } from './document.ts'

export interface Problem {
  /** JSON pointer to the text. */
  field: string
  message: string
  line?: number
  column?: number
}

export const problemAt = (problems: readonly Problem[], pointer: string): string | undefined =>
  problems.find(({ field }) => field === pointer)?.message

const WORDS: Record<string, string> = { mjml: 'e-mail', html: 'HTML', body: 'text', data: 'data' }

/** A JSON pointer in words: "E-mail, German, subject". */
export function placeOf(field: string): string {
  const [, part = '', first = '', ...rest] = field.split('/')
  const more = rest.map(one => WORDS[one] ?? one)
  if (part === 'channels') return [channelName(first), ...more].join(', ')
  if (part === 'translations') {
    const [second, ...others] = more
    return [languageName(first), ...(second === undefined ? [] : [channelName(second)]), ...others].join(', ')
  }
  if (part === 'messages') return ['Messages', languageName(first), ...more].join(', ')
  if (part === 'variables') return 'Variables'
  return part
}

const MAX_SHOWN = 8

/** What keeps a template from being saved, each with a way to it. */
export function ProblemsNotice({
  problems,
  onShow,
}: {
  problems: readonly Problem[]
  onShow(field: string): void
}) {
  return (
    <div className="mb-5">
      <Notice tone="bad" role="status">
        <p className="font-medium">
          {problems.length === 1
            ? 'One thing has to be mended'
            : `${problems.length} things have to be mended`}
        </p>
        <ul className="mt-1 flex flex-col gap-1">
          {problems.slice(0, MAX_SHOWN).map(({ field, message }) => (
            <li key={field + message}>
              <button
                type="button"
                onClick={() => onShow(field)}
                className="text-left underline decoration-dotted"
              >
                {placeOf(field) || 'The template'}
              </button>
              : {message}
            </li>
          ))}
        </ul>
      </Notice>
    </div>
  )
}
