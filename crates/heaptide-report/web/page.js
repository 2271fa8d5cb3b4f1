// The head of the page, memory over time, and the start.

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
