import { html } from '@codemirror/lang-html'
import { json } from '@codemirror/lang-json'
import { type Diagnostic, lintGutter, setDiagnostics } from '@codemirror/lint'
import { HighlightStyle, syntaxHighlighting } from '@codemirror/language'
import { EditorState } from '@codemirror/state'
import { EditorView } from '@codemirror/view'
import { tags } from '@lezer/highlight'
import { basicSetup } from 'codemirror'
import { useEffect, useRef } from 'react'
import type { Problem } from './problems.tsx'

const LANGUAGES = { html, json }

/** Colours of the console's own tokens, so that both modes keep their contrast. */
const highlight = HighlightStyle.define([
  { tag: [tags.tagName, tags.keyword, tags.propertyName], color: 'var(--accent-ink)' },
  { tag: [tags.string, tags.attributeValue], color: 'var(--good)' },
  { tag: [tags.attributeName, tags.number, tags.bool], color: 'var(--warn)' },
  { tag: [tags.comment, tags.angleBracket, tags.punctuation], color: 'var(--muted)' },
])
const theme = EditorView.theme({
  '&': { backgroundColor: 'var(--surface)', color: 'var(--ink)', fontSize: '13px', maxHeight: '32rem' },
  '.cm-scroller': {
    fontFamily: 'var(--font-mono, ui-monospace, monospace)',
    minHeight: '12rem',
    overflow: 'auto',
  },
  '.cm-gutters': { backgroundColor: 'var(--sunken)', color: 'var(--muted)', border: 'none' },
  '.cm-activeLine, .cm-activeLineGutter': { backgroundColor: 'var(--sunken)' },
  '&.cm-focused .cm-cursor': { borderLeftColor: 'var(--ink)' },
  '&.cm-focused .cm-selectionBackground, .cm-selectionBackground': {
    backgroundColor: 'var(--accent-soft) !important',
  },
  '&.cm-focused': { outline: '2px solid var(--focus)' },
  '.cm-tooltip, .cm-panels': {
    backgroundColor: 'var(--raised)',
    color: 'var(--ink)',
    borderColor: 'var(--line)',
  },
})

/** Source for those who write it, with the server's mistakes at their line. Loaded when it is first needed. */
export default function SourceEditor({
  label,
  language,
  value,
  problems,
  onChange,
}: {
  label: string
  language: keyof typeof LANGUAGES
  value: string
  problems: readonly Problem[]
  onChange(value: string): void
}) {
  const place = useRef<HTMLDivElement>(null)
  const view = useRef<EditorView>(undefined)
  const tell = useRef(onChange)
  tell.current = onChange

  useEffect(() => {
    const made = new EditorView({
      parent: place.current!,
      state: EditorState.create({
        doc: value,
        extensions: [
          basicSetup,
          LANGUAGES[language](),
          syntaxHighlighting(highlight),
          theme,
          lintGutter(),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ 'aria-label': label }),
          EditorView.updateListener.of(update => {
            if (update.docChanged) tell.current(update.state.doc.toString())
          }),
        ],
      }),
    })
    view.current = made
    return () => made.destroy()
    // oxlint-disable-next-line exhaustive-deps -- made once; what changes comes in below
  }, [])

  useEffect(() => {
    const made = view.current!
    const now = made.state.doc.toString()
    if (now !== value) made.dispatch({ changes: { from: 0, to: now.length, insert: value } })
  }, [value])

  useEffect(() => {
    const { state } = view.current!
    const found: Diagnostic[] = problems.map(({ message, line, column = 1 }) => {
      const at = line ?? Number(/line (\d+)/.exec(message)?.[1] ?? 1)
      const of = state.doc.line(Math.min(Math.max(at, 1), state.doc.lines))
      const from = Math.min(of.from + Math.max(column - 1, 0), of.to)
      return { from, to: of.to, severity: 'error', message }
    })
    view.current!.dispatch(setDiagnostics(state, found))
  }, [problems, value])

  return <div ref={place} className="overflow-hidden rounded-lg border border-outline" />
}
