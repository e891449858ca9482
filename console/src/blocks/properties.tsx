import { useQueryClient } from '@tanstack/react-query'
import { AlignCenter, AlignLeft, AlignRight, Upload } from 'lucide-react'
import { useRef, useState } from 'react'
import { call } from '../api/client.ts'
import type { Variable } from '../templates/document.ts'
import { Button, CheckField, IconButton, SelectField, TextField } from '../ui/controls.tsx'
import { sayError } from '../ui/toasts.tsx'
import { assetName, useAssets } from './block-image.tsx'
import { type Align, type Block, type Condition, type Mail, OPERATORS, newBlock } from './block.ts'
import { plainValue } from './mjml.ts'
import { type InsertionGroup, PlainField } from './rich-field.tsx'

type Of<K extends Block['kind']> = Extract<Block, { kind: K }>

/** What can be set about a block besides its words. */
export function BlockProperties({
  block,
  name,
  variables,
  insertions,
  onChange,
}: {
  block: Block
  name: string
  variables: readonly Variable[]
  insertions: readonly InsertionGroup[]
  onChange(block: Block, about?: string): void
}) {
  return (
    <div className="flex flex-col gap-4">
      <h3 className="panel-title">{name}</h3>
      {'align' in block && (
        <AlignField value={block.align} onChange={align => onChange({ ...block, align })} />
      )}
      {block.kind === 'heading' && (
        <SelectField
          label="Size"
          value={block.level}
          options={[
            ['1', 'Large'],
            ['2', 'Medium'],
            ['3', 'Small'],
          ]}
          onChange={({ target }) => onChange({ ...block, level: Number(target.value) as 1 | 2 | 3 })}
        />
      )}
      {block.kind === 'button' && (
        <PlainField
          label="Leads to"
          mode="line"
          value={block.url}
          insertions={insertions}
          hint="An address that begins with https://"
          onChange={url => onChange({ ...block, url }, 'url')}
        />
      )}
      {block.kind === 'image' && (
        <ImageProperties block={block} insertions={insertions} onChange={onChange} />
      )}
      {block.kind === 'spacer' && (
        <NumberField
          label="Height in pixels"
          value={block.height}
          min={1}
          max={200}
          onChange={height => onChange({ ...block, height: height ?? 24 }, 'height')}
        />
      )}
      {block.kind === 'columns' && <ColumnsProperties block={block} onChange={onChange} />}
      {block.kind === 'each' && (
        <VariableField
          label="List"
          value={block.list}
          variables={variables.filter(
            ({ type }) => type === undefined || type === 'array' || type === 'object',
          )}
          hint="A variable of the type “List”. Its first item’s fields can then be inserted."
          onChange={list => onChange({ ...block, list })}
        />
      )}
      {block.kind === 'if' && (
        <ConditionFields
          when={block.when}
          variables={variables}
          onChange={when => onChange({ ...block, when }, 'when')}
        />
      )}
      {(block.kind === 'divider' || block.kind === 'text') && (
        <p className="text-xs text-muted">
          {block.kind === 'text'
            ? 'Select words to make them bold or a link. Type {{ }} or use Insert for variables.'
            : 'A thin line between two parts.'}
        </p>
      )}
    </div>
  )
}

/** What holds for the whole mail. */
export function MailProperties({
  mail,
  insertions,
  onChange,
}: {
  mail: Mail
  insertions: readonly InsertionGroup[]
  onChange(mail: Mail, about?: string): void
}) {
  const { style } = mail
  const set = (change: Partial<Mail['style']>, about: string) =>
    onChange({ ...mail, style: { ...style, ...change } }, about)
  return (
    <div className="flex flex-col gap-4">
      <h3 className="panel-title">The whole mail</h3>
      <PlainField
        label="Preview text"
        mode="line"
        value={mail.preheader}
        insertions={insertions}
        hint="Shown beside the subject in the mailbox."
        onChange={preheader => onChange({ ...mail, preheader }, 'preheader')}
      />
      <ColourField
        label="Colour of buttons"
        value={style.accent}
        onChange={accent => set({ accent }, 'accent')}
      />
      <CheckField
        label="Rounded buttons"
        checked={style.rounded}
        onChange={({ target }) => set({ rounded: target.checked }, '')}
      />
      <CheckField
        label="Colours of its own"
        hint="Else the mail follows the reader’s light or dark mode."
        checked={style.page !== undefined}
        onChange={({ target }) =>
          onChange({
            ...mail,
            style: target.checked
              ? { ...style, page: { background: '#ffffff', ink: '#1a1a1a' } }
              : (({ page: _, ...rest }) => rest)(style),
          })
        }
      />
      {style.page && (
        <div className="grid grid-cols-2 gap-3">
          <ColourField
            label="Ground"
            value={style.page.background}
            onChange={background => set({ page: { ...style.page!, background } }, 'background')}
          />
          <ColourField
            label="Text"
            value={style.page.ink}
            onChange={ink => set({ page: { ...style.page!, ink } }, 'ink')}
          />
        </div>
      )}
      <NumberField
        label="Width in pixels"
        value={style.width}
        min={320}
        max={900}
        onChange={width => set({ width: width ?? 600 }, 'width')}
      />
    </div>
  )
}

