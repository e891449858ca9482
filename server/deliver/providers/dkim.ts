import { createHash, type KeyObject, verify } from 'node:crypto'

/**
 * For tests: an independent check of a DKIM signature, after RFC 6376 alone: relaxed/relaxed, rsa-sha256, no `l=`. `message` has
 * CRLF line ends.
 */
export function verifyDkim(
  message: string,
  publicKey: KeyObject,
): { ok: boolean; domain: string; selector: string; fields: string[] } {
  const gap = message.indexOf('\r\n\r\n')
  const body = message.slice(gap + 4)
  const headers = message.slice(0, gap).split(/\r\n(?![ \t])/)
  const nameOf = (header: string) => header.slice(0, header.indexOf(':')).trim().toLowerCase()
  const signature = headers.find(header => nameOf(header) === 'dkim-signature')!
  const tags = new Map(
    signature
      .slice(signature.indexOf(':') + 1)
      .replaceAll(/\r\n/g, '')
      .split(';')
      .map(tag => [tag.slice(0, tag.indexOf('=')).trim(), tag.slice(tag.indexOf('=') + 1).trim()] as const),
  )
  const fields = tags
    .get('h')!
    .split(':')
    .map(name => name.trim().toLowerCase())

  // §3.4.4: white space at line ends goes, runs of it become one; empty lines at the end go.
  const relaxedBody = body
    .split('\r\n')
    .map(line => line.replaceAll(/[ \t]+/g, ' ').replace(/ $/, ''))
    .join('\r\n')
    .replace(/(\r\n)*$/, '\r\n')
  const bodyHash = createHash('sha256')
    .update(relaxedBody === '\r\n' ? '' : relaxedBody, 'utf8')
    .digest('base64')

  // §3.4.2 and §5.4.2: of fields of one name the lowest first.
  const relaxed = (header: string) =>
    `${nameOf(header)}:${header
      .slice(header.indexOf(':') + 1)
      .replaceAll(/\r\n/g, '')
      .replaceAll(/[ \t]+/g, ' ')
      .trim()}`
  const left = [...headers]
  let signed = ''
  for (const field of fields) {
    const at = left.findLastIndex(header => nameOf(header) === field)
    if (at !== -1) signed += `${relaxed(left.splice(at, 1)[0]!)}\r\n`
  }
  signed += relaxed(signature.replace(/([;\s]b=)[^;]*/, '$1'))
  return {
    ok:
      tags.get('bh')!.replaceAll(/\s/g, '') === bodyHash &&
      verify(
        'sha256',
        Buffer.from(signed),
        publicKey,
        Buffer.from(tags.get('b')!.replaceAll(/\s/g, ''), 'base64'),
      ),
    domain: tags.get('d')!,
    selector: tags.get('s')!,
    fields,
  }
}
