// What is shown, and how it is drawn.

// ---------------------------------------------------------------- state

const ROW = 19;
const SMALLEST = 0.5;
const state = {
  metric: data.metric,
  zoom: 0,
  selected: -1,
  hovered: -1,
  flame: false,
  matches: null,
  dark: false,
};
let layout = layoutOf(state.metric);
/** Boxes of the last drawing, by row: [left, right, node] in ascending order, for hit tests. */
let rows = [];

const canvas = element("graph");
const context = canvas.getContext("2d");
const scroll = element("scroll");
const spacer = element("spacer");

// ---------------------------------------------------------------- colours

/** A hue per file, so that neighbours of one module look alike. */
const hues = data.strings.map((text) => {
  let hash = 2166136261;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 16777619);
  }
  return (hash >>> 0) % 360;
});
const colorCache = new Map();
function colorOf(node) {
  const location = locations[node];
  const key = node === 0 ? -1 : location;
  let color = colorCache.get(key);
  if (color === undefined) {
    const hue = node === 0 ? 0 : hues[data.locations.file[location]];
    const shade = node === 0 ? 0 : hues[data.locations.function[location]] % 9;
    const saturation = node === 0 ? 0 : 46;
    const lightness = state.dark ? 27 + shade : 70 + shade;
    color = "hsl(" + hue + " " + saturation + "% " + lightness + "%)";
    colorCache.set(key, color);
  }
  return color;
}
let theme = {};
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  theme = {
    page: value("--page"), text: value("--text"), muted: value("--muted"), line: value("--line"),
    accent: value("--accent"), match: value("--match"), resident: value("--resident"),
    heap: value("--heap"), bad: value("--bad"),
  };
  colorCache.clear();
}

// ---------------------------------------------------------------- drawing

const FONT = '12px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';
let characterWidth = 7.2;

function pathTo(node) {
  const path = [];
  for (let at = node; at !== 0; at = parents[at]) path.push(at);
  path.push(0);
  return path.reverse();
}

/** Deepest row below the zoomed node that has a box wide enough to be seen, and all those boxes. */
function visibleBoxes(width) {
  const zoom = state.zoom;
  const scale = width / (layout.bytes[zoom] || 1);
  const origin = layout.starts[zoom];
  const boxes = [];
  for (const node of pathTo(zoom)) boxes.push([node, 0, width]);
  const pending = [zoom];
  while (pending.length > 0) {
    const node = pending.pop();
    for (let index = firstChild[node]; index < firstChild[node + 1]; index++) {
      const child = layout.children[index];
      const boxWidth = layout.bytes[child] * scale;
      if (boxWidth < SMALLEST) break;
      boxes.push([child, (layout.starts[child] - origin) * scale, boxWidth]);
      pending.push(child);
    }
  }
  return boxes;
}

let frameRequested = false;
function requestDraw() {
  if (frameRequested) return;
  frameRequested = true;
  requestAnimationFrame(() => {
    frameRequested = false;
    draw();
  });
}

/** What can be seen changes with zoom, metric and width only; scrolling and hovering draw it again. */
let boxesCache = { key: "", boxes: [], deepest: 0 };
function currentBoxes(width) {
  const key = state.metric + " " + state.zoom + " " + width;
  if (boxesCache.key !== key) {
    const boxes = visibleBoxes(width);
    let deepest = 0;
    for (const [node] of boxes) deepest = Math.max(deepest, depths[node]);
    boxesCache = { key, boxes, deepest };
  }
  return boxesCache;
}

function draw() {
  const width = scroll.clientWidth;
  const height = scroll.clientHeight;
  if (width === 0 || height === 0) return;
  const { boxes, deepest } = currentBoxes(width);
  const rowCount = deepest + 1;
  spacer.style.height = Math.max(rowCount * ROW, height) + "px";
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = height + "px";
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = theme.page;
  context.fillRect(0, 0, width, height);
  context.font = FONT;
  context.textBaseline = "middle";
  const top = scroll.scrollTop;
  // In a flame the outermost row is at the bottom of whatever is taller: the graph or the screen.
  const bottom = Math.max(rowCount * ROW, height);
  const yOf = (depth) => (state.flame ? bottom - (depth + 1) * ROW : depth * ROW) - top;
  rows = [];
  for (const [node, left, boxWidth] of boxes) {
    const depth = depths[node];
    const y = yOf(depth);
    if (y + ROW < 0 || y > height) continue;
    (rows[depth] ??= []).push([left, left + boxWidth, node]);
    drawBox(node, left, y, boxWidth);
  }
  for (const row of rows) if (row) row.sort((one, other) => one[0] - other[0]);
}

function drawBox(node, left, y, width) {
  const matched = state.matches !== null && state.matches[locations[node]] === 1 && node !== 0;
  const above = depths[node] < depths[state.zoom];
  const gap = width > 3 ? 1 : 0;
  context.globalAlpha = above || (state.matches !== null && !matched) ? 0.45 : 1;
  context.fillStyle = matched ? theme.match : colorOf(node);
  context.fillRect(left, y, width - gap, ROW - 1);
  context.globalAlpha = 1;
  if (node === state.hovered || node === state.selected) {
    context.strokeStyle = node === state.selected ? theme.accent : theme.text;
    context.lineWidth = node === state.selected ? 2 : 1;
    context.strokeRect(left + 0.5, y + 0.5, Math.max(width - gap - 1, 1), ROW - 2);
  }
  const room = Math.floor((width - 8) / characterWidth);
  if (room < 3) return;
  let label = node === 0 ? rootLabel() : functionOf(node);
  const place = placeOf(node);
  const short = place.slice(place.lastIndexOf("/") + 1);
  if (node !== 0 && label.length + short.length + 2 <= room) label += "  " + short;
  if (label.length > room) label = label.slice(0, room - 1) + "…";
  context.fillStyle = matched ? (state.dark ? "#1a1014" : "#ffffff") : theme.text;
  context.fillText(label, left + 4, y + ROW / 2);
}

function rootLabel() {
  return "all  " + bytesText(layout.bytes[0]) + " " + METRIC_WORDS[state.metric];
}

const METRIC_WORDS = { peak: "at the peak", live: data.live_words };

function nodeAt(event) {
  const bounds = canvas.getBoundingClientRect();
  const x = event.clientX - bounds.left;
  const y = event.clientY - bounds.top + scroll.scrollTop;
  const bottom = Math.max((currentBoxes(scroll.clientWidth).deepest + 1) * ROW, scroll.clientHeight);
  const depth = Math.floor((state.flame ? bottom - y : y) / ROW);
  const row = rows[depth];
  if (!row) return -1;
  let low = 0;
  let high = row.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (x < row[middle][0]) high = middle - 1;
    else if (x >= row[middle][1]) low = middle + 1;
    else return row[middle][2];
  }
  return -1;
}
