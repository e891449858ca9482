import fc from 'fast-check'
import type { Block, Condition, Mail } from './block.ts'
import { type Line, type Rich, tidy } from './rich.ts'

/** Any mail that the editor can make, for laws about all of them. */

const id = fc.stringMatching(/^[a-km-z2-9]{8}$/)
const text = fc.oneof(
  fc.string({ maxLength: 30 }),
  fc.constantFrom(
    'a < b & "c"',
    "it's {{name}}",
    '{{date due style="long"}}',
    '&amp;',
    '</mj-text>',
    'ü 😀',
    '{{#if x}}',
  ),
)
const oneLine = text.map(value => value.replaceAll(/[\n\r]/g, ' '))
const colour = fc.stringMatching(/^#[0-9a-f]{6}$/)
const align = fc.constantFrom('left', 'center', 'right')
const path = fc.stringMatching(/^[a-z][a-z0-9_]{0,8}(\.[a-z]{1,5})?$/).filter(value => value !== 'nothing')

const span = fc
  .record({
    text: oneLine,
    bold: fc.boolean(),
    italic: fc.boolean(),
    href: fc.option(oneLine, { nil: undefined }),
  })
  .map(({ text: of, bold, italic, href }) => ({
    text: of,
    ...(bold && { bold: true as const }),
    ...(italic && { italic: true as const }),
    ...(href && { href }),
  }))
export const rich: fc.Arbitrary<Rich> = fc
  .array(
    fc.record({
      kind: fc.constantFrom('p', 'bullet', 'number'),
      spans: fc.array(span, { maxLength: 4 }),
    }) as fc.Arbitrary<Line>,
    { maxLength: 5 },
  )
  .map(tidy)

const value = fc.oneof(
  fc.stringMatching(/^[\w .,:'-]{0,12}$/),
  fc.integer({ min: -1000, max: 1_000_000 }),
  fc.boolean(),
)
const condition: fc.Arbitrary<Condition> = fc.oneof(
  fc.record({ path: fc.oneof(path, fc.constant('')), is: fc.constantFrom('set', 'unset') }),
  fc.record({ path, is: fc.constantFrom('eq', 'ne', 'gt', 'lt'), value }),
)

const leaf: fc.Arbitrary<Block> = fc.oneof(
  fc.record({ kind: fc.constant('heading'), id, text: oneLine, level: fc.constantFrom(1, 2, 3), align }),
  fc.record({ kind: fc.constant('text'), id, rich, align }),
  fc.record({ kind: fc.constant('button'), id, text: oneLine, url: oneLine, align }),
  fc.record(
    {
      kind: fc.constant('image'),
      id,
      src: oneLine,
      alt: oneLine,
      href: oneLine,
      width: fc.integer({ min: 1, max: 900 }),
      align,
    },
    { requiredKeys: ['kind', 'id', 'src', 'alt', 'href', 'align'] },
  ),
  fc.record({ kind: fc.constant('divider'), id }),
  fc.record({ kind: fc.constant('spacer'), id, height: fc.integer({ min: 1, max: 200 }) }),
) as fc.Arbitrary<Block>

const within = (child: fc.Arbitrary<Block>): fc.Arbitrary<Block> =>
  fc.oneof(
    { weight: 4, arbitrary: leaf },
    fc.record({
      kind: fc.constant('each'),
      id,
      list: fc.oneof(path, fc.constant('')),
      children: fc.array(child, { maxLength: 3 }),
    }) as fc.Arbitrary<Block>,
    fc.record({
      kind: fc.constant('if'),
      id,
      when: condition,
      children: fc.array(child, { maxLength: 3 }),
    }) as fc.Arbitrary<Block>,
  )

const inColumn = within(within(leaf))
const columns = fc.record({
  kind: fc.constant('columns'),
  id,
  columns: fc.array(fc.array(inColumn, { maxLength: 2 }), { minLength: 2, maxLength: 4 }),
}) as fc.Arbitrary<Block>
const anywhere = fc.oneof({ weight: 3, arbitrary: inColumn }, columns, within(fc.oneof(leaf, columns)))

export const mail: fc.Arbitrary<Mail> = (
  fc.record({
    preheader: oneLine,
    style: fc.record(
      {
        width: fc.integer({ min: 320, max: 900 }),
        accent: colour,
        rounded: fc.boolean(),
        page: fc.record({ background: colour, ink: colour }),
      },
      { requiredKeys: ['width', 'accent', 'rounded'] },
    ),
    blocks: fc.array(anywhere, { maxLength: 6 }),
  }) as fc.Arbitrary<Mail>
).map(made => structuredClone(made))
