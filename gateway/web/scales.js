/** Round axis values and times for charts. Pure. */

const STEPS = [1, 2, 2.5, 5, 10];

/** Return approximately `about` round values within [low, high]. */
export function ticksOf(low, high, about) {
  const rough = (high - low) / about;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = STEPS.map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const ticks = [];
  for (let index = Math.ceil(low / step); index * step <= high; index += 1) ticks.push(index * step);
  return ticks;
}

/** Return the lowest and highest price of the candles, with a margin. */
export function rangeOf(candles) {
  const low = Math.min(...candles.map((candle) => candle.low));
  const high = Math.max(...candles.map((candle) => candle.high));
  const air = (high - low || high * 0.001) * 0.08;
  return [low - air, high + air];
}
