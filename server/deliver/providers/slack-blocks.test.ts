import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Content, Json, JsonObject } from '../../types.ts'
import { DeliveryError } from '../provider.ts'
import { fitMrkdwn, notificationOf, safeMrkdwn, SLACK_LIMITS, slackMessage } from './slack-blocks.ts'
import { checkBlocks, contract, decodeSlack } from './slack-vendor.ts'

const ID = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
const message = (content: Partial<Content>, broadcasts = false) =>
  slackMessage({ body: '', ...content }, ID, broadcasts)

test('the limits are those of the contract', t => {
  const file = contract('slack-block-kit-limits.json') as { limits: Record<string, JsonObject> } | undefined
  if (file === undefined) return t.skip('the vendor contracts are not beside this checkout')
  const {
    blocks,
    message: whole,
    section_fields: fields,
  } = file.limits as Record<string, Record<string, Json>>
  const of = (kind: string) => blocks![kind] as Record<string, number>
  assert.deepEqual(
    { ...SLACK_LIMITS, text: undefined },
    {
      blocks: whole!.blocks_max_per_message,
      blockId: of('Block').block_id_max_length,
      header: of('HeaderBlock').text_max_length,
      sectionText: of('SectionBlock').text_max_length,
      sectionFields: of('SectionBlock').fields_max_length,
      fieldText: fields!.text_max_length_per_field,
      imageUrl: of('ImageBlock').image_url_max_length,
      imageAlt: of('ImageBlock').alt_text_max_length,
      imageTitle: of('ImageBlock').title_max_length,
      actions: of('ActionsBlock').elements_max_length,
      context: of('ContextBlock').elements_max_length,
      markdown: of('MarkdownBlock').text_max_length,
      actionId: of('InteractiveElement').action_id_max_length,
      buttonText: of('ButtonElement').text_max_length,
      buttonUrl: of('ButtonElement').url_max_length,
      buttonValue: of('ButtonElement').value_max_length,
      videoTitle: of('VideoBlock').title_max_length,
      text: undefined,
    },
  )
})

// covers: DIC-071, DIC-115
test('subject, body, fields, picture, buttons and context each become their block', () => {
  const { text, blocks } = message({
    subject: 'Pool exhausted',
    body: '*Pool exhausted*\nNo connection is free.',
    image: 'https://example.org/graph.png',
    actions: [
      { id: 'dashboard', label: 'View Dashboard', url: 'https://example.org/d' },
      { id: 'ack', label: 'Acknowledge' },
      { id: 'ack', label: 'Again' },
    ],
    data: { fields: [{ title: 'Priority', value: 'CRITICAL' }, '*Service*\ndb'], context: 'seen by probe 3' },
  })
  assert.equal(text, '*Pool exhausted*\nNo connection is free.')
  const plain = (words: string) => ({ type: 'plain_text', text: words, emoji: true })
  const mrkdwn = (words: string) => ({ type: 'mrkdwn', text: words })
  assert.deepEqual(blocks, [
    { type: 'header', text: plain('Pool exhausted') },
    { type: 'section', text: mrkdwn('No connection is free.') },
    { type: 'section', fields: [mrkdwn('*Priority*\nCRITICAL'), mrkdwn('*Service*\ndb')] },
    { type: 'image', image_url: 'https://example.org/graph.png', alt_text: 'Pool exhausted' },
    {
      type: 'actions',
      block_id: `carillon:${ID}:4`,
      elements: [
        {
          type: 'button',
          text: plain('View Dashboard'),
          action_id: 'dashboard',
          url: 'https://example.org/d',
        },
        { type: 'button', text: plain('Acknowledge'), action_id: 'ack', value: 'ack' },
        { type: 'button', text: plain('Again'), action_id: 'ack-2', value: 'ack' },
      ],
    },
    { type: 'context', elements: [mrkdwn('seen by probe 3')] },
  ])
  assert.equal(notificationOf(`carillon:${ID}:4`), ID)
  assert.equal(notificationOf('approve'), undefined)
})

// covers: DIC-075
test('what data brings calls nobody and forges no link; what was escaped already stays as it is', () => {
  for (const [given, safe] of [
    ['a < b & c > d', 'a &lt; b &amp; c &gt; d'],
    ['a &lt; b &amp; c', 'a &lt; b &amp; c'],
    ['<https://example.org|here> and <mailto:a@b.c>', '<https://example.org|here> and <mailto:a@b.c>'],
    ['<@U024BE7LH> in <#C024BE91L|ops>', '<@U024BE7LH> in <#C024BE91L|ops>'],
    ['<!date^1392734382^{date}|Feb 18>', '<!date^1392734382^{date}|Feb 18>'],
    ['<!channel> <!here|here>', '&lt;!channel&gt; &lt;!here|here&gt;'],
    ['<javascript:alert(1)|x>', '&lt;javascript:alert(1)|x&gt;'],
    ['&nbsp;', '&amp;nbsp;'],
  ] as const) {
    assert.equal(safeMrkdwn(given, false), safe)
    assert.equal(safeMrkdwn(safe, false), safe)
  }
  assert.equal(safeMrkdwn('<!channel>', true), '<!channel>')
})

