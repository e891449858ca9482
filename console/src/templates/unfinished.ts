import { parseMail } from '../blocks/mjml.ts'
import { lacksOf } from '../blocks/tree.ts'
import type { Contents, Document } from './document.ts'

/** What the mails of a template still lack, each thing once, in words; mails that are no blocks lack nothing. */
export function unfinishedOf({
  channels,
  translations,
}: Pick<Document, 'channels' | 'translations'>): string[] {
  const of = (contents: Contents): string[] =>
    Object.values(contents).flatMap(({ mjml }) => {
      const mail = mjml === undefined ? undefined : parseMail(mjml)
      return mail === undefined ? [] : lacksOf(mail).map(({ lack }) => lack)
    })
  return [...new Set([channels, ...Object.values(translations)].flatMap(of))]
}
