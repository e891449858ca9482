import { Type } from 'typebox'
import { CHANNELS } from '../types.ts'
import { PREFERENCE_CLASSES } from './policy.ts'
import { ScheduleField } from './schedule-routes.ts'

/**
 * The policy of a rule for editors and generators: names, types and bounds. Whether it makes sense as a whole, and
 * whether its expressions compile, `rulePolicy` says, here and on the server.
 */
const closed = { additionalProperties: false }
const MONTH = 31 * 86_400
const maybe = Type.Optional
const seconds = (maximum: number, description: string) => Type.Integer({ minimum: 1, maximum, description })
const Key = (description: string) =>
  Type.Array(Type.String({ minLength: 1, maxLength: 1_024 }), { maxItems: 5, description })
const TimeOfDay = Type.String({ pattern: '^(?:[01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$', description: 'HH:MM' })
const ChannelNames = Type.Array(Type.Enum([...CHANNELS]), { maxItems: CHANNELS.length })

export const PolicySchema = Type.Object(
  {
    class: maybe(
      Type.Enum([...PREFERENCE_CLASSES], { description: 'Of preferences. Default: by category.' }),
    ),
    scopes: maybe(Key('Further scopes of preferences, such as aura:<id>; a CEL value each.')),
    thread: maybe(
      Type.String({
        minLength: 1,
        maxLength: 1_024,
        description:
          'What its messages belong to, such as "order:" + data.id; a CEL value, at most 200 characters.',
      }),
    ),
    score: maybe(
      Type.Integer({ minimum: 1, maximum: 10, description: 'Held against the reader’s threshold.' }),
    ),
    quietHours: maybe(Type.Enum(['respect', 'ignore', 'in_app'])),
    deliveryWindows: maybe(
      Type.Array(
        Type.Object(
          {
            start: TimeOfDay,
            end: TimeOfDay,
            timezone: maybe(Type.String({ description: 'IANA name. Default: the reader’s.' })),
            weekdays: maybe(
              Type.Array(Type.Integer({ minimum: 1, maximum: 7 }), { description: '1 is Monday.' }),
            ),
          },
          closed,
        ),
      ),
    ),
    cooldown: maybe(
      Type.Object(
        {
          seconds: maybe(seconds(366 * 86_400, 'Without this and a period: once for ever.')),
          period: maybe(Type.Enum(['hour', 'day', 'week', 'month'])),
          key: maybe(Key('What is told of once, beside the reader.')),
          per: maybe(Type.Enum(['recipient', 'rule'])),
        },
        closed,
      ),
    ),
    repeat: maybe(
      Type.Object({ seconds: seconds(MONTH, 'The same text is sent once in this time.') }, closed),
    ),
    similar: maybe(
      Type.Object(
        {
          seconds: maybe(seconds(86_400, 'Default 1800.')),
          threshold: maybe(Type.Number({ exclusiveMinimum: 0, maximum: 1 })),
        },
        closed,
      ),
    ),
    digest: maybe(
      Type.Object(
        {
          key: maybe(Key('What divides further than reader, channel and rule.')),
          windowSeconds: maybe(seconds(MONTH, 'Closes so long after the first item.')),
          quietSeconds: maybe(seconds(MONTH, 'Closes when nothing came for so long.')),
          schedule: maybe(ScheduleField),
          maxItems: maybe(Type.Integer({ minimum: 1, maximum: 1_000 })),
          retain: maybe(Type.Enum(['all', 'first', 'last', 'highest'])),
          single: maybe(Type.Enum(['release', 'digest'])),
          channels: maybe(ChannelNames),
          template: maybe(Type.String({ minLength: 1, maxLength: 255, description: 'Id or name.' })),
        },
        closed,
      ),
    ),
    group: maybe(
      Type.Object(
        {
          by: Key('Alerts with equal values go together.'),
          waitSeconds: maybe(Type.Integer({ minimum: 0, maximum: 86_400, description: 'Default 30.' })),
          intervalSeconds: maybe(seconds(MONTH, 'Default 300.')),
          repeatSeconds: maybe(seconds(MONTH, 'Told again while it fires. Default: never.')),
        },
        closed,
      ),
    ),
    state: maybe(
      Type.Object(
        {
          key: Type.Array(Type.String({ minLength: 1, maxLength: 1_024 }), { minItems: 1, maxItems: 5 }),
          resolved: maybe(
            Type.String({ minLength: 1, maxLength: 1_024, description: 'CEL: true when over.' }),
          ),
          earlier: maybe(Type.Enum(['update', 'retract', 'keep'])),
        },
        closed,
      ),
    ),
    escalation: maybe(
      Type.Array(
        Type.Object(
          {
            afterSeconds: seconds(MONTH, 'After it was told.'),
            unless: Type.Enum(['delivered', 'seen', 'read', 'clicked', 'acknowledged']),
            channels: Type.Array(Type.Enum([...CHANNELS]), { minItems: 1, maxItems: CHANNELS.length }),
            users: maybe(Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { maxItems: 100 })),
          },
          closed,
        ),
        { maxItems: 10 },
      ),
    ),
  },
  { ...closed, description: 'How the rule tells: when again, together with what, and what follows.' },
)
