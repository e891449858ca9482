import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mailBlame } from './mail-reply.ts'

// covers: DIC-103
test('what a mail server refuses is the address only where nothing else can be meant', () => {
  const cases: [enhanced: string | undefined, reply: number | undefined, words: string, blame: string][] = [
    ['5.1.1', 550, 'user unknown', 'address'],
    ['5.1.2', 550, 'bad destination system', 'address'],
    ['5.1.10', 556, 'null MX', 'address'],
    ['5.2.1', 550, 'mailbox disabled', 'address'],
    ['5.4.4', 550, 'host not found', 'nowhere'],
    ['5.4.1', 550, 'Recipient address rejected: Access denied', 'nowhere'],
    ['5.0.0', 550, 'no such user here', 'address'],
    [undefined, 550, 'No such person at this address', 'address'],
    [undefined, 553, 'sorry, that address is not in my list of allowed recipients', 'address'],
    [undefined, undefined, '', 'address'],
    ['5.2.2', 552, 'over quota', 'full'],
    ['5.2.3', 552, 'message length exceeds administrative limit', 'size'],
    ['5.3.4', 552, 'message too big', 'size'],
    ['5.6.0', 554, 'malformed', 'content'],
    // What Postfix says at RCPT TO, of whomever we write to, when it cannot find our own domain.
    ['5.1.8', 450, '<noreply@shop.example>: Sender address rejected: Domain not found', 'sender'],
    ['5.1.7', 553, 'bad sender mailbox syntax', 'sender'],
    ['5.1.0', 553, 'Sender address rejected: not owned by user', 'sender'],
    ['5.1.0', 550, 'Address rejected', 'address'],
    ['5.4.1', 550, 'Relay access denied', 'policy'],
    ['5.5.1', 550, 'protocol error', 'policy'],
    ['5.7.1', 554, 'Relay access denied', 'policy'],
    ['5.7.26', 550, 'unauthenticated', 'policy'],
    ['5.3.2', 550, 'system not accepting messages', 'system'],
    ['5.4.6', 550, 'routing loop', 'system'],
    ['5.0.0', 550, 'relay not permitted', 'policy'],
    [undefined, 550, 'relay not permitted', 'policy'],
    [undefined, 550, 'Sender verify failed', 'policy'],
    [undefined, 550, 'Host is blacklisted at bl.example.org', 'policy'],
    [undefined, 550, 'rejected by local policy', 'policy'],
    [undefined, 550, 'Access denied - invalid HELO name', 'policy'],
    [undefined, 554, 'go away', 'policy'],
  ]
  for (const [enhanced, reply, words, blame] of cases) {
    assert.equal(mailBlame(enhanced, reply, words), blame, `${reply} ${enhanced} ${words}`)
  }
})
