import { useMemo } from 'react'
import { type Mail } from '../blocks/block.ts'
import { PlainField, RichField, type InsertionGroup } from '../blocks/rich-field.tsx'
import { type Words, allBlocks, allWords, inOtherWords, wordsOf } from '../blocks/tree.ts'
import { Badge } from '../ui/controls.tsx'
import { type Document, languageName } from './document.ts'

/**
 * A mail of blocks in another language: each text beside its original. How the mail is built is the original's alone, so
 * that no language lags behind.
 */
export function MailTranslation({
  document,
  language,
  source,
  translation,
  onChange,
  insertions,
}: {
  document: Document
  language: string
  source: Mail
  translation: Mail | undefined
  onChange(mail: Mail, about?: string): void
  insertions: readonly InsertionGroup[]
}) {
  const words = useMemo(() => (translation ? allWords(translation) : new Map<string, Words>()), [translation])
  const preheader = translation?.preheader ?? ''
  const say = (id: string, change: Words) => {
    const next = new Map(words)
    next.set(id, { ...next.get(id), ...change })
    onChange(inOtherWords(source, next, preheader), `${id} ${Object.keys(change).join()}`)
  }
  const rows = [...allBlocks(source.blocks)].flatMap(block => {
    const original = wordsOf(block)
    return original ? [{ block, original, own: words.get(block.id) ?? {} }] : []
  })
  const isMissing = (original: Words, own: Words, key: keyof Words) =>
    own[key] === undefined || JSON.stringify(own[key]) === JSON.stringify(original[key])
  const missing = rows.filter(({ original, own }) =>
    (['text', 'rich'] as const).some(key => original[key] !== undefined && isMissing(original, own, key)),
  ).length
  const total = rows.filter(
    ({ original }) => original.text !== undefined || original.rich !== undefined,
  ).length

  return (
    <section aria-label={`The mail in ${languageName(language)}`} className="flex flex-col gap-3">
      <div className="flex items-center gap-3">
        <h3 className="text-sm font-medium">The mail</h3>
        <Badge tone={missing === 0 ? 'good' : 'warn'}>
          {total - missing} of {total} translated
        </Badge>
      </div>
      {(source.preheader !== '' || preheader !== '') && (
        <Pair label="Preview text" lacking={source.preheader !== '' && preheader === ''}>
          <PlainField
            bare
            label="Preview text, original"
            mode="line"
            value={source.preheader}
            lang={document.locale}
            className="field bg-sunken"
          />
          <PlainField
            bare
            label={`Preview text, ${languageName(language)}`}
            mode="line"
            value={preheader}
            lang={language}
            className="field"
            onChange={text => onChange(inOtherWords(source, words, text), 'preheader')}
          />
        </Pair>
      )}
      {rows.map(({ block, original, own }) => (
        <div key={block.id} className="contents">
          {original.text !== undefined && (
            <Pair
              label={block.kind === 'button' ? 'Button' : 'Heading'}
              lacking={isMissing(original, own, 'text')}
            >
              <PlainField
                bare
                label="Original"
                mode="line"
                value={original.text}
                lang={document.locale}
                className="field bg-sunken"
              />
              <PlainField
                bare
                label={`${block.kind === 'button' ? 'Button' : 'Heading'}, ${languageName(language)}`}
                mode="line"
                value={own.text ?? original.text}
                lang={language}
                className="field"
                onChange={text => say(block.id, { text })}
              />
            </Pair>
          )}
          {original.rich !== undefined && (
            <Pair label="Text" lacking={isMissing(original, own, 'rich')}>
              <RichField
                bare
                label="Original"
                mode="rich"
                value={original.rich}
                lang={document.locale}
                className="field mail-text bg-sunken"
              />
              <RichField
                bare
                label={`Text, ${languageName(language)}`}
                mode="rich"
                value={own.rich ?? original.rich}
                lang={language}
                className="field mail-text"
                insertions={insertions}
                onChange={rich => say(block.id, { rich })}
              />
            </Pair>
          )}
          {original.alt !== undefined && original.alt !== '' && (
            <Pair label="Picture in words" lacking={isMissing(original, own, 'alt')}>
              <PlainField
                bare
                label="Original"
                mode="line"
                value={original.alt}
                lang={document.locale}
                className="field bg-sunken"
              />
              <PlainField
                bare
                label={`Picture in words, ${languageName(language)}`}
                mode="line"
                value={own.alt ?? original.alt}
                lang={language}
                className="field"
                onChange={alt => say(block.id, { alt })}
              />
            </Pair>
          )}
        </div>
      ))}
    </section>
  )
}

const Pair = ({
  label,
  lacking,
  children,
}: {
  label: string
  lacking: boolean
  children: [React.ReactNode, React.ReactNode]
}) => (
  <div className="card p-3">
    <p className="mb-2 flex items-center gap-2 text-xs text-muted">
      {label}
      {lacking && <Badge tone="warn">not translated</Badge>}
    </p>
    <div className="grid items-start gap-3 md:grid-cols-2">{children}</div>
  </div>
)
