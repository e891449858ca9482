import { Plus, Trash2 } from 'lucide-react'
import { useState } from 'react'
import { NOTHING } from '../blocks/mjml.ts'
import { Button, CheckField, IconButton, SelectField, TextField } from '../ui/controls.tsx'
import { type VARIABLE_TYPES, type Document, type Variable } from './document.ts'
import type { Edit } from './editor.tsx'
import { type Problem, problemAt } from './problems.tsx'

const TYPES: Record<(typeof VARIABLE_TYPES)[number], string> = {
  string: 'Text',
  number: 'Number',
  boolean: 'Yes or no',
  date: 'Date and time',
  object: 'Group of values',
  array: 'List',
}

/** No variables: what every template sees, and what a block depends on that nobody has chosen yet (`NOTHING`). */
const GIVEN = new Set(['event', 'data', 'vars', 'user', 'notification', 'tenant', 'now', 'this', NOTHING])

/** What the texts are given: names, types, and what stands in. */
export function VariablesView({
  document,
  edit,
  problems,
  fields,
}: {
  document: Document
  edit: Edit
  problems: readonly Problem[]
  /** What the texts read, as paths. */
  fields: readonly string[]
}) {
  const { variables } = document
  const set = (at: number, change: Partial<Variable>) =>
    edit(
      before => ({
        ...before,
        variables: before.variables.map((one, i) => (i === at ? { ...one, ...change } : one)),
      }),
      `variable ${at} ${Object.keys(change).join()}`,
    )
  const add = (name: string) =>
    edit(before => ({ ...before, variables: [...before.variables, { name, type: 'string' as const }] }))
  const known = new Set(variables.map(({ name }) => name))
  const read = new Set(
    fields
      .map(path => {
        const [first = '', second] = path.replaceAll('[]', '').split('.')
        if (first === 'data' || first === 'vars') return second
        return GIVEN.has(first) ? undefined : first
      })
      .filter(name => name !== undefined && !known.has(name)),
  ) as Set<string>

  return (
    <section aria-label="Variables" className="flex flex-col gap-4">
      <p className="max-w-prose text-sm text-muted">
        What programs send along, to be filled in. Where a required one is missing, nothing is sent; where
        another is missing, its default stands in.
      </p>
      {read.size > 0 && (
        <div className="flex flex-wrap items-center gap-2 text-sm">
          <span className="text-muted">The texts also use</span>
          {[...read].map(name => (
            <Button key={name} icon={Plus} className="!min-h-7 font-mono text-xs" onClick={() => add(name)}>
              {name}
            </Button>
          ))}
        </div>
      )}
      <ul className="flex flex-col gap-3">
        {variables.map((variable, at) => (
          <li key={at} className="card flex flex-wrap items-end gap-3 p-4">
            <div className="min-w-40 grow">
              <TextField
                label="Name"
                className="font-mono"
                value={variable.name}
                maxLength={255}
                error={problemAt(problems, `/variables/${at}/name`)}
                onChange={({ target }) => set(at, { name: target.value })}
              />
            </div>
            <div className="w-40">
              <SelectField
                label="Type"
                value={variable.type ?? ''}
                options={[['', 'Anything'], ...Object.entries(TYPES)]}
                onChange={({ target }) =>
                  set(at, { type: (target.value || undefined) as Variable['type'], default: undefined })
                }
              />
            </div>
            <div className="min-w-44 grow">
              <DefaultField
                key={variable.type}
                variable={variable}
                error={problemAt(problems, `/variables/${at}/default`)}
                onChange={value => set(at, { default: value })}
              />
            </div>
            <div className="flex h-9 items-center gap-3">
              <CheckField
                label="Required"
                checked={variable.required ?? false}
                onChange={({ target }) => set(at, { required: target.checked || undefined })}
              />
              <IconButton
                icon={Trash2}
                label={`Remove ${variable.name || 'the variable'}`}
                onClick={() =>
                  edit(before => ({ ...before, variables: before.variables.filter((_, i) => i !== at) }))
                }
              />
            </div>
          </li>
        ))}
      </ul>
      <Button icon={Plus} className="self-start" onClick={() => add('')}>
        Add a variable
      </Button>
    </section>
  )
}

/** A text as it is, all else as JSON writes it. */
const plain = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))

/** A default is typed as what it is; lists and groups as JSON. */
function DefaultField({
  variable: { type, default: value },
  error,
  onChange,
}: {
  variable: Variable
  error: string | undefined
  onChange(value: unknown): void
}) {
  const asJson = type === 'object' || type === 'array' || type === undefined
  const [text, setText] = useState(value === undefined ? '' : asJson ? JSON.stringify(value) : plain(value))
  const [wrong, setWrong] = useState<string>()

  function change(next: string) {
    setText(next)
    setWrong(undefined)
    if (next.trim() === '') return onChange(undefined)
    if (type === 'number') {
      if (Number.isFinite(Number(next))) onChange(Number(next))
      else setWrong('A number, such as 14 or 2.5.')
    } else if (asJson) {
      try {
        onChange(JSON.parse(next))
      } catch {
        if (type === undefined) onChange(next)
        else setWrong(type === 'array' ? 'JSON, such as ["a", "b"].' : 'JSON, such as {"name": "x"}.')
      }
    } else onChange(next)
  }

  if (type === 'boolean') {
    return (
      <SelectField
        label="Default"
        value={value === undefined ? '' : plain(value)}
        options={[
          ['', 'None'],
          ['true', 'Yes'],
          ['false', 'No'],
        ]}
        onChange={({ target }) => onChange(target.value === '' ? undefined : target.value === 'true')}
      />
    )
  }
  return (
    <TextField
      label="Default"
      placeholder="None"
      className={asJson && type !== undefined ? 'font-mono' : ''}
      value={text}
      error={wrong ?? error}
      onChange={({ target }) => change(target.value)}
    />
  )
}
