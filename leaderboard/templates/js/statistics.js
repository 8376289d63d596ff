"use strict";
// Comparing two systems by their bootstrap replicates: the same as leaderboard.statistics.compare and holm.

const statistics = (() => {
  const Z = 1.959963984540054;

  /** The standard normal distribution function, by the continued fraction and series of Abramowitz and Stegun 26.2. */
  function tail(x) {
    if (x < 3) {
      let [term, sum] = [x, x];
      for (let n = 1; Math.abs(term) > 1e-17 && n < 200; n++) sum += term = (term * x * x) / (2 * n + 1);
      return 0.5 - (sum * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
    }
    let fraction = 0;
    for (let n = 60; n > 0; n--) fraction = n / (x + fraction);
    return Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI) / (x + fraction);
  }

  /** The signed bytes of a row, [keys x resamples]. */
  function bytes(row) {
    row.bytes ??= Int8Array.from(atob(row.values), (letter) => letter.charCodeAt(0));
    return row.bytes;
  }

  /** { difference, low, high, win, p } of two rows in one key; null where one of them lacks it. */
  function compare(a, b, key) {
    if (a.score[key] === null || b.score[key] === null) return null;
    const n = Math.min(a.resamples, b.resamples);
    const [left, right] = [bytes(a), bytes(b)];
    const difference = a.score[key] - b.score[key];
    const spread = new Float64Array(n);
    let [sum, wins] = [0, 0];
    for (let i = 0; i < n; i++) {
      const x = difference + a.scale[key] * left[key * a.resamples + i] - b.scale[key] * right[key * b.resamples + i];
      spread[i] = x;
      sum += x;
      wins += x > 0 ? 1 : x === 0 ? 0.5 : 0;
    }
    const mean = sum / n;
    const error = Math.sqrt(spread.reduce((total, x) => total + (x - mean) ** 2, 0) / (n - 1));
    const p = error === 0 ? Number(difference === 0) : 2 * tail(Math.abs(difference) / error);
    return { difference, low: difference - Z * error, high: difference + Z * error, win: wins / n, p };
  }

  /** p-values of a family, adjusted by Holm's method. */
  function holm(p) {
    const order = p.map((_, at) => at).sort((a, b) => p[a] - p[b]);
    const adjusted = new Array(p.length);
    let most = 0;
    order.forEach((at, j) => {
      most = Math.max(most, Math.min(1, (p.length - j) * p[at]));
      adjusted[at] = most;
    });
    return adjusted;
  }

  return { compare, holm, tail };
})();
