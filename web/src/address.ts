// The part of the address after `#`: what is shown, so that Back, Forward and shared links work.

import { METRIC_NAMES, type MetricName } from "./model/data.ts";

export interface Address {
  metric: MetricName;
  inverted: boolean;
  view: "graph" | "table";
  zoom: string;
  range: [number, number] | null;
}

export function readAddress(hash: string, start: Address): Address {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const metric = METRIC_NAMES.find((name) => name === fields.get("metric")) ?? start.metric;
  const inverted = fields.get("inverted");
  const view = fields.get("view");
  const range = /^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$/.exec(fields.get("range") ?? "");
  return {
    metric,
    inverted: inverted === null ? start.inverted : inverted === "1",
    view: view === "graph" || view === "table" ? view : start.view,
    zoom: fields.get("zoom") ?? "0",
    range: range === null ? null : [Number(range[1]), Number(range[2])],
  };
}

/** Only what differs from the start, so that the first address stays short. */
export function writeAddress(address: Address, start: Address): string {
  const fields = new URLSearchParams();
  if (address.metric !== start.metric) fields.set("metric", address.metric);
  if (address.inverted !== start.inverted) fields.set("inverted", address.inverted ? "1" : "0");
  if (address.view !== start.view) fields.set("view", address.view);
  if (address.zoom !== "0" && address.zoom !== "0~0") fields.set("zoom", address.zoom);
  if (address.range !== null) fields.set("range", address.range.map((seconds) => seconds.toFixed(6)).join("-"));
  const text = fields.toString();
  return text === "" ? "#" : `#${text}`;
}
