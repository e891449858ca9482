import type { ReactNode } from 'react'

interface Block {
  type?: string
  text?: { type?: string; text?: string } | string
  fields?: { text?: string }[]
  elements?: Block[]
  alt_text?: string
  accessory?: Block
}

/** Block Kit as it reads; what is unknown here is named, so that nothing is missed. */
export const SlackBlocks = ({ blocks }: { blocks: readonly unknown[] }) => (
  <div className="flex flex-col gap-2.5 text-sm">
    {(blocks as Block[]).map((block, at) => (
      <SlackBlock key={at} block={block} />
    ))}
  </div>
)

function SlackBlock({ block }: { block: Block }) {
  switch (block.type) {
    case 'header':
      return <p className="text-base font-bold">{textOf(block)}</p>
    case 'section':
      return (
        <div className="flex items-start justify-between gap-3">
          <div>
            {block.text !== undefined && <p className="whitespace-pre-wrap">{marked(textOf(block))}</p>}
            {block.fields && (
              <div className="grid grid-cols-2 gap-2">
                {block.fields.map((field, at) => (
                  <p key={at} className="whitespace-pre-wrap">
                    {marked(field.text ?? '')}
                  </p>
                ))}
              </div>
            )}
          </div>
          {block.accessory && <SlackBlock block={block.accessory} />}
        </div>
      )
    case 'divider':
      return <hr className="border-line" />
    case 'context':
      return (
        <p className="text-xs text-muted">
          {block.elements?.map((one, at) => (
            <span key={at}>{marked(textOf(one))} </span>
          ))}
        </p>
      )
    case 'actions':
      return (
        <div className="flex flex-wrap gap-2">
          {block.elements?.map((one, at) => (
            <SlackBlock key={at} block={one} />
          ))}
        </div>
      )
    case 'button':
      return <span className="rounded-md border border-outline px-3 py-1 font-medium">{textOf(block)}</span>
    case 'image':
      return (
        <span className="rounded-md border border-dashed border-outline p-3 text-muted">
          {block.alt_text ?? 'A picture'}
        </span>
      )
    default:
      return <span className="text-xs text-muted">({block.type ?? 'a block without type'})</span>
  }
}

const textOf = ({ text }: Block): string => (typeof text === 'string' ? text : (text?.text ?? ''))

const ENTITIES: Record<string, string> = { '&amp;': '&', '&lt;': '<', '&gt;': '>' }
const plain = (text: string) => text.replaceAll(/&(?:amp|lt|gt);/g, entity => ENTITIES[entity]!)

/** Slack's mrkdwn: *bold*, _italic_, `code`, <link|words>. */
function marked(text: string): ReactNode[] {
  return text.split(/(\*[^*\n]+\*|_[^_\n]+_|`[^`\n]+`|<[^>\s|]+(?:\|[^>]+)?>)/).map((part, at) => {
    if (/^\*.+\*$/.test(part)) return <strong key={at}>{plain(part.slice(1, -1))}</strong>
    if (/^_.+_$/.test(part)) return <em key={at}>{plain(part.slice(1, -1))}</em>
    if (/^`.+`$/.test(part)) return <code key={at}>{plain(part.slice(1, -1))}</code>
    const link = /^<([^|>]+)(?:\|(.+))?>$/.exec(part)
    if (link) {
      return (
        <span key={at} className="text-accent-ink underline">
          {plain(link[2] ?? link[1]!)}
        </span>
      )
    }
    return plain(part)
  })
}
