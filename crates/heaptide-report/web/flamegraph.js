"use strict";
// The flame graph of heaptide: plain JavaScript, no library, no network.
//
// The data are struct-of-arrays. A parent always has a smaller index than its children, so sums go
// through the arrays backwards and places forwards, without recursion however deep the stacks are.
(() => {
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

  // ---------------------------------------------------------------- words about a frame

  function detailText(node) {
    const whole = layout.bytes[0];
    return (
      functionOf(node) + "  " + placeOf(node) + "   " + bytesText(layout.bytes[node]) + " (" +
      shareText(layout.bytes[node], whole) + "), " + blocksText(layout.counts[node])
    );
  }

  const tooltip = element("tooltip");
  function showTooltip(node, x, y) {
    tooltip.replaceChildren();
    const add = (tag, text, className) => {
      const child = document.createElement(tag);
      child.textContent = text;
      if (className) child.className = className;
      tooltip.append(child);
      return child;
    };
    add("b", functionOf(node));
    if (node !== 0) add("div", placeOf(node), "place");
    const table = add("table", "");
    const row = (name, value, share) => {
      const line = table.insertRow();
      for (const text of [name, value, share]) line.insertCell().textContent = text;
    };
    const whole = layout.bytes[0];
    row("total", bytesText(layout.bytes[node]), shareText(layout.bytes[node], whole));
    row("own", bytesText(layout.ownBytes[node]), shareText(layout.ownBytes[node], whole));
    row("blocks", countText(layout.counts[node]), shareText(layout.counts[node], layout.counts[0]));
    if (state.zoom !== 0) row("of zoomed", "", shareText(layout.bytes[node], layout.bytes[state.zoom]));
    tooltip.hidden = false;
    const left = Math.min(x + 14, window.innerWidth - tooltip.offsetWidth - 8);
    const below = y + 18 + tooltip.offsetHeight < window.innerHeight;
    tooltip.style.left = Math.max(left, 4) + "px";
    tooltip.style.top = (below ? y + 18 : Math.max(y - tooltip.offsetHeight - 10, 4)) + "px";
  }

  function showDetail() {
    const node = state.hovered >= 0 ? state.hovered : state.selected;
    element("detail").textContent = detailText(node >= 0 ? node : state.zoom);
  }

  // ---------------------------------------------------------------- changes of the state

  function zoomTo(node, remember = true) {
    state.zoom = layout.bytes[node] > 0 ? node : 0;
    state.hovered = -1;
    tooltip.hidden = true;
    showPath();
    showMatched();
    showDetail();
    draw();
    const y = depths[state.zoom] * ROW;
    const bottom = Math.max((boxesCache.deepest + 1) * ROW, scroll.clientHeight);
    scroll.scrollTop = state.flame ? bottom - y - scroll.clientHeight + ROW : Math.max(y - 4 * ROW, 0);
    if (remember) rememberInAddress();
  }

  /** The address carries zoom and metric, so that Back, Forward and shared links work. */
  function rememberInAddress() {
    const hash = "#" + state.metric + "/" + state.zoom;
    if (location.hash === hash) return;
    try {
      history.pushState(null, "", hash);
    } catch (error) {
      // Some viewers of files forbid a history; the page works without.
    }
  }
  function readAddress() {
    const match = /^#(peak|live)\/(\d+)$/.exec(location.hash);
    const node = match ? Number(match[2]) : 0;
    setMetric(match ? match[1] : data.metric, false);
    zoomTo(node < size ? node : 0, false);
  }

  function setMetric(metric, remember = true) {
    state.metric = metric;
    layout = layoutOf(metric);
    for (const button of element("metrics").children) {
      button.setAttribute("aria-pressed", String(button.dataset.metric === metric));
    }
    if (state.selected >= 0 && !(layout.bytes[state.selected] > 0)) state.selected = -1;
    zoomTo(state.zoom, remember);
  }

  function setFlame(flame) {
    state.flame = flame;
    element("flame").setAttribute("aria-pressed", String(flame));
    element("icicle").setAttribute("aria-pressed", String(!flame));
    zoomTo(state.zoom, false);
  }

  function setDark(dark) {
    state.dark = dark;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
    readTheme();
    requestDraw();
    drawMemory();
  }

  const MOST_CRUMBS = 9;
  function showPath() {
    const path = pathTo(state.zoom);
    const list = element("path");
    list.replaceChildren();
    const crumb = (text, node, title) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.title = title;
      button.addEventListener("click", () => zoomTo(node));
      item.append(button);
      list.append(item);
    };
    path.forEach((node, index) => {
      const hidden = path.length > MOST_CRUMBS && index > 1 && index < path.length - MOST_CRUMBS + 2;
      if (!hidden) crumb(functionOf(node), node, placeOf(node));
      else if (index === 2) crumb("… " + (path.length - MOST_CRUMBS) + " more", node, "frames between");
    });
    element("reset").disabled = state.zoom === 0;
  }

  // ---------------------------------------------------------------- search

  function matcherOf(query) {
    const regex = /^\/(.+)\/$/.exec(query);
    if (regex) {
      const expression = new RegExp(regex[1], "i");
      return (text) => expression.test(text);
    }
    const wanted = query.toLowerCase();
    return (text) => text.toLowerCase().includes(wanted);
  }

  function search(query) {
    const input = element("search");
    input.classList.remove("wrong");
    state.matches = null;
    if (query !== "") {
      try {
        const matches = matcherOf(query);
        const { function: functions, file: files, line: lines } = data.locations;
        state.matches = Uint8Array.from(functions, (name, index) =>
          matches(data.strings[name] + "  " + data.strings[files[index]] + ":" + lines[index]) ? 1 : 0);
      } catch (error) {
        // An unfinished expression; the user is still typing.
        input.classList.add("wrong");
      }
    }
    showMatched();
    requestDraw();
  }

  /** Matched frames below the zoomed one; a frame below another matched one is in its bytes already. */
  function showMatched() {
    const output = element("matched");
    if (state.matches === null) {
      output.textContent = "";
      return;
    }
    const inside = new Uint8Array(size);
    const below = new Uint8Array(size);
    below[state.zoom] = 1;
    let bytes = 0;
    let frames = 0;
    for (let node = state.zoom; node < size; node++) {
      if (node !== state.zoom) {
        below[node] = below[parents[node]];
        inside[node] = inside[parents[node]];
      }
      if (!below[node] || node === 0 || !(layout.bytes[node] > 0) || state.matches[locations[node]] !== 1) continue;
      frames += 1;
      if (!inside[node]) bytes += layout.bytes[node];
      inside[node] = 1;
    }
    output.textContent =
      bytesText(bytes) + " (" + shareText(bytes, layout.bytes[state.zoom]) + ") in " + countText(frames) +
      (frames === 1 ? " frame" : " frames");
  }

  // ---------------------------------------------------------------- keys

  function siblings(node) {
    const parent = parents[node];
    const list = layout.children.subarray(firstChild[parent], firstChild[parent + 1]);
    return Array.from(list).filter((child) => layout.bytes[child] > 0);
  }

  function moveSelection(key) {
    const towardsCaller = state.flame ? "ArrowDown" : "ArrowUp";
    let node = state.selected >= 0 ? state.selected : state.zoom;
    if (state.selected < 0) {
      // The first press only shows where the selection is.
    } else if (key === towardsCaller) {
      node = parents[node];
    } else if (key === "ArrowUp" || key === "ArrowDown") {
      const child = layout.children[firstChild[node]];
      if (firstChild[node] < firstChild[node + 1] && layout.bytes[child] > 0) node = child;
    } else if (node !== 0) {
      const list = siblings(node);
      const place = list.indexOf(node) + (key === "ArrowRight" ? 1 : -1);
      node = list[Math.min(Math.max(place, 0), list.length - 1)];
    }
    state.selected = node;
    state.hovered = -1;
    tooltip.hidden = true;
    scrollToNode(node);
    showDetail();
    requestDraw();
  }

  function scrollToNode(node) {
    const bottom = Math.max((boxesCache.deepest + 1) * ROW, scroll.clientHeight);
    const y = state.flame ? bottom - (depths[node] + 1) * ROW : depths[node] * ROW;
    if (y < scroll.scrollTop) scroll.scrollTop = y;
    else if (y + ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = y + ROW - scroll.clientHeight;
  }

  document.addEventListener("keydown", (event) => {
    const input = element("search");
    if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
    if (document.activeElement === input) {
      if (event.key === "Escape") {
        input.value = "";
        search("");
        scroll.focus();
        event.preventDefault();
      } else if (event.key === "Enter") {
        scroll.focus();
      }
      return;
    }
    const onButton = document.activeElement instanceof HTMLButtonElement;
    if (event.key === "/") input.focus();
    else if (event.key === "?") element("help").showModal();
    else if (event.key === "Escape" && input.value !== "") {
      input.value = "";
      search("");
    } else if (event.key === "Escape") {
      state.selected = -1;
      zoomTo(0);
    } else if (event.key.startsWith("Arrow")) moveSelection(event.key);
    else if (event.key === "Enter" && !onButton && state.selected >= 0) zoomTo(state.selected);
    else if (event.key === "Backspace") zoomTo(parents[state.zoom]);
    else if (event.key === "m") toggleMetric();
    else if (event.key === "i") setFlame(!state.flame);
    else return;
    event.preventDefault();
  });

  function toggleMetric() {
    const other = state.metric === "peak" ? "live" : "peak";
    if (layoutOf(other).bytes[0] > 0) setMetric(other);
  }

  // ---------------------------------------------------------------- pointer

  canvas.addEventListener("mousemove", (event) => {
    const node = nodeAt(event);
    if (node !== state.hovered) {
      state.hovered = node;
      showDetail();
      requestDraw();
    }
    if (node >= 0) showTooltip(node, event.clientX, event.clientY);
    else tooltip.hidden = true;
  });
  canvas.addEventListener("mouseleave", () => {
    state.hovered = -1;
    tooltip.hidden = true;
    showDetail();
    requestDraw();
  });
  canvas.addEventListener("click", (event) => {
    const node = nodeAt(event);
    if (node < 0) return;
    state.selected = node;
    zoomTo(node);
  });
  scroll.addEventListener("scroll", () => {
    tooltip.hidden = true;
    requestDraw();
  });
  // Not only the window changes sizes: the memory strip and a list of warnings may appear above.
  const resizes = new ResizeObserver(() => {
    requestDraw();
    drawMemory();
  });
  resizes.observe(scroll);
  window.addEventListener("popstate", readAddress);
  window.addEventListener("hashchange", readAddress);
  for (const button of element("metrics").children) {
    button.disabled = !(layoutOf(button.dataset.metric).bytes[0] > 0);
    button.addEventListener("click", () => setMetric(button.dataset.metric));
  }
  element("icicle").addEventListener("click", () => setFlame(false));
  element("flame").addEventListener("click", () => setFlame(true));
  element("reset").addEventListener("click", () => zoomTo(0));
  element("theme").addEventListener("click", () => {
    setDark(!state.dark);
    try {
      localStorage.setItem("heaptide-theme", state.dark ? "dark" : "light");
    } catch (error) {
      // No storage for local files in some browsers; the choice lasts as long as the page.
    }
  });
  element("help-button").addEventListener("click", () => element("help").showModal());
  element("search").addEventListener("input", (event) => search(event.target.value));

  // ---------------------------------------------------------------- head and memory over time

  function showTotals() {
    const list = element("totals");
    for (const [name, amount, note] of data.totals) {
      const group = document.createElement("div");
      const title = document.createElement("dt");
      const value = document.createElement("dd");
      title.textContent = name;
      value.textContent = bytesText(amount) + " ";
      const small = document.createElement("small");
      small.textContent = note;
      value.append(small);
      group.append(title, value);
      list.append(group);
    }
  }

  function showWarnings() {
    if (data.warnings.length === 0) return;
    element("warnings").hidden = false;
    element("warnings-title").textContent =
      data.warnings.length + (data.warnings.length === 1 ? " warning" : " warnings");
    for (const text of data.warnings) {
      const item = document.createElement("li");
      item.textContent = text;
      element("warnings-list").append(item);
    }
  }

  const memoryCanvas = element("memory-canvas");
  const samples = data.samples;
  function memoryLimit() {
    return samples.limit > 0 ? samples.limit : 0;
  }
  function drawMemory() {
    const count = samples.seconds.length;
    if (count < 2) return;
    element("memory").hidden = false;
    const width = memoryCanvas.clientWidth;
    const height = memoryCanvas.clientHeight;
    const ratio = window.devicePixelRatio || 1;
    memoryCanvas.width = Math.round(width * ratio);
    memoryCanvas.height = Math.round(height * ratio);
    const pen = memoryCanvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    let largest = 1;
    for (let index = 0; index < count; index++) {
      largest = Math.max(largest, samples.resident[index], samples.heap[index]);
    }
    // A limit far above all memory would press the curves flat.
    const limit = memoryLimit();
    const limitShown = limit > 0 && limit < largest * 4;
    if (limitShown) largest = Math.max(largest, limit);
    const duration = samples.seconds[count - 1] - samples.seconds[0] || 1;
    const xOf = (index) => ((samples.seconds[index] - samples.seconds[0]) / duration) * width;
    const yOf = (bytes) => height - 2 - (bytes / (largest * 1.05)) * (height - 4);
    const curve = (values, color) => {
      pen.beginPath();
      for (let index = 0; index < count; index++) pen.lineTo(xOf(index), yOf(values[index]));
      pen.strokeStyle = color;
      pen.lineWidth = 1.5;
      pen.stroke();
      pen.lineTo(width, height);
      pen.lineTo(0, height);
      pen.closePath();
      pen.globalAlpha = 0.12;
      pen.fillStyle = color;
      pen.fill();
      pen.globalAlpha = 1;
    };
    curve(samples.resident, theme.resident);
    curve(samples.heap, theme.heap);
    if (limitShown) {
      pen.setLineDash([4, 4]);
      pen.strokeStyle = theme.bad;
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(0, yOf(limit));
      pen.lineTo(width, yOf(limit));
      pen.stroke();
      pen.setLineDash([]);
    }
    element("memory-limit").hidden = !(limit > 0);
    element("memory-limit-value").textContent = "limit of the cgroup " + bytesText(limit);
    element("memory-value").textContent = duration.toFixed(1) + " s, up to " + bytesText(maximum(samples.resident)) + " resident";
  }
  function maximum(values) {
    let largest = 0;
    for (const value of values) largest = Math.max(largest, value);
    return largest;
  }
  memoryCanvas.addEventListener("mousemove", (event) => {
    const bounds = memoryCanvas.getBoundingClientRect();
    const first = samples.seconds[0];
    const wanted = first + ((event.clientX - bounds.left) / bounds.width) *
      (samples.seconds[samples.seconds.length - 1] - first);
    let low = 0;
    let high = samples.seconds.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (samples.seconds[middle] < wanted) low = middle + 1;
      else high = middle;
    }
    element("memory-value").textContent =
      "at " + samples.seconds[low].toFixed(2) + " s: resident " + bytesText(samples.resident[low]) +
      ", heap " + bytesText(samples.heap[low]);
  });
  memoryCanvas.addEventListener("mouseleave", drawMemory);

  // ---------------------------------------------------------------- start

  function preferredDark() {
    try {
      const chosen = localStorage.getItem("heaptide-theme");
      if (chosen !== null) return chosen === "dark";
    } catch (error) {
      // As above: no storage, no choice.
    }
    return window.matchMedia("(prefers-color-scheme: dark)").matches;
  }

  showTotals();
  showWarnings();
  element("metrics").children[1].textContent = data.live_words.charAt(0).toUpperCase() + data.live_words.slice(1);
  context.font = FONT;
  characterWidth = context.measureText("0123456789").width / 10;
  setDark(preferredDark());
  setFlame(false);
  readAddress();
  // For tests: the page has come this far without an error.
  document.documentElement.dataset.ready = "true";
})();
