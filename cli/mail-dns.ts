import { createPrivateKey, createPublicKey } from 'node:crypto'
import { Resolver } from 'node:dns/promises'
import type { Config } from '../server/config.ts'

/** What the domain name system says; an empty list for a name that has none. Throws when nobody answers. */
export interface Lookup {
  /** Each record with its parts joined (RFC 7208 §3.3). */
  txt(name: string): Promise<string[]>
  mx(name: string): Promise<string[]>
}

export interface MailFinding {
  name: 'spf' | 'dkim' | 'dmarc' | 'bounces'
  state: 'ok' | 'warn' | 'fail'
  says: string
  advice?: string
}

const TIMEOUT_MS = 3_000

export function systemLookup(): Lookup {
  const resolver = new Resolver({ timeout: TIMEOUT_MS, tries: 2 })
  const found = async <T>(asked: Promise<T[]>): Promise<T[]> => {
    try {
      return await asked
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOTFOUND' || code === 'ENODATA') return []
      throw error
    }
  }
  return {
    txt: async name => (await found(resolver.resolveTxt(name))).map(parts => parts.join('')),
    mx: async name => (await found(resolver.resolveMx(name))).map(({ exchange }) => exchange),
  }
}

/** What receivers of our mail look up before they believe it: SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 7489). */
export async function mailDns(
  { smtp, bounces }: Pick<Config, 'smtp' | 'bounces'>,
  lookup: Lookup,
): Promise<MailFinding[]> {
  const from = domainOf(smtp.from)
  if (smtp.host === undefined || from === undefined) return []
  const envelope = domainOf(bounces.address) ?? from
  const found = [await spf(envelope, lookup)]
  found.push(await dkim(smtp, from, lookup), await dmarc(from, envelope, lookup))
  if (bounces.address !== undefined) found.push(await mailOf(envelope, lookup))
  return found
}

async function spf(domain: string, lookup: Lookup): Promise<MailFinding> {
  const records = (await lookup.txt(domain)).filter(text => /^v=spf1(?: |$)/i.test(text))
  const [record] = records
  if (record === undefined) {
    return {
      name: 'spf',
      state: 'warn',
      says: `${domain} says nothing of who may send for it`,
      advice: `Publish a TXT record at ${domain}, such as "v=spf1 include:<your mail provider> -all"`,
    }
  }
  if (records.length > 1) {
    return {
      name: 'spf',
      state: 'fail',
      says: `${domain} has ${records.length} SPF records, so receivers take none (RFC 7208 §4.5)`,
      advice: 'Make one of them',
    }
  }
  if (/ \+?all\b/i.test(record)) {
    return {
      name: 'spf',
      state: 'fail',
      says: `${domain} lets everybody send for it`,
      advice: 'End it with -all or ~all',
    }
  }
  return { name: 'spf', state: 'ok', says: `${domain}: ${record}` }
}

async function dkim(smtp: Config['smtp'], from: string, lookup: Lookup): Promise<MailFinding> {
  if (smtp.dkimSelector === undefined || smtp.dkimKey === undefined) {
    return {
      name: 'dkim',
      state: 'ok',
      says: 'mail is not signed here',
      advice: 'Fine where the mail server signs; else set SMTP_DKIM_SELECTOR and SMTP_DKIM_KEY',
    }
  }
  const domain = smtp.dkimDomain ?? from
  const name = `${smtp.dkimSelector}._domainkey.${domain}`
  let own: string
  try {
    const der = createPublicKey(createPrivateKey(smtp.dkimKey.reveal())).export({
      type: 'spki',
      format: 'der',
    })
    own = der.toString('base64')
  } catch {
    return {
      name: 'dkim',
      state: 'fail',
      says: 'SMTP_DKIM_KEY is no private key in PEM form without a passphrase',
    }
  }
  const advice = `Publish a TXT record at ${name}: "v=DKIM1; k=rsa; p=${own}"`
  const [record] = await lookup.txt(name)
  if (record === undefined)
    return { name: 'dkim', state: 'fail', says: `there is no record at ${name}`, advice }
  const published = /(?:^|;)\s*p=([^;]*)/.exec(record)?.[1]?.replaceAll(/\s/g, '')
  if (published !== own)
    return {
      name: 'dkim',
      state: 'fail',
      says: `the record at ${name} holds another key than the one that signs`,
      advice,
    }
  if (!aligned(domain, from)) {
    return {
      name: 'dkim',
      state: 'warn',
      says: `mail from ${from} is signed for ${domain}, which DMARC does not count`,
      advice: 'Sign for the domain of SMTP_FROM',
    }
  }
  return { name: 'dkim', state: 'ok', says: `${name} holds the key that signs` }
}

async function dmarc(from: string, envelope: string, lookup: Lookup): Promise<MailFinding> {
  let record: string | undefined
  let at = from
  for (;;) {
    record = (await lookup.txt(`_dmarc.${at}`)).find(text => /^v=DMARC1\b/i.test(text))
    const parent = at.slice(at.indexOf('.') + 1)
    // The organisation's domain stands for what is below it; a name without a dot is nobody's organisation.
    if (record !== undefined || !parent.includes('.')) break
    at = parent
  }
  if (record === undefined) {
    return {
      name: 'dmarc',
      state: 'warn',
      says: `${from} has no DMARC record; large mailbox providers ask for one`,
      advice: `Publish a TXT record at _dmarc.${from}, to begin with "v=DMARC1; p=none; rua=mailto:<your address>"`,
    }
  }
  if (!aligned(envelope, from)) {
    return {
      name: 'dmarc',
      state: 'warn',
      says: `bounces go to ${envelope}, so SPF does not count for mail from ${from}: DKIM alone has to hold`,
      advice: `Take a CARILLON_BOUNCE_ADDRESS below ${from}`,
    }
  }
  return { name: 'dmarc', state: 'ok', says: `_dmarc.${at}: ${record}` }
}

async function mailOf(domain: string, lookup: Lookup): Promise<MailFinding> {
  const servers = await lookup.mx(domain)
  if (servers.length > 0)
    return { name: 'bounces', state: 'ok', says: `mail to ${domain} goes to ${servers.join(', ')}` }
  return {
    name: 'bounces',
    state: 'warn',
    says: `${domain} has no MX record, so bounces may not find their way`,
    advice: 'See "Bounces by mail" in docs/guides/providers.md',
  }
}

const domainOf = (sender: string | undefined): string | undefined =>
  /@([^\s<>@]+?)>?\s*$/.exec(sender ?? '')?.[1]?.toLowerCase()

/** Relaxed alignment (RFC 7489 §3.1), as far as it can be told without a list of public suffixes. */
const aligned = (one: string, other: string): boolean =>
  one === other || one.endsWith(`.${other}`) || other.endsWith(`.${one}`)