const ALIGNS: [Align, string, typeof AlignLeft][] = [
  ['left', 'Left', AlignLeft],
  ['center', 'Centre', AlignCenter],
  ['right', 'Right', AlignRight],
]

const AlignField = ({ value, onChange }: { value: Align; onChange(value: Align): void }) => (
  <div role="group" aria-label="Alignment" className="flex gap-1">
    {ALIGNS.map(([align, name, icon]) => (
      <IconButton
        key={align}
        icon={icon}
        label={name}
        pressed={value === align}
        onClick={() => onChange(align)}
      />
    ))}
  </div>
)

function NumberField({
  label,
  value,
  min,
  max,
  onChange,
}: {
  label: string
  value: number | undefined
  min: number
  max: number
  onChange(value: number | undefined): void
}) {
  const [text, setText] = useState(value === undefined ? '' : String(value))
  const number = Number(text)
  const good = text === '' || (Number.isInteger(number) && number >= min && number <= max)
  return (
    <TextField
      label={label}
      inputMode="numeric"
      value={text}
      error={good ? undefined : `A whole number from ${min} to ${max}.`}
      onChange={({ target }) => {
        setText(target.value)
        const next = Number(target.value)
        if (target.value === '') onChange(undefined)
        else if (Number.isInteger(next) && next >= min && next <= max) onChange(next)
      }}
    />
  )
}

const ColourField = ({
  label,
  value,
  onChange,
}: {
  label: string
  value: string
  onChange(value: string): void
}) => (
  <label className="flex flex-col gap-1 text-sm font-medium">
    {label}
    <span className="flex items-center gap-2 font-normal">
      <input
        type="color"
        value={value}
        onChange={({ target }) => onChange(target.value)}
        className="h-9 w-12 rounded-md border border-outline bg-surface p-0.5"
      />
      <code className="text-xs text-muted">{value}</code>
    </span>
  </label>
)

function VariableField({
  label,
  value,
  variables,
  hint,
  onChange,
}: {
  label: string
  value: string
  variables: readonly Variable[]
  hint?: string
  onChange(value: string): void
}) {
  const names = variables.map(({ name }) => name).filter(name => /^[\w.]+$/.test(name))
  const known = value === '' || names.includes(value)
  return (
    <SelectField
      label={label}
      value={value}
      hint={names.length === 0 ? 'Add one under Variables first.' : hint}
      options={[
        ['', 'Choose …'],
        ...names.map(name => [name, name] as const),
        ...(known ? [] : [[value, value] as const]),
      ]}
      onChange={({ target }) => onChange(target.value)}
    />
  )
}

function ConditionFields({
  when,
  variables,
  onChange,
}: {
  when: Condition
  variables: readonly Variable[]
  onChange(when: Condition): void
}) {
  const compared = when.is !== 'set' && when.is !== 'unset'
  const type = variables.find(({ name }) => name === when.path)?.type
  const read = (text: string): string | number | boolean => {
    if (type === 'boolean') return text === 'true'
    const number = Number(text)
    return text.trim() !== '' && Number.isFinite(number) && type !== 'string' && type !== 'date'
      ? number
      : plainValue(text)
  }
  return (
    <>
      <VariableField
        label="Variable"
        value={when.path}
        variables={variables}
        onChange={path => onChange({ ...when, path })}
      />
      <SelectField
        label="Condition"
        value={when.is}
        options={Object.entries(OPERATORS)}
        onChange={({ target }) => {
          const is = target.value as Condition['is']
          onChange(
            is === 'set' || is === 'unset'
              ? { path: when.path, is }
              : { ...when, is, value: when.value ?? '' },
          )
        }}
      />
      {compared &&
        (type === 'boolean' ? (
          <SelectField
            label="Value"
            value={String(when.value)}
            options={[
              ['true', 'Yes'],
              ['false', 'No'],
            ]}
            onChange={({ target }) => onChange({ ...when, value: target.value === 'true' })}
          />
        ) : (
          <TextField
            label="Value"
            value={String(when.value ?? '')}
            maxLength={200}
            onChange={({ target }) => onChange({ ...when, value: read(target.value) })}
          />
        ))}
    </>
  )
}

