// What is under the pointer.

import type { PageData } from "../model/data.ts";
import type { View } from "../model/view.ts";
import { blocksText, bytesText, shareText, visible } from "../text.ts";
import { element, make } from "./dom.ts";

const tooltip = element("tooltip");

export function hideTooltip(): void {
  tooltip.hidden = true;
}

export function showTooltip(
  data: PageData,
  view: View,
  zoom: number,
  node: number,
  thread: string,
  event: MouseEvent,
): void {
  tooltip.replaceChildren();
  describe(data, view, zoom, node, thread);
  tooltip.hidden = false;
  const { clientX: x, clientY: y } = event;
  const left = Math.min(x + 14, window.innerWidth - tooltip.offsetWidth - 8);
  const below = y + 18 + tooltip.offsetHeight < window.innerHeight;
  tooltip.style.left = `${Math.max(left, 4)}px`;
  tooltip.style.top = `${below ? y + 18 : Math.max(y - tooltip.offsetHeight - 10, 4)}px`;
}

function describe(data: PageData, view: View, zoom: number, node: number, thread: string): void {
  const location = view.locations[node]!;
  tooltip.append(make("b", "", node === 0 ? "everything" : data.functionOf(location)));
  if (node !== 0) {
    const place = data.placeOf(location);
    if (place !== "") tooltip.append(make("p", "place", place));
    const source = data.source(data.fileOf(location), data.locations.lines[location]!);
    if (source !== null) tooltip.append(make("code", "", visible(source.text.trim(), "\t")));
  }
  const table = make("table", "");
  const row = (name: string, value: string, share: string) => {
    table.append(make("tr", "", make("th", "", name), make("td", "", value), make("td", "", share)));
  };
  const bytes = view.bytes[node]!;
  row("total", bytesText(bytes), shareText(bytes, view.bytes[0]!));
  row("own", bytesText(view.ownBytes[node]!), shareText(view.ownBytes[node]!, view.bytes[0]!));
  row("", blocksText(view.counts[node]!), shareText(view.counts[node]!, view.counts[0]!));
  if (zoom !== 0 && view.depths[node]! > view.depths[zoom]!) row("of zoomed", "", shareText(view.weights[node]!, view.weights[zoom]!));
  if (thread !== "") row("thread", thread, "");
  tooltip.append(table);
}
