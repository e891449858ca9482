import type { TemplateWarning } from './publish.ts'

/** `{{asset "logo"}}`, alone or within another helper's arguments. */
const NAMED = /\{\{[^}]{0,4000}?\basset\s+(?:"([^"}]{1,100})"|'([^'}]{1,100})')/g
const MAX_WARNINGS = 20

/**
 * Pictures that texts name and nobody has uploaded: their place stays empty, which nobody sees before the mail is out.
 *
 * @param known addresses by name
 */
export function missingPictures(
  texts: { channels: object; translations: object; partials?: object },
  known: Readonly<Record<string, string>>,
): TemplateWarning[] {
  const warnings: TemplateWarning[] = []
  const walk = (value: unknown, field: string): void => {
    if (warnings.length >= MAX_WARNINGS) return
    if (typeof value === 'string') {
      // Each in its turn: a text may name several.
      const names = new Set([...value.matchAll(NAMED)].map(([, double, single]) => (double ?? single)!))
      for (const name of names) {
        if (!Object.hasOwn(known, name))
          warnings.push({ field, message: `There is no picture called "${name}"` })
      }
    } else if (typeof value === 'object' && value !== null) {
      for (const [key, child] of Object.entries(value)) {
        walk(child, `${field}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`)
      }
    }
  }
  walk(texts.channels, '/channels')
  walk(texts.translations, '/translations')
  walk(texts.partials ?? {}, '/partials')
  return warnings
}
