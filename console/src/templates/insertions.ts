import type { InsertionGroup } from '../blocks/rich-field.tsx'
import type { Document, Variable } from './document.ts'

/** What every template knows without being told (the guide to templates, "What a template sees"). */
const ALWAYS = [
  ['Event type', 'event.type'],
  ['Reader', 'user.id'],
  ['Our name', 'tenant.name'],
  ['Now', 'date now'],
] as const

const named = (name: string) => (/^[\w.]+$/.test(name) ? name : `data.[${name}]`)

/** A value as people like to read it: times and numbers in the reader's own way. */
function valueOf({ name, type }: Variable): string {
  if (type === 'date') return `{{date ${named(name)}}}`
  if (type === 'number') return `{{number ${named(name)}}}`
  return `{{${named(name)}}}`
}

/**
 * What can be put into a text.
 *
 * @param items the fields of the item, where the text is repeated for each of a list
 * @param logic whether conditions and repetition go into the text itself; in a mail they are blocks
 */
export function insertionsFor(
  { variables, messages, locale }: Document,
  { items = [], logic = false }: { items?: readonly string[]; logic?: boolean } = {},
): InsertionGroup[] {
  const known = variables.filter(({ name }) => name.trim() !== '')
  const lists = known.filter(({ type }) => type === 'array' || type === 'object')
  const keys = Object.keys(messages[locale] ?? {})
  return [
    { label: 'Of this item', entries: items.map(name => ({ label: name, text: `{{${name}}}` })) },
    {
      label: 'Variables',
      entries: known
        .filter(({ type }) => type !== 'array' && type !== 'object')
        .map(variable => ({ label: variable.name, text: valueOf(variable) })),
    },
    { label: 'Messages', entries: keys.map(key => ({ label: key, text: `{{t "${key}"}}` })) },
    { label: 'Always there', entries: ALWAYS.map(([label, path]) => ({ label, text: `{{${path}}}` })) },
    {
      label: 'Only if there is …',
      entries: logic
        ? known.map(({ name }) => ({ label: `… ${name}`, text: `{{#if ${named(name)}}}`, after: '{{/if}}' }))
        : [],
    },
    {
      label: 'For each of …',
      entries: logic
        ? lists.map(({ name }) => ({
            label: `… each of ${name}`,
            text: `{{#each ${named(name)}}}`,
            after: `{{${itemFields(variables, {}, name)[0]}}}{{/each}}`,
          }))
        : [],
    },
  ].filter(group => group.entries.length > 0)
}

/** The fields of a list's items, as its default or example has them. */
export function itemFields(
  variables: readonly Variable[],
  sample: Record<string, unknown>,
  list: string,
): string[] {
  const given = variables.find(({ name }) => name === list)?.default ?? sample[list]
  const first: unknown = Array.isArray(given) ? given[0] : undefined
  if (typeof first === 'object' && first !== null) return Object.keys(first)
  return ['this']
}
