import {
  ArrowDown,
  ArrowUp,
  Columns2,
  Copy,
  GripVertical,
  Heading as HeadingIcon,
  Image as ImageIcon,
  type LucideIcon,
  MousePointerClick,
  MoveVertical,
  Pilcrow,
  Repeat,
  SeparatorHorizontal,
  Split,
  Trash2,
} from 'lucide-react'
import {
  type DragEvent,
  type KeyboardEvent,
  type ReactNode,
  createContext,
  use,
  useRef,
  useState,
} from 'react'
import type { Document } from '../templates/document.ts'
import { insertionsFor, itemFields } from '../templates/insertions.ts'
import { IconButton, Notice } from '../ui/controls.tsx'
import { type Align, type Block, type Kind, type Mail, OPERATORS, newBlock } from './block.ts'
import { BlockImage } from './block-image.tsx'
import { readableOn } from './mjml.ts'
import { BlockProperties, MailProperties } from './properties.tsx'
import { type InsertionGroup, PlainField, RichField } from './rich-field.tsx'
import {
  type Place,
  TOP,
  allBlocks,
  duplicateBlock,
  findBlock,
  insertBlock,
  lacksOf,
  mayStand,
  moveBlock,
  placeOf,
  removeBlock,
  stepBlock,
  updateBlock,
} from './tree.ts'

export const KINDS: Record<Kind, { name: string; icon: LucideIcon }> = {
  heading: { name: 'Heading', icon: HeadingIcon },
  text: { name: 'Text', icon: Pilcrow },
  button: { name: 'Button', icon: MousePointerClick },
  image: { name: 'Picture', icon: ImageIcon },
  divider: { name: 'Line', icon: SeparatorHorizontal },
  spacer: { name: 'Space', icon: MoveVertical },
  columns: { name: 'Columns', icon: Columns2 },
  each: { name: 'List of items', icon: Repeat },
  if: { name: 'Only if', icon: Split },
}

interface Canvas {
  mail: Mail
  selected: string | undefined
  select(id: string | undefined): void
  /** `about` as in Edit: what belongs together. */
  change(mail: Mail, about?: string): void
  announce(text: string): void
  dragged: string | undefined
  drag(id: string | undefined): void
  insertions(items: readonly string[]): readonly InsertionGroup[]
  itemsOf(list: string): string[]
}

const CanvasContext = createContext<Canvas>(undefined as never)

/**
 * A mail put together from blocks. With a keyboard: Tab and the arrows go from block to block, Enter into a block's text
 * and Escape out of it, Alt with an arrow moves a block, Delete removes it.
 */
