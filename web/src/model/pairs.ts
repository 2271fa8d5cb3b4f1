// Numbers for pairs (parent, location).

/**
 * Most nodes of large trees are an only child, so the first child of each parent is kept with it, where
 * a stack's next frame is beside the last one in memory. The others are in open addressing.
 */
export class PairTable {
  private readonly firsts: Int32Array;
  private readonly firstLocations: Int32Array;
  /** One more than the pair as a number; zero is an empty slot. */
  private readonly keys: Float64Array;
  private readonly values: Int32Array;
  private readonly mask: number;

  /** For at most `most` pairs, whose parents are below that. */
  constructor(most: number) {
    let capacity = 1024;
    while (capacity < most * 2) capacity *= 2;
    this.mask = capacity - 1;
    this.firsts = new Int32Array(most);
    this.firstLocations = new Int32Array(most);
    this.keys = new Float64Array(capacity);
    this.values = new Int32Array(capacity);
  }

  /** The number of the pair, or -1 after noting `fresh` as its number, if that is above zero. */
  lookUp(parent: number, location: number, locations: number, fresh: number): number {
    const first = this.firsts[parent]!;
    if (first === 0) {
      if (fresh > 0) {
        this.firsts[parent] = fresh;
        this.firstLocations[parent] = location;
      }
      return -1;
    }
    if (this.firstLocations[parent] === location) return first;
    const key = parent * locations + location + 1;
    let slot = mix(parent, location) & this.mask;
    for (let found = this.keys[slot]!; found !== 0; found = this.keys[slot]!) {
      if (found === key) return this.values[slot]!;
      slot = (slot + 1) & this.mask;
    }
    if (fresh > 0) {
      this.keys[slot] = key;
      this.values[slot] = fresh;
    }
    return -1;
  }
}

function mix(parent: number, location: number): number {
  let hash = Math.imul(parent, 0x9e3779b1) ^ Math.imul(location + 0x7f4a7c15, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
  return (hash ^ (hash >>> 13)) >>> 0;
}