function ColumnsProperties({ block, onChange }: { block: Of<'columns'>; onChange(block: Block): void }) {
  return (
    <SelectField
      label="How many"
      value={block.columns.length}
      hint="Fewer: what was in the last ones moves into the one that is left."
      options={[
        ['2', 'Two'],
        ['3', 'Three'],
        ['4', 'Four'],
      ]}
      onChange={({ target }) => {
        const count = Number(target.value)
        const kept = block.columns.slice(0, count)
        const rest = block.columns.slice(count).flat()
        while (kept.length < count) kept.push([newBlock('text')])
        onChange({
          ...block,
          columns: kept.map((column, at) => (at === count - 1 ? [...column, ...rest] : column)),
        })
      }}
    />
  )
}

const TYPES = 'image/png,image/jpeg,image/gif,image/webp'

function ImageProperties({
  block,
  insertions,
  onChange,
}: {
  block: Of<'image'>
  insertions: readonly InsertionGroup[]
  onChange(block: Block, about?: string): void
}) {
  const file = useRef<HTMLInputElement>(null)
  const [busy, setBusy] = useState(false)
  const queries = useQueryClient()
  const assets = useAssets()
  const name = assetName(block.src)
  const here = assets.data?.items ?? []

  async function upload(given: File) {
    setBusy(true)
    try {
      const free = freeName(given.name, new Set(here.map(one => one.name)))
      const asset = await call('putAsset', { params: { name: free }, body: given })
      await queries.invalidateQueries({ queryKey: ['assets'] })
      onChange({
        ...block,
        src: `{{asset '${asset.name}'}}`,
        // Twice as many pixels as shown: sharp on the screens of phones.
        width: Math.min(asset.width, 552),
      })
    } catch (error) {
      sayError(error, 'The picture was not uploaded')
    } finally {
      setBusy(false)
    }
  }

  return (
    <>
      <input
        ref={file}
        type="file"
        accept={TYPES}
        aria-label="Picture file"
        className="sr-only"
        tabIndex={-1}
        onChange={({ target }) => {
          const [given] = target.files ?? []
          if (given) void upload(given)
          target.value = ''
        }}
      />
      <Button icon={Upload} busy={busy} onClick={() => file.current?.click()}>
        Upload a picture
      </Button>
      {here.length > 0 && (
        <SelectField
          label="Or one that is here"
          value={name ?? ''}
          options={[['', 'Choose …'], ...here.map(one => [one.name, one.name] as const)]}
          onChange={({ target }) =>
            target.value !== '' && onChange({ ...block, src: `{{asset '${target.value}'}}` })
          }
        />
      )}
      {name === undefined && (
        <PlainField
          label="Or its address"
          mode="line"
          value={block.src}
          insertions={insertions}
          onChange={src => onChange({ ...block, src }, 'src')}
        />
      )}
      <PlainField
        label="In words"
        mode="line"
        value={block.alt}
        insertions={insertions}
        hint="For those who do not see it."
        onChange={alt => onChange({ ...block, alt }, 'alt')}
      />
      <PlainField
        label="Leads to"
        mode="line"
        value={block.href}
        insertions={insertions}
        onChange={href => onChange({ ...block, href }, 'href')}
      />
      <NumberField
        key={block.width}
        label="Width in pixels"
        value={block.width}
        min={1}
        max={900}
        onChange={width =>
          onChange(
            width === undefined ? (({ width: _, ...rest }) => rest)(block) : { ...block, width },
            'width',
          )
        }
      />
    </>
  )
}

/** A file's name as an asset may be called; another where there is one of that name, which messages go on showing. */
export function freeName(file: string, taken: ReadonlySet<string>): string {
  const base =
    file
      .replace(/\.[^.]*$/, '')
      .replaceAll(/[^A-Za-z0-9._-]+/g, '-')
      .replace(/^[^A-Za-z0-9]+/, '')
      .slice(0, 80) || 'picture'
  let name = base
  for (let n = 2; taken.has(name); n++) name = `${base}-${n}`
  return name
}
