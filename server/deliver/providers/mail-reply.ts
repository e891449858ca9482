/**
 * What a mail server's final refusal is about. Only `address` and `nowhere` say that nobody can be reached there: on
 * those words an address is written to no more, so whatever may be about us counts as something else.
 */
export type MailBlame =
  /** The mailbox does not exist, or was closed. */
  | 'address'
  /** The domain has nobody who takes mail. */
  | 'nowhere'
  /** The mailbox takes nothing more today. */
  | 'full'
  /** Our own address, or that we send at all. */
  | 'sender'
  | 'size'
  | 'content'
  /** The far end's rules, which are mostly about us. */
  | 'policy'
  /** The far end's own trouble on the way. */
  | 'system'

// What servers without enhanced codes say when it is us whom they refuse: relays that do not know us, lists, checks of
// sender and host. Exim says "550 relay not permitted" of every recipient.
const OF_US =
  /\brelay|\bsender\b|\bspam|\bblock(?:ed|list)|black-?list|deny-?list|\breputation|\bpolicy\b|\bspf\b|\bdkim\b|\bdmarc\b|authenticat|\b[he]h?elo\b|\breverse dns\b|\b(?:dns|r)bl\b|\btoo many\b|\brate\b/i

/**
 * @param enhanced `5.1.1` (RFC 3463), of class 5; the IANA registry of enhanced codes names the details
 * @param reply of three digits (RFC 5321 §4.2), for where there is no enhanced code, or one that says nothing (`5.0.0`)
 */
export function mailBlame(enhanced: string | undefined, reply: number | undefined, words: string): MailBlame {
  const [, subject, detail] = enhanced?.split('.') ?? []
  switch (subject) {
    case '1':
      if (detail === '7' || detail === '8') return 'sender'
      // "Other address status": which of the two addresses only the words tell.
      return detail === '0' && OF_US.test(words) ? 'sender' : 'address'
    case '2':
      if (detail === '2') return 'full'
      return detail === '3' ? 'size' : 'address'
    case '3':
      return detail === '4' ? 'size' : 'system'
    case '4':
      // 1: nobody answers for the host; 4: there is no way to it. Exchange says 1 of mailboxes it does not have.
      if (detail !== '1' && detail !== '4') return 'system'
      return OF_US.test(words) ? 'policy' : 'nowhere'
    case '6':
      return 'content'
    case '5':
    case '7':
      return 'policy'
    default:
      // 552 and 554 are also said of a message, the others of the mailbox.
      return reply === 552 || reply === 554 || OF_US.test(words) ? 'policy' : 'address'
  }
}
