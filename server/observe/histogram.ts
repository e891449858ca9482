import type { Metric, Registry } from 'prom-client'

/** A histogram that takes a value once for many observations, so that a batch costs one call. */
export interface Histogram {
  observe(labels: readonly string[], value: number, n?: number): void
}

interface Series {
  /** Per bucket, not cumulated; the last is +Inf. */
  counts: Float64Array
  sum: number
}

/**
 * prom-client's own histogram takes one observation at a time. This one registers under the same registry and is
 * exposed in the same form: https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export function histogram(
  registry: Registry,
  about: { name: string; help: string; labels: readonly string[]; buckets: readonly number[] },
): Histogram {
  const { name, help, labels, buckets } = about
  const series = new Map<string, Series>()

  const metric = {
    name,
    help,
    type: 'histogram',
    aggregator: 'sum',
    reset: () => series.clear(),
    async get() {
      const values: { metricName: string; labels: Record<string, string>; value: number }[] = []
      for (const [key, { counts, sum }] of series) {
        const own = Object.fromEntries(labels.map((label, i) => [label, key.split('\0')[i]!]))
        let count = 0
        for (let i = 0; i < counts.length; i++) {
          count += counts[i]!
          const le = i < buckets.length ? String(buckets[i]) : '+Inf'
          values.push({ metricName: `${name}_bucket`, labels: { ...own, le }, value: count })
        }
        values.push({ metricName: `${name}_sum`, labels: own, value: sum })
        values.push({ metricName: `${name}_count`, labels: own, value: count })
      }
      return { name, help, type: 'histogram', aggregator: 'sum', values }
    },
  }
  // The registry asks of a metric no more than this; the declared type names prom-client's own classes.
  registry.registerMetric(metric as unknown as Metric)

  return {
    observe(values, value, n = 1) {
      if (!(n > 0) || !Number.isFinite(value)) return
      const key = values.join('\0')
      let own = series.get(key)
      if (own === undefined) {
        series.set(key, (own = { counts: new Float64Array(buckets.length + 1), sum: 0 }))
      }
      let i = 0
      while (i < buckets.length && value > buckets[i]!) i++
      own.counts[i]! += n
      own.sum += value * n
    },
  }
}
