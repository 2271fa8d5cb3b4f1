// The tree of the page and its sums. All files of this directory are put into one function, in the
// order in which `flamegraph.rs` names them: plain JavaScript, no library, no network.
//
// The data are struct-of-arrays. A parent always has a smaller index than its children, so sums go
// through the arrays backwards and places forwards, without recursion however deep the stacks are.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);

// ---------------------------------------------------------------- numbers for people

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
function bytesText(bytes) {
  let power = 0;
  while (power < UNITS.length - 1 && bytes >= (power === 0 ? 1024 : 999.5)) {
    bytes /= 1024;
    power += 1;
  }
  const decimals = power === 0 ? 0 : bytes < 9.995 ? 2 : bytes < 99.95 ? 1 : 0;
  return bytes.toFixed(decimals) + " " + UNITS[power];
}
const countText = (count) => count.toLocaleString("en-US");
const shareText = (part, whole) => (whole > 0 ? (part * 100) / whole : 0).toFixed(1) + "%";
const blocksText = (count) => countText(count) + (count === 1 ? " block" : " blocks");

// ---------------------------------------------------------------- the tree

const parents = Int32Array.from(data.nodes.parent);
const locations = Int32Array.from(data.nodes.location);
const size = parents.length;
const functionOf = (node) =>
  node === 0 ? "all" : data.strings[data.locations.function[locations[node]]];
function placeOf(node) {
  if (node === 0) return "";
  const line = data.locations.line[locations[node]];
  const file = data.strings[data.locations.file[locations[node]]];
  return line > 0 ? file + ":" + line : file;
}

const depths = new Int32Array(size);
for (let node = 1; node < size; node++) depths[node] = depths[parents[node]] + 1;

// Children of all nodes in one array; those of `node` are at firstChild[node] .. firstChild[node + 1].
const firstChild = new Int32Array(size + 1);
for (let node = 1; node < size; node++) firstChild[parents[node] + 1] += 1;
for (let node = 0; node < size; node++) firstChild[node + 1] += firstChild[node];

function makeLayout(metric) {
  const bytes = Float64Array.from(data.nodes[metric + "_bytes"]);
  const counts = Float64Array.from(data.nodes[metric + "_count"]);
  const ownBytes = bytes.slice();
  for (let node = size - 1; node > 0; node--) {
    bytes[parents[node]] += bytes[node];
    counts[parents[node]] += counts[node];
  }
  const children = new Int32Array(Math.max(size - 1, 0));
  const next = firstChild.slice();
  for (let node = 1; node < size; node++) children[next[parents[node]]++] = node;
  // The largest first: drawing stops at the first child that is too small to be seen.
  const starts = new Float64Array(size);
  for (let node = 0; node < size; node++) {
    const list = children.subarray(firstChild[node], firstChild[node + 1]);
    if (list.length > 1) list.sort((left, right) => bytes[right] - bytes[left] || left - right);
    let start = starts[node];
    for (const child of list) {
      starts[child] = start;
      start += bytes[child];
    }
  }
  let deepest = 0;
  for (let node = 0; node < size; node++) if (bytes[node] > 0) deepest = Math.max(deepest, depths[node]);
  return { bytes, counts, ownBytes, children, starts, deepest };
}

const layouts = {};
const layoutOf = (metric) => (layouts[metric] ??= makeLayout(metric));
const hasBytes = (metric) => data.nodes[metric + "_bytes"].some((bytes) => bytes > 0);
