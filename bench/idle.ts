import { machine, median, table } from './machine.ts'
import { bench, benchServer } from './server.ts'

/** node bench/idle.ts: what a server costs that has nothing to do. PostgreSQL is counted apart. */
const SECONDS = 30

await bench(5, async () => {
  const server = await benchServer()
  console.log(machine())
  // Start-up is over once the first rounds of house-keeping are.
  await new Promise(resolve => setTimeout(resolve, 10_000))
  const sizes: number[] = []
  const before = server.cpu()
  for (let second = 0; second < SECONDS; second++) {
    await new Promise(resolve => setTimeout(resolve, 1000))
    sizes.push(server.rss())
  }
  const after = server.cpu()
  const percent = (used: number) => `${((100 * used) / SECONDS).toFixed(1)} %`
  console.log(
    table(
      ['idle for 30 s', ''],
      [
        ['resident memory of the server, median', `${median(sizes).toFixed(0)} MB`],
        ['CPU of the server', percent(after.node - before.node)],
        ['CPU of PostgreSQL', percent(after.postgres - before.postgres)],
      ],
    ),
  )
})
