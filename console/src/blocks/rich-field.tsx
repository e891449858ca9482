import { Bold, Braces, Italic, Link2, List, ListOrdered } from 'lucide-react'
import {
  type ClipboardEvent,
  type KeyboardEvent,
  useEffect,
  useId,
  useLayoutEffect,
  useRef,
  useState,
} from 'react'
import { Button, IconButton, TextField } from '../ui/controls.tsx'
import { Dialog } from '../ui/dialog.tsx'
import { Menu, type MenuGroup } from '../ui/menu.tsx'
import { partsOf } from './chips.ts'
import { type Line, type Rich, type Span, richOf, textOf, tidy } from './rich.ts'

/** What can be inserted where somebody is writing. */
export interface Insertion {
  label: string
  /** What goes in; with `after`, around what is selected. */
  text: string
  after?: string
}
export interface InsertionGroup {
  label: string
  entries: readonly Insertion[]
}

interface Props {
  label: string
  value: Rich
  onChange?(value: Rich): void
  /** One line, lines of plain text, or text with formatting. */
  mode: 'line' | 'lines' | 'rich'
  insertions?: readonly InsertionGroup[]
  hint?: string | undefined
  error?: string | undefined
  lang?: string
  /** Without a frame and a visible label, as a part of what is being designed. */
  bare?: boolean
  className?: string
  placeholder?: string
  /** Whether the buttons for formatting and inserting are there; else they come with whatever holds it. */
  tools?: boolean
}

/**
 * A field in which `{{…}}` stands as a chip: it can be moved over, deleted and copied, and not be broken by a letter in
 * its middle. What is typed in braces becomes a chip when they close.
 */
