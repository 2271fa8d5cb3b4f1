// What a user can do: zoom, search, move, switch.

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
  if (hasBytes(other)) setMetric(other);
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
  button.disabled = !hasBytes(button.dataset.metric);
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
