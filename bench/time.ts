/**
 * What a decision pays for local time, on one core.
 *
 *   node bench/time.ts
 *
 * Each question is asked at instants four seconds apart, so that hours, days and changes of clocks take their turn, in
 * five zones. Beside the tables of server/time/zone.ts stands what they replace: asking Intl each time. The table
 * shows medians of 5 runs.
 */
import { openAt } from '../server/time/delivery-window.ts'
import { quietUntil } from '../server/time/quiet-hours.ts'
import { nextTime } from '../server/time/schedule.ts'
import { windowOf } from '../server/time/window.ts'
import { figure, machine, median, table } from './machine.ts'

const RUNS = 5
const QUESTIONS = 1_000_000
const GOAL = 1_000_000
const START = Date.UTC(2026, 8, 1)
const ZONES = ['Europe/Berlin', 'America/New_York', 'Asia/Kolkata', 'Australia/Lord_Howe', 'UTC']
const zoneOf = (i: number) => ZONES[i % ZONES.length]!

const night = { enabled: true, start: '22:00', end: '07:00' }
const weekdays = { ...night, weekdays: [1, 2, 3, 4, 5] }
const office = [{ start: '09:00', end: '17:00', weekdays: [1, 2, 3, 4, 5] }]
const formats = ZONES.map(
  timeZone => new Intl.DateTimeFormat('en-GB', { timeZone, hour: '2-digit', minute: '2-digit' }),
)

const questions: [name: string, count: number, ask: (ms: number, i: number) => unknown][] = [
  ['quiet hours', QUESTIONS, (ms, i) => quietUntil(new Date(ms), night, zoneOf(i))],
  ['quiet hours on weekdays', QUESTIONS, (ms, i) => quietUntil(new Date(ms), weekdays, zoneOf(i))],
  ['delivery window', QUESTIONS, (ms, i) => openAt(new Date(ms), office, zoneOf(i))],
  ['day of a limit', QUESTIONS, (ms, i) => windowOf('day', zoneOf(i), ms)],
  ['month of a limit', QUESTIONS, (ms, i) => windowOf('month', zoneOf(i), ms)],
  [
    'next of a daily schedule',
    QUESTIONS,
    (ms, i) => nextTime({ daily: '09:00', timezone: zoneOf(i), anchorMs: 0 }, new Date(ms)),
  ],
  [
    'next of a cron pattern, zones in turn',
    QUESTIONS / 10,
    (ms, i) => nextTime({ cron: '*/20 8-18 * * 1-5', timezone: zoneOf(i), anchorMs: 0 }, new Date(ms)),
  ],
  [
    'for comparison: hour and minute of Intl',
    QUESTIONS / 10,
    (ms, i) => formats[i % ZONES.length]!.format(ms),
  ],
]

let kept = 0
function rate(count: number, ask: (ms: number, i: number) => unknown): number {
  const from = performance.now()
  for (let i = 0; i < count; i++) if (ask(START + i * 4_000, i) !== null) kept++
  return (count / (performance.now() - from)) * 1_000
}

const rows = questions.map(([name, count, ask]) => {
  rate(count / 10, ask)
  return [name, figure(median(Array.from({ length: RUNS }, () => rate(count, ask))))]
})
console.log(machine())
console.log(`\n${table(['question', 'a second'], rows)}\n`)
const quiet = Number(rows[0]![1]!.replaceAll(',', ''))
console.log(
  `Goal: quiet hours ${figure(GOAL)} a second. ${quiet >= GOAL ? 'Met' : 'Missed'}. (${kept} answers)`,
)
