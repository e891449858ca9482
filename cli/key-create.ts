import { createClient } from './client.ts'
import { type Command, REMOTE, readTime } from './command.ts'
import { complain, print, printJson } from './print.ts'

export const command: Command = {
  name: 'key create',
  summary: 'Make an API key',
  about:
    'The key is printed this once, alone on standard output, so that it can be caught: KEY=$(carillon key create …)',
  args: '<name>',
  arity: { min: 1, max: 1 },
  options: {
    role: { value: 'ROLE', about: 'service (the default) or admin' },
    scope: {
      value: 'SCOPE',
      about: 'Such as events:write; without any, the key may do whatever its role may',
      multiple: true,
    },
    expires: { value: 'TIME', about: 'When it stops working. Default: never' },
    ...REMOTE,
  },
  examples: [
    'carillon key create shop --scope events:write',
    'carillon key create laptop --role admin --expires 2027-01-01',
  ],
  async run(input) {
    const expiresAt = readTime(input.text('expires'), 'expires')
    const scopes = input.list('scope')
    const made = await createClient(input).post<{ key: string; name: string; role: string; id: string }>(
      '/api/keys',
      {
        name: input.args[0],
        role: input.choice('role', ['service', 'admin']) ?? 'service',
        ...(scopes.length === 0 ? {} : { scopes }),
        ...(expiresAt === undefined ? {} : { expiresAt }),
      },
    )
    if (input.json) return printJson(made)
    complain(`Key "${made.name}" (${made.role}, ${made.id}). It is shown this once:`)
    print(made.key)
  },
}
