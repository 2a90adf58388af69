// The columns of a heat map, merged where they have few connections.

const ENOUGH = 20; // connections of a column, on average
const MERGES = [1, 2, 3, 6, 12];

// A quantile of counts by row, to within a row; null if there is no count.
function quantile(counts, total, share, upper, growth) {
  let left = share * total;
  for (let r = 0; r < counts.length; r++) {
    if (counts[r] && left <= counts[r]) return upper[r] * growth ** (left / counts[r] - 1);
    left -= counts[r];
  }
  return null;
}

// Columns as {begin, end, total, p50, p99, counts}: so few that a quiet backend is more than noise.
export function readable({ columns, schema, upper }) {
  const { end, seconds, total, p50, p99, counts } = columns;
  const average = total.reduce((sum, each) => sum + each, 0) / total.length;
  const merge = MERGES.find((each) => each * average >= ENOUGH) ?? MERGES.at(-1);
  const each = end.map((until, c) => ({
    begin: until - seconds[c],
    end: until,
    total: total[c],
    p50: p50[c],
    p99: p99[c],
    counts: counts[c],
  }));
  if (merge === 1 || !average) return each;
  const length = merge * Math.max(...seconds); // in time, so that a column stays what it is
  const growth = 2 ** (2 ** -schema);
  const merged = new Map();
  for (const column of each) {
    const at = Math.floor((column.begin + column.end) / 2 / length);
    const found = merged.get(at);
    if (!found) {
      merged.set(at, { ...column, counts: [...column.counts] });
      continue;
    }
    found.end = column.end;
    found.total += column.total;
    column.counts.forEach((count, r) => {
      found.counts[r] += count;
    });
  }
  for (const column of merged.values()) {
    column.p50 = quantile(column.counts, column.total, 0.5, upper, growth);
    column.p99 = quantile(column.counts, column.total, 0.99, upper, growth);
  }
  return [...merged.values()];
}
