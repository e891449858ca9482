import type { Mail } from '../blocks/block.ts'
import { parseMail, printMail } from '../blocks/mjml.ts'
import { type Words, allWords, inOtherWords } from '../blocks/tree.ts'
import type { Document } from './document.ts'

/**
 * The document with its mail's translations built as the mail is now. What they had no words for follows the original,
 * what they had words for keeps them.
 *
 * @param before the document that this change was made from
 */
export function aligned(before: Document, after: Document, channel: string): Document {
  const [was, is] = [before.channels[channel]?.mjml, after.channels[channel]?.mjml]
  if (is === undefined || was === is) return after
  const source = parseMail(is)
  const earlier = was === undefined ? undefined : parseMail(was)
  if (!source || !earlier) return after
  const translations = Object.fromEntries(
    Object.entries(after.translations).map(([tag, contents]) => {
      const content = contents[channel]
      const mail = content?.mjml === undefined ? undefined : parseMail(content.mjml)
      return mail
        ? [
            tag,
            { ...contents, [channel]: { ...content, mjml: printMail(translated(earlier, source, mail)) } },
          ]
        : [tag, contents]
    }),
  )
  return { ...after, translations }
}

function translated(earlier: Mail, source: Mail, translation: Mail): Mail {
  const originals = allWords(earlier)
  const own = new Map(
    [...allWords(translation)].map(([id, words]) => [id, differing(words, originals.get(id))] as const),
  )
  const preheader = translation.preheader === earlier.preheader ? source.preheader : translation.preheader
  return inOtherWords(source, own, preheader)
}

/** The words that are not those of the original. */
const differing = (words: Words, original: Words | undefined): Words =>
  Object.fromEntries(
    Object.entries(words).filter(
      ([key, value]) => JSON.stringify(value) !== JSON.stringify(original?.[key as keyof Words]),
    ),
  )