export function MailEditor({
  mail,
  onChange,
  document: template,
  sample,
  error,
  extra,
}: {
  mail: Mail
  onChange(mail: Mail, about?: string): void
  document: Document
  sample: Record<string, unknown>
  error: string | undefined
  extra?: ReactNode
}) {
  const [selected, setSelected] = useState<string>()
  const [dragged, setDragged] = useState<string>()
  const [said, setSaid] = useState('')
  const root = useRef<HTMLDivElement>(null)
  const block = selected === undefined ? undefined : findBlock(mail, selected)

  function add(kind: Kind) {
    const made = newBlock(kind)
    const at = block && placeOf(mail, block.id)
    const beside = at && mayStand(mail, made, at.place) ? at : undefined
    const next = insertBlock(mail, made, beside?.place ?? TOP, beside ? beside.index + 1 : mail.blocks.length)
    onChange(next)
    setSelected(made.id)
    setSaid(`${KINDS[kind].name} added`)
    setTimeout(() => focusBlock(root.current, made.id))
  }

  const canvas: Canvas = {
    mail,
    selected,
    select: setSelected,
    change: onChange,
    announce: setSaid,
    dragged,
    drag: setDragged,
    insertions: items => insertionsFor(template, { items }),
    itemsOf: list => itemFields(template.variables, sample, list),
  }
  const page = mail.style.page
  const lacking = lacksOf(mail)

  return (
    <CanvasContext value={canvas}>
      <div ref={root} className="@container flex flex-col gap-3">
        <div role="toolbar" aria-label="Add a block" className="flex flex-wrap items-center gap-1">
          {(Object.entries(KINDS) as [Kind, (typeof KINDS)[Kind]][]).map(([kind, { name, icon: Icon }]) => (
            <button
              key={kind}
              type="button"
              onClick={() => add(kind)}
              aria-label={`Add ${name}`}
              className="flex items-center gap-1.5 rounded-md border border-line bg-surface px-2.5 py-1.5 text-sm hover:border-outline hover:bg-sunken"
            >
              <Icon aria-hidden className="size-4 text-accent-ink" />
              {name}
            </button>
          ))}
          <span className="grow" />
          {extra}
        </div>
        {error !== undefined && <Notice tone="bad">{error}</Notice>}
        <div className="grid gap-4 @3xl:grid-cols-[minmax(0,1fr)_17rem]">
          <div
            className="rounded-xl border border-line bg-sunken p-3 sm:p-6"
            style={page && { background: page.background }}
            onClick={event => event.target === event.currentTarget && setSelected(undefined)}
          >
            <div
              role="group"
              aria-label="The mail"
              className={`mx-auto rounded-lg py-3 ${page ? '' : 'bg-surface shadow-card'}`}
              style={{ maxWidth: mail.style.width, ...(page && { color: page.ink }) }}
            >
              <BlockList blocks={mail.blocks} place={TOP} items={[]} />
            </div>
          </div>
          <aside aria-label="Properties" className="card h-fit p-4 @3xl:sticky @3xl:top-20">
            {block ? (
              <BlockProperties
                key={block.id}
                block={block}
                name={KINDS[block.kind].name}
                variables={template.variables}
                insertions={insertionsFor(template)}
                onChange={(next, about) =>
                  onChange(
                    updateBlock(mail, block.id, () => next),
                    about && `${block.id} ${about}`,
                  )
                }
              />
            ) : (
              <MailProperties mail={mail} insertions={insertionsFor(template)} onChange={onChange} />
            )}
          </aside>
        </div>
        {lacking.length > 0 && (
          <Notice tone="warn">
            {lacking.map(({ block: { id, kind }, lack }) => (
              <p key={id}>
                <button
                  type="button"
                  className="underline decoration-dotted"
                  onClick={() => focusBlock(root.current, id)}
                >
                  {KINDS[kind].name}
                </button>
                : {lack}
              </p>
            ))}
          </Notice>
        )}
        <p role="status" className="sr-only">
          {said}
        </p>
      </div>
    </CanvasContext>
  )
}

const focusBlock = (root: ParentNode | null, id: string) =>
  root?.querySelector<HTMLElement>(`[data-block="${CSS.escape(id)}"]`)?.focus()

function BlockList({
  blocks,
  place,
  items,
}: {
  blocks: readonly Block[]
  place: Place
  items: readonly string[]
}) {
  const { mail, dragged, drag, change } = use(CanvasContext)
  if (blocks.length > 0) return blocks.map(block => <BlockView key={block.id} block={block} items={items} />)
  const moved = dragged === undefined ? undefined : findBlock(mail, dragged)
  return (
    <div
      className="m-2 rounded-md border border-dashed border-outline p-4 text-center text-sm text-muted"
      onDragOver={event => {
        if (!moved || !mayStand(mail, moved, place)) return
        event.preventDefault()
        event.stopPropagation()
      }}
      onDrop={event => {
        event.preventDefault()
        event.stopPropagation()
        if (moved) change(moveBlock(mail, moved.id, place, 0))
        drag(undefined)
      }}
    >
      Nothing here yet
    </div>
  )
}