export function RichField({
  label,
  value,
  onChange,
  mode,
  insertions = [],
  hint,
  error,
  lang,
  bare = false,
  className = '',
  placeholder,
  tools = true,
}: Props) {
  const id = useId()
  const root = useRef<HTMLDivElement>(null)
  const emitted = useRef<Rich>(undefined)
  const range = useRef<Range>(undefined)
  /** What was selected when somebody began to make a link; the dialog moves the focus. */
  const [linking, setLinking] = useState<Range | 'nothing'>()
  const readOnly = onChange === undefined

  useLayoutEffect(() => {
    const element = root.current!
    // What comes back is what was just written, if by way of its markup: the browser's own selection stays as it is.
    if (emitted.current === value || JSON.stringify(emitted.current) === JSON.stringify(value)) return
    const caret = document.activeElement === element ? caretOf(element) : undefined
    fill(element, value, mode)
    emitted.current = value
    if (caret !== undefined) putCaret(element, Math.min(caret, textOf(value).length))
  }, [value, mode])

  useEffect(() => {
    const remember = () => {
      const selection = document.getSelection()
      if (selection?.rangeCount && root.current?.contains(selection.anchorNode)) {
        range.current = selection.getRangeAt(0).cloneRange()
      }
    }
    document.addEventListener('selectionchange', remember)
    return () => document.removeEventListener('selectionchange', remember)
  }, [])

  function changed() {
    const element = root.current!
    const read = tidy(readDom(element, mode))
    // Braces that have just been closed.
    if (hasRawTag(element)) {
      const caret = caretOf(element)
      fill(element, read, mode)
      putCaret(element, caret)
    }
    emitted.current = read
    onChange?.(read)
  }

  /** Back where somebody was writing before they went to a menu. */
  function back(): Range {
    const element = root.current!
    element.focus()
    const selection = document.getSelection()!
    if (!range.current || !element.contains(range.current.startContainer)) {
      range.current = document.createRange()
      range.current.selectNodeContents(element)
      range.current.collapse(false)
    }
    selection.removeAllRanges()
    selection.addRange(range.current)
    return range.current
  }

  function insert({ text, after }: Insertion) {
    const at = back()
    const selected = at.toString()
    document.execCommand('insertText', false, after === undefined ? text : text + selected + after)
    changed()
  }

  function command(name: string, argument?: string) {
    const element = root.current!
    const caret = back().collapsed ? caretOf(element) : undefined
    document.execCommand('styleWithCSS', false, 'false')
    document.execCommand(name, false, argument)
    changed()
    // Browsers lose the place in a line that becomes an item.
    if (caret !== undefined && name.endsWith('List')) {
      fill(element, emitted.current!, mode)
      putCaret(element, caret)
    }
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.key === 'Enter' && mode === 'line') event.preventDefault()
    if (mode === 'rich' && (event.ctrlKey || event.metaKey) && event.key === 'k') {
      event.preventDefault()
      setLinking(range.current?.cloneRange() ?? 'nothing')
    }
  }

  function onPaste(event: ClipboardEvent) {
    // Words only: what another program's formatting looks like in a mail nobody knows.
    event.preventDefault()
    const text = event.clipboardData.getData('text/plain')
    document.execCommand('insertText', false, mode === 'line' ? text.replaceAll(/\s+/g, ' ') : text)
  }

  const groups: MenuGroup[] = insertions.map(group => ({
    label: group.label,
    entries: group.entries.map(one => ({ label: one.label, run: () => setTimeout(() => insert(one)) })),
  }))
  const insertMenu = !readOnly && groups.length > 0 && (
    <Menu
      groups={groups}
      trigger={
        <Button
          look="quiet"
          icon={Braces}
          className="!min-h-7 !px-2 text-xs"
          aria-label={`Insert into ${label}`}
        >
          Insert
        </Button>
      }
    />
  )
  const format = (icon: typeof Bold, name: string, run: () => void) => (
    <IconButton
      icon={icon}
      label={name}
      className="!size-7"
      onMouseDown={event => event.preventDefault()}
      onClick={run}
    />
  )
  const toolbar = tools && !readOnly && mode === 'rich' && (
    <div role="toolbar" aria-label={`Formatting of ${label}`} className="flex flex-wrap items-center">
      {format(Bold, 'Bold', () => command('bold'))}
      {format(Italic, 'Italic', () => command('italic'))}
      {format(Link2, 'Link', () => setLinking(range.current?.cloneRange() ?? 'nothing'))}
      {format(List, 'List', () => command('insertUnorderedList'))}
      {format(ListOrdered, 'Numbered list', () => command('insertOrderedList'))}
      {insertMenu}
    </div>
  )
  const below = error ?? hint

  return (
    <div className="flex min-w-0 flex-col gap-1">
      {!bare && (
        <div className="flex min-h-7 items-end justify-between gap-2">
          <span id={`${id}-label`} className="text-sm font-medium">
            {label}
          </span>
          {mode !== 'rich' && insertMenu}
        </div>
      )}
      {toolbar}
      {bare && tools && mode !== 'rich' && insertMenu && <div>{insertMenu}</div>}
      <div
        ref={root}
        id={id}
        role="textbox"
        tabIndex={0}
        lang={lang}
        dir={lang === undefined ? undefined : 'auto'}
        contentEditable={!readOnly}
        suppressContentEditableWarning
        aria-readonly={readOnly || undefined}
        aria-multiline={mode !== 'line'}
        aria-label={bare ? label : undefined}
        aria-labelledby={bare ? undefined : `${id}-label`}
        aria-invalid={error === undefined ? undefined : true}
        aria-describedby={below === undefined ? undefined : `${id}-below`}
        data-placeholder={placeholder}
        data-rich={mode}
        onInput={changed}
        onKeyDown={onKeyDown}
        onPaste={onPaste}
        onDrop={event => event.preventDefault()}
        className={`rich ${bare ? '' : 'field'} ${readOnly ? 'bg-sunken' : ''} ${mode === 'lines' && !bare ? 'min-h-28' : ''} ${className}`}
      />
      {below !== undefined && (
        <p id={`${id}-below`} className={`text-xs ${error === undefined ? 'text-muted' : 'text-bad'}`}>
          {below}
        </p>
      )}
      {linking && (
        <LinkDialog
          onClose={() => setLinking(undefined)}
          onLink={url => {
            setLinking(undefined)
            // After the dialog has given the focus back.
            setTimeout(() => {
              if (linking !== 'nothing') range.current = linking
              if (url === '') command('unlink')
              else command('createLink', url)
            }, 50)
          }}
        />
      )}
    </div>
  )
}