test('a cut parts no entity, no link and no character, and is never too long', () => {
  assert.equal(fitMrkdwn('abc&amp;def', 6), 'abc…')
  assert.equal(fitMrkdwn('abc&amp;def', 9), 'abc&amp;…')
  assert.equal(fitMrkdwn('see <https://example.org|this> now', 12), 'see …')
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme', maxLength: 60 }),
      fc.integer({ min: 2, max: 50 }),
      (text, max) => {
        const cut = fitMrkdwn(safeMrkdwn(text, false), max)
        assert.ok(cut.length <= max)
        assert.ok(cut.isWellFormed() || !text.isWellFormed())
        const shown = decodeSlack(cut).replace(/…$/, '')
        assert.ok(
          text.startsWith(shown) || /[<>]/.test(text),
          `${JSON.stringify(shown)} of ${JSON.stringify(text)}`,
        )
      },
    ),
  )
})

// covers: DIC-074
test('whatever the content, Slack takes it, and nothing of the text is lost while it fits', () => {
  const text = fc.string({ unit: 'binary', maxLength: 200 })
  fc.assert(
    fc.property(
      fc.record(
        {
          subject: text,
          body: fc.oneof(
            text,
            fc.integer({ min: 1, max: 14_000 }).map(n => 'word & '.repeat(n / 7 + 1)),
          ),
          image: fc.webUrl(),
          actions: fc.array(
            fc.record({ id: text, label: text, url: fc.webUrl() }, { requiredKeys: ['id', 'label'] }),
            {
              maxLength: 30,
            },
          ),
          data: fc.record({ fields: fc.jsonValue(), context: fc.jsonValue() }) as fc.Arbitrary<JsonObject>,
        },
        { requiredKeys: ['body'] },
      ),
      content => {
        const { text: fallback, blocks } = message(content)
        checkBlocks(blocks)
        assert.ok(fallback.length > 0 && fallback.length <= SLACK_LIMITS.text)
        assert.deepEqual(JSON.parse(JSON.stringify(blocks)), blocks)
      },
    ),
    { numRuns: 200 },
  )
  const long = Array.from({ length: 1_000 }, (_, n) => `line ${n}`).join('\n')
  const parts = message({ body: long }).blocks.map(block => (block.text as { text: string }).text)
  assert.ok(parts.length > 1)
  assert.equal(parts.join('\n'), long)
})

// covers: DIC-074, DIC-115
test("a template's blocks are checked, their texts cut, their buttons named", () => {
  const blocks: JsonObject[] = [
    { type: 'header', text: { type: 'plain_text', text: 'x'.repeat(200) } },
    {
      type: 'section',
      text: { type: 'mrkdwn', text: '<!channel> a & b' },
      accessory: { type: 'datepicker' },
    },
    { type: 'divider' },
    { type: 'rich_text', elements: [] },
    {
      type: 'actions',
      block_id: 'own',
      elements: [{ type: 'button', text: { type: 'plain_text', text: 'Go' } }],
    },
  ]
  const given = structuredClone(blocks)
  const made = message({ body: 'fallback', data: { blocks: given } })
  assert.equal(made.text, 'fallback')
  assert.equal(((made.blocks[0] as JsonObject).text as { text: string }).text.length, 150)
  assert.deepEqual((made.blocks[1] as JsonObject).text, {
    type: 'mrkdwn',
    text: '&lt;!channel&gt; a &amp; b',
  })
  assert.equal(made.blocks[1]!.block_id, `carillon:${ID}:1`)
  assert.equal(made.blocks[4]!.block_id, 'own')
  assert.deepEqual(given, blocks, 'the content itself is left alone')

  const button = { type: 'button', text: { type: 'plain_text', text: 'x' } }
  const many = (n: number, value: Json) => Array.from({ length: n }, () => value)
  for (const [bad, path] of [
    ['no list', '/blocks'],
    [[], '/blocks'],
    [many(51, { type: 'divider' }), '/blocks'],
    [['text'], '/blocks/0'],
    [[{ type: 'header' }], '/blocks/0/text'],
    [[{ type: 'section' }], '/blocks/0'],
    [[{}], '/blocks/0/type'],
    [[{ type: 'section', fields: many(11, { type: 'mrkdwn', text: 'x' }) }], '/blocks/0/fields'],
    [[{ type: 'section', text: { type: 'html', text: 'x' } }], '/blocks/0/text'],
    [[{ type: 'actions', elements: many(26, button) }], '/blocks/0/elements'],
    [[{ type: 'actions', elements: [{ ...button, url: 'javascript:x' }] }], '/blocks/0/elements/0/url'],
    [
      [{ type: 'actions', elements: [{ ...button, value: 'x'.repeat(2_001) }] }],
      '/blocks/0/elements/0/value',
    ],
    [
      [{ type: 'actions', elements: [{ ...button, action_id: 'x'.repeat(256) }] }],
      '/blocks/0/elements/0/action_id',
    ],
    [[{ type: 'image', image_url: 'x', alt_text: '' }], '/blocks/0/image_url'],
    [[{ type: 'image', image_url: 'https://example.org/x' }], '/blocks/0/alt_text'],
    [[{ type: 'context', elements: many(11, { type: 'mrkdwn', text: 'x' }) }], '/blocks/0/elements'],
    [many(2, { type: 'divider', block_id: 'same' }), '/blocks/1/block_id'],
  ] as [Json, string][]) {
    assert.throws(
      () => message({ data: { blocks: bad } }),
      (error: unknown) =>
        error instanceof DeliveryError &&
        error.code === 'content_refused' &&
        error.message.startsWith(`${path} `),
      path,
    )
  }
})
