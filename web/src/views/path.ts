// The way from everything to the zoomed frame.

import type { PageData } from "../model/data.ts";
import type { View } from "../model/view.ts";
import { countText } from "../text.ts";
import { button, element, make } from "./dom.ts";

/** Frames shown of it; of longer ones the middle is left out. */
const MOST = 8;

export function showPath(data: PageData, view: View, zoom: number, zoomTo: (node: number) => void): void {
  const list = element("path");
  list.replaceChildren();
  const nodes: number[] = [];
  for (let node = zoom; node !== 0; node = view.parents[node]!) nodes.push(node);
  nodes.push(0);
  nodes.reverse();
  list.hidden = nodes.length === 1;
  const skipped = nodes.length - MOST;
  nodes.forEach((node, index) => {
    if (skipped > 0 && index > 1 && index < skipped + 2) {
      if (index === 2) list.append(make("li", "more", `… ${countText(skipped)} more`));
      return;
    }
    const name = node === 0 ? "all" : data.functionOf(view.locations[node]!);
    const crumb = button(name, "quiet", () => zoomTo(node));
    if (node !== 0) crumb.title = data.placeOf(view.locations[node]!);
    if (node === zoom) crumb.setAttribute("aria-current", "true");
    list.append(make("li", "", crumb));
  });
}
