// Searching among numbers that ascend.

/** The first index whose value is not below `wanted`. */
export function lowerBound(values: Float64Array, wanted: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle]! < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The first index whose value is above `wanted`. */
export function upperBound(values: Float64Array, wanted: number): number {
  let at = lowerBound(values, wanted);
  while (at < values.length && values[at] === wanted) at += 1;
  return at;
}
