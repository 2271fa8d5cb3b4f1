// What all trees that can be shown have, whichever way around they are.

export type Unit = "bytes" | "blocks";

/** Amounts by node of the page. */
export interface Own {
  bytes: Float64Array;
  counts: Float64Array;
}

/** Nodes and their places, without amounts. */
export interface Topology {
  readonly parents: Int32Array;
  readonly locations: Int32Array;
  /** A node of the page that stands for the node: itself, or a leaf whose way leads here. */
  readonly origins: Int32Array;
}

/** Arrays by node, or longer; node 0 is the root, and a parent has a smaller number than its children. */
export interface Nodes extends Topology {
  readonly size: number;
  readonly depths: Int32Array;
  readonly ownBytes: Float64Array;
  readonly bytes: Float64Array;
  readonly counts: Float64Array;
  /** What widths are made of: `bytes` or `counts`. */
  readonly weights: Float64Array;
}

/** The order of children: equals as their stacks are in the page. */
export const heaviestFirst = ({ weights }: Nodes) => (left: number, right: number) =>
  weights[right]! - weights[left]! || left - right;