function BlockView({ block, items }: { block: Block; items: readonly string[] }) {
  const canvas = use(CanvasContext)
  const { mail, selected, select, change, announce, dragged, drag } = canvas
  const own = useRef<HTMLDivElement>(null)
  const [over, setOver] = useState<'before' | 'after'>()
  const { id, kind } = block
  const isSelected = selected === id
  const { name } = KINDS[kind]

  const refocus = () => setTimeout(() => focusBlock(document, id))
  function move(by: -1 | 1) {
    const next = stepBlock(mail, id, by)
    if (next === mail) return announce(`${name} is ${by === 1 ? 'last' : 'first'} already`)
    change(next)
    const at = placeOf(next, id)!
    announce(`${name} moved ${by === 1 ? 'down' : 'up'}, now number ${at.index + 1}`)
    refocus()
  }
  function remove() {
    const order = [...allBlocks(mail.blocks)].map(one => one.id)
    const next = removeBlock(mail, id)
    const left = new Set([...allBlocks(next.blocks)].map(one => one.id))
    const at = order.indexOf(id)
    const near =
      order.slice(at).find(one => left.has(one)) ?? order.slice(0, at).findLast(one => left.has(one))
    change(next)
    announce(`${name} removed`)
    select(near)
    if (near !== undefined) setTimeout(() => focusBlock(document, near))
  }
  function duplicate() {
    change(duplicateBlock(mail, id))
    announce(`${name} duplicated`)
  }

  function onKeyDown(event: KeyboardEvent) {
    const inText = event.target !== own.current
    if (inText) {
      // Of the fields and menus within; those of blocks within have done theirs.
      if (event.key === 'Escape' && (event.target as HTMLElement).closest('[data-block]') === own.current) {
        event.stopPropagation()
        own.current?.focus()
      }
      return
    }
    const by = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : undefined
    if (by && event.altKey) move(by)
    else if (by) {
      const order = [...allBlocks(mail.blocks)].map(one => one.id)
      const next = order[order.indexOf(id) + by]
      if (next !== undefined) focusBlock(document, next)
    } else if (event.key === 'Delete' || event.key === 'Backspace') remove()
    else if (event.key === 'd' && (event.ctrlKey || event.metaKey)) duplicate()
    else if (event.key === 'Enter') own.current?.querySelector<HTMLElement>('[contenteditable=true]')?.focus()
    else return
    event.preventDefault()
    event.stopPropagation()
  }

  function sideOf(event: DragEvent): 'before' | 'after' {
    const { top, height } = own.current!.getBoundingClientRect()
    return event.clientY < top + height / 2 ? 'before' : 'after'
  }
  function onDragOver(event: DragEvent) {
    const moved = dragged === undefined ? undefined : findBlock(mail, dragged)
    const at = placeOf(mail, id)
    if (!moved || !at || moved.id === id || !mayStand(mail, moved, at.place)) return
    event.preventDefault()
    event.stopPropagation()
    setOver(sideOf(event))
  }
  function onDrop(event: DragEvent) {
    setOver(undefined)
    const at = placeOf(mail, id)
    if (dragged === undefined || !at) return
    event.preventDefault()
    event.stopPropagation()
    change(moveBlock(mail, dragged, at.place, sideOf(event) === 'before' ? at.index : at.index + 1))
    drag(undefined)
  }

  return (
    <div
      ref={own}
      data-block={id}
      data-kind={kind}
      tabIndex={0}
      role="group"
      aria-label={name}
      aria-roledescription="block"
      aria-current={isSelected || undefined}
      onKeyDown={onKeyDown}
      onFocus={event => {
        event.stopPropagation()
        if (!isSelected) select(id)
      }}
      onClick={event => {
        event.stopPropagation()
        select(id)
      }}
      onDragOver={onDragOver}
      onDragLeave={() => setOver(undefined)}
      onDrop={onDrop}
      className={`group relative mx-1 rounded-md outline-offset-[-2px] ${
        isSelected ? 'ring-2 ring-accent' : 'hover:ring-1 hover:ring-outline'
      } ${dragged === id ? 'opacity-40' : ''} ${
        over === 'before'
          ? 'shadow-[0_-3px_0_var(--focus)]'
          : over === 'after'
            ? 'shadow-[0_3px_0_var(--focus)]'
            : ''
      }`}
    >
      {isSelected && (
        <div
          role="toolbar"
          aria-label={`${name} block`}
          className="absolute -top-7 right-2 z-10 flex items-center rounded-md border border-line bg-raised text-ink shadow-high"
        >
          <span
            draggable
            aria-hidden
            title="Drag to move"
            className="grid size-7 cursor-grab place-items-center text-muted"
            onDragStart={event => {
              event.stopPropagation()
              event.dataTransfer.effectAllowed = 'move'
              event.dataTransfer.setData('text/plain', id)
              event.dataTransfer.setDragImage(own.current!, 20, 10)
              drag(id)
            }}
            onDragEnd={() => drag(undefined)}
          >
            <GripVertical className="size-4" />
          </span>
          <IconButton icon={ArrowUp} label="Move up (Alt+↑)" className="!size-7" onClick={() => move(-1)} />
          <IconButton
            icon={ArrowDown}
            label="Move down (Alt+↓)"
            className="!size-7"
            onClick={() => move(1)}
          />
          <IconButton icon={Copy} label="Duplicate (Ctrl+D)" className="!size-7" onClick={duplicate} />
          <IconButton icon={Trash2} label="Remove (Delete)" className="!size-7" onClick={remove} />
        </div>
      )}
      <Body block={block} items={items} />
    </div>
  )
}