/** The same for a text that is only a text. */
export function PlainField({
  value,
  onChange,
  ...rest
}: Omit<Props, 'value' | 'onChange'> & { value: string; onChange?(value: string): void }) {
  const rich = useRef<{ text: string; rich: Rich }>(undefined)
  if (rich.current?.text !== value) rich.current = { text: value, rich: richOf(value) }
  return (
    <RichField
      {...rest}
      value={rich.current.rich}
      onChange={
        onChange &&
        (next => {
          const text = textOf(next)
          rich.current = { text, rich: next }
          onChange(text)
        })
      }
    />
  )
}

function LinkDialog({ onClose, onLink }: { onClose(): void; onLink(url: string): void }) {
  const [url, setUrl] = useState('https://')
  return (
    <Dialog open onClose={onClose} title="Link" about="Where the selected words lead; {{…}} is filled in.">
      <form
        className="flex flex-col gap-4"
        onSubmit={event => {
          event.preventDefault()
          onLink(url.trim())
        }}
      >
        <TextField label="Address" value={url} autoFocus onChange={({ target }) => setUrl(target.value)} />
        <div className="flex justify-end gap-2">
          <Button onClick={() => onLink('')}>Remove the link</Button>
          <Button look="primary" type="submit">
            Set the link
          </Button>
        </div>
      </form>
    </Dialog>
  )
}

// ------------------------------------------------------------------------------------------- the document

/** Keeps a place for the caret beside a chip; never part of the text. */
const HOLD = '\u200b'

function fill(root: HTMLElement, rich: Rich, mode: Props['mode']): void {
  root.replaceChildren()
  let list: HTMLElement | undefined
  for (const { kind, spans } of rich.length > 0 ? rich : richOf('')) {
    const inner = spans.map(spanNode)
    if (mode === 'line') {
      root.append(...inner)
      continue
    }
    const line = document.createElement(kind === 'p' ? 'div' : 'li')
    line.append(...(inner.length > 0 ? inner : [document.createElement('br')]))
    if (kind === 'p') {
      list = undefined
      root.append(line)
      continue
    }
    const name = kind === 'bullet' ? 'UL' : 'OL'
    if (list?.nodeName !== name) root.append((list = document.createElement(name)))
    list.append(line)
  }
}

function spanNode({ text, bold, italic, href }: Span): Node {
  const fragment = document.createDocumentFragment()
  for (const part of partsOf(text)) {
    if ('text' in part) fragment.append(part.text)
    else fragment.append(chipNode(part.tag, part.label), HOLD)
  }
  let node: Node = fragment
  const wrap = (name: string) => {
    const element = document.createElement(name)
    element.append(node)
    node = element
    return element
  }
  if (italic) wrap('em')
  if (bold) wrap('strong')
  if (href) wrap('a').setAttribute('href', href)
  return node
}

function chipNode(tag: string, label: string): HTMLElement {
  const chip = document.createElement('span')
  chip.className = 'chip'
  chip.contentEditable = 'false'
  chip.dataset.tag = tag
  chip.title = tag
  chip.textContent = label
  return chip
}

const BLOCKS = new Set(['DIV', 'P', 'LI'])
const MARKS: Record<string, Omit<Span, 'text'>> = {
  B: { bold: true },
  STRONG: { bold: true },
  I: { italic: true },
  EM: { italic: true },
}

