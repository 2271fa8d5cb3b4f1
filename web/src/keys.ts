// What the keyboard does.

import type { App } from "./app.ts";
import { element } from "./views/dom.ts";

export function listenToKeys(app: App): void {
  const search = element<HTMLInputElement>("search");
  const graph = element("scroll");
  const single: Record<string, () => void> = {
    m: () => app.nextMetric(),
    b: () => app.toggleUnit(),
    v: () => app.toggleInverted(),
    i: () => app.setFlames(!app.state.flames),
    g: () => app.togglePane(),
    t: () => element("theme").click(),
    "?": () => element<HTMLDialogElement>("help").showModal(),
    "/": () => {
      search.focus();
      search.select();
    },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") !== null) return;
    const { activeElement: active } = document;
    if (active === search) {
      if (event.key === "Escape") {
        app.search("");
        graph.focus();
        event.preventDefault();
      } else if (event.key === "Enter") graph.focus();
      return;
    }
    if (active instanceof HTMLInputElement || active instanceof HTMLSelectElement) return;
    const onButton = active instanceof HTMLButtonElement || active?.tagName === "SUMMARY";
    const { state } = app;
    const inGraph = document.body.dataset["view"] === "graph";
    if (event.key === "Escape") {
      if (app.busy) app.stop();
      else if (search.value !== "") app.search("");
      else app.reset();
    } else if (event.key.startsWith("Arrow") && inGraph) {
      // The first press only shows where the selection is.
      const next = state.selected < 0 ? state.zoom : app.graph.neighbour(state.selected, event.key);
      app.select(next);
    } else if (event.key === "Enter" && !onButton && inGraph && state.selected >= 0) app.zoomTo(state.selected);
    else if (event.key === "Backspace" && inGraph) app.zoomTo(state.view.parents[state.zoom]!);
    else {
      const action = single[event.key];
      if (action === undefined) return;
      action();
    }
    event.preventDefault();
  });
}