const ALIGN: Record<Align, string> = { left: 'text-left', center: 'text-center', right: 'text-right' }
const SIZES = { 1: 'text-[28px]', 2: 'text-[22px]', 3: 'text-[18px]' }

/** What a block looks like, and where its words are written. */
function Body({ block, items }: { block: Block; items: readonly string[] }) {
  const { mail, change, insertions, itemsOf, selected } = use(CanvasContext)
  const set = (next: Block) =>
    change(
      updateBlock(mail, block.id, () => next),
      `${block.id} words`,
    )
  const isSelected = selected === block.id
  const offered = isSelected ? insertions(items) : []
  switch (block.kind) {
    case 'heading':
      return (
        <PlainField
          bare
          label="Heading"
          mode="line"
          value={block.text}
          insertions={offered}
          tools={isSelected}
          onChange={text => set({ ...block, text })}
          className={`px-6 py-3 leading-tight font-bold outline-none ${SIZES[block.level]} ${ALIGN[block.align]}`}
        />
      )
    case 'text':
      return (
        <div className={isSelected ? 'pt-1' : ''}>
          <RichField
            bare
            label="Text"
            mode="rich"
            value={block.rich}
            insertions={offered}
            tools={isSelected}
            onChange={rich => set({ ...block, rich })}
            className={`mail-text px-6 pb-1 text-[16px] outline-none ${ALIGN[block.align]}`}
          />
        </div>
      )
    case 'button':
      return (
        <div className={`px-6 pt-2 pb-5 ${ALIGN[block.align]}`}>
          <div
            className="inline-block max-w-full text-left font-semibold"
            style={{
              background: mail.style.accent,
              color: readableOn(mail.style.accent),
              borderRadius: mail.style.rounded ? 8 : 0,
            }}
          >
            <PlainField
              bare
              label="Words on the button"
              mode="line"
              value={block.text}
              tools={false}
              onChange={text => set({ ...block, text })}
              className="min-w-8 px-[22px] py-3 text-[16px] leading-tight outline-none"
            />
          </div>
        </div>
      )
    case 'image':
      return (
        <div className={`px-6 pt-2 pb-4 ${ALIGN[block.align]}`}>
          <BlockImage src={block.src} alt={block.alt} width={block.width} />
        </div>
      )
    case 'divider':
      return (
        <div className="px-6 pt-3 pb-5">
          <hr className="border-[#8e8e93]" />
        </div>
      )
    case 'spacer':
      return (
        <div
          style={{ height: block.height }}
          className="mx-6 grid place-items-center rounded border border-dashed border-line text-xs text-muted"
        >
          {block.height >= 16 && `${block.height} px`}
        </div>
      )
    case 'columns':
      return (
        <div
          className="grid gap-1 py-1"
          style={{ gridTemplateColumns: `repeat(${block.columns.length}, minmax(0, 1fr))` }}
        >
          {block.columns.map((column, at) => (
            <div
              key={at}
              role="group"
              aria-label={`Column ${at + 1}`}
              className="min-w-0 rounded-md border border-dashed border-line py-1"
            >
              <BlockList blocks={column} place={{ parent: block.id, column: at }} items={items} />
            </div>
          ))}
        </div>
      )
    case 'each':
    case 'if': {
      const Icon = KINDS[block.kind].icon
      const within = block.kind === 'each' ? itemsOf(block.list) : items
      return (
        <div className="my-2 ml-3 border-l-4 border-accent pb-1 pl-1">
          <p className="flex items-center gap-1.5 px-2 py-1 text-xs font-medium text-accent-ink">
            <Icon aria-hidden className="size-3.5" />
            {block.kind === 'each'
              ? block.list === ''
                ? 'Repeated for each item of a list that is not chosen yet'
                : `Repeated for each of ${block.list}`
              : block.when.path === ''
                ? 'Only under a condition that is not chosen yet'
                : `Only if ${block.when.path} ${OPERATORS[block.when.is]} ${block.when.value ?? ''}`}
          </p>
          <BlockList blocks={block.children} place={{ parent: block.id, column: 0 }} items={within} />
        </div>
      )
    }
  }
}
