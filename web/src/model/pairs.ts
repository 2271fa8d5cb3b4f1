// Numbers for pairs (parent, location).

/**
 * Most nodes of large trees are an only child, so the first child of each parent is kept with it, where
 * a stack's next frame is beside the last one in memory. The others are in open addressing.
 */
export class PairTable {
  /** By parent; zero is none. */
  private readonly firsts: Int32Array;
  /** Numbers; zero is an empty slot. */
  private readonly slots: Int32Array;
  private readonly mask: number;
  private readonly parents: Int32Array;
  private readonly locations: Int32Array;

  /**
   * The pairs by their numbers, which whoever asks for fresh ones writes there; all parents are below
   * `parentsEnd`.
   */
  constructor(parents: Int32Array, locations: Int32Array, parentsEnd = parents.length) {
    let capacity = 1024;
    while (capacity < parents.length * 2) capacity *= 2;
    this.mask = capacity - 1;
    this.firsts = new Int32Array(parentsEnd);
    this.slots = new Int32Array(capacity);
    this.parents = parents;
    this.locations = locations;
  }

  /** The number of the pair, or -1 after noting `fresh` as its number, if that is above zero. */
  lookUp(parent: number, location: number, fresh: number): number {
    const first = this.firsts[parent]!;
    if (first === 0) {
      if (fresh > 0) this.firsts[parent] = fresh;
      return -1;
    }
    if (this.locations[first] === location) return first;
    let slot = mix(parent, location) & this.mask;
    for (let found = this.slots[slot]!; found !== 0; found = this.slots[slot]!) {
      if (this.parents[found] === parent && this.locations[found] === location) return found;
      slot = (slot + 1) & this.mask;
    }
    if (fresh > 0) this.slots[slot] = fresh;
    return -1;
  }
}

function mix(parent: number, location: number): number {
  let hash = Math.imul(parent, 0x9e3779b1) ^ Math.imul(location + 0x7f4a7c15, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
  return (hash ^ (hash >>> 13)) >>> 0;
}