/** What is written in a field, whatever the browser made of it. */
function readDom(root: Node, mode: Props['mode']): Rich {
  const lines: Line[] = []
  let line: Line | undefined
  const current = (kind: Line['kind']): Line => {
    if (!line) lines.push((line = { kind, spans: [] }))
    return line
  }
  const walk = (node: Node, look: Omit<Span, 'text'>, kind: Line['kind']): void => {
    for (const child of node.childNodes) {
      if (child.nodeType === Node.TEXT_NODE) {
        const text = child
          .textContent!.replaceAll(HOLD, '')
          .replaceAll('\u00a0', ' ')
          .replaceAll(/[\r\n]/g, ' ')
        if (text !== '') current(kind).spans.push({ text, ...look })
        continue
      }
      if (!(child instanceof HTMLElement)) continue
      const { nodeName: name, dataset } = child
      if (dataset.tag !== undefined) current(kind).spans.push({ text: dataset.tag, ...look })
      else if (name === 'BR') {
        // The last one of a line only keeps it open.
        current(kind)
        if (child.nextSibling && mode !== 'line') line = undefined
      } else if (BLOCKS.has(name)) {
        line = undefined
        const of = name !== 'LI' ? 'p' : child.parentNode?.nodeName === 'OL' ? 'number' : 'bullet'
        // Browsers put a list into the paragraph it was made of.
        const holdsLines = child.querySelector(':scope > ul, :scope > ol, :scope > div, :scope > p') !== null
        if (mode !== 'line' && !holdsLines) current(mode === 'rich' ? of : 'p')
        walk(child, look, mode === 'rich' ? of : 'p')
        if (mode !== 'line') line = undefined
      } else if (name === 'UL' || name === 'OL') {
        line = undefined
        walk(child, look, kind)
        line = undefined
      } else {
        const href = name === 'A' ? { href: child.getAttribute('href') ?? '' } : {}
        walk(child, mode === 'rich' ? { ...look, ...MARKS[name], ...href } : {}, kind)
      }
    }
  }
  walk(root, {}, 'p')
  if (mode === 'line') return [{ kind: 'p', spans: lines.flatMap(one => one.spans) }]
  return lines.length > 0 ? lines : richOf('')
}

function hasRawTag(root: HTMLElement): boolean {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.parentElement?.closest('[data-tag]') && /\{\{[^{}]*\}\}/.test(node.textContent!)) return true
  }
  return false
}

/** How much text stands before the caret, a line's end counting one. */
function caretOf(root: HTMLElement): number | undefined {
  const selection = document.getSelection()
  if (!selection?.rangeCount || !root.contains(selection.focusNode)) return undefined
  const before = document.createRange()
  before.setStart(root, 0)
  before.setEnd(selection.focusNode!, selection.focusOffset)
  const copy = document.createElement('div')
  copy.append(before.cloneContents())
  return textOf(readDom(copy, root.dataset.rich as Props['mode'])).length
}

function putCaret(root: HTMLElement, offset: number | undefined): void {
  if (offset === undefined) return
  let left = offset
  let first = true
  const place = (node: Node, at: number) => {
    const selection = document.getSelection()!
    selection.collapse(node, at)
  }
  const walk = (node: Node): boolean => {
    for (const child of node.childNodes) {
      if (child instanceof HTMLElement && child.dataset.tag !== undefined) {
        left -= child.dataset.tag.length
        if (left <= 0) {
          const next = child.nextSibling
          if (next?.nodeType === Node.TEXT_NODE && next.textContent!.startsWith(HOLD)) place(next, 1)
          else place(child.parentNode!, [...child.parentNode!.childNodes].indexOf(child) + 1)
          return true
        }
      } else if (child.nodeType === Node.TEXT_NODE) {
        const text = child.textContent!
        const length = text.replaceAll(HOLD, '').length
        if (left <= length && length > 0) {
          place(child, left + (text.length - length))
          return true
        }
        left -= length
      } else {
        if (BLOCKS.has(child.nodeName)) {
          if (!first) left--
          first = false
          if (left <= 0) {
            place(child, 0)
            return true
          }
        }
        if (walk(child)) return true
      }
    }
    return false
  }
  if (!walk(root)) document.getSelection()!.selectAllChildren(root)
  if (document.getSelection()!.isCollapsed === false) document.getSelection()!.collapseToEnd()
}
