// The Firefox profile of `fixtures::killed_service`, which a golden test of Rust holds to the byte, as the
// profiler's own code reads it.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, type FSWatcher, watch } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

const PROFILE = join(import.meta.dirname, "../../crates/heaptide-report/tests/golden/firefox.json");
const PROGRAM = createRequire(import.meta.url).resolve("@firefox-devtools/profiler-cli");
const MIB = 2 ** 20;

interface Thread {
  threadHandle: string;
  processName: string;
  name: string;
}

interface CallNode {
  name: string;
  totalSamples: number;
  selfSamples: number;
  children?: CallNode[];
}

interface Counter {
  name: string;
  unit: string;
  rangeSampleCount: number;
  stats: { source: string; value: number }[];
}

/** Commands go to a process that has read the profile, and is found by this directory. */
const directory = mkdtempSync(join(tmpdir(), "heaptide-profiler-"));
const environment = { ...process.env, PROFILER_CLI_SESSION_DIR: directory, PROFILER_CLI_NO_SYMBOLICATE: "1" };
let server: ChildProcess;
let watcher: FSWatcher;

/** Its own way to start it gives up after half a second, which is not enough for busy machines. */
const served = (): Promise<void> =>
  new Promise((done, failed) => {
    const log = join(directory, "test.log");
    watcher = watch(directory, () => {
      const told = existsSync(log) ? readFileSync(log, "utf8") : "";
      if (told.includes("Profile loaded successfully")) done();
      else if (told.includes("[ERROR]")) failed(new Error(told));
    });
    server = spawn(process.execPath, [PROGRAM, "--daemon", PROFILE, "--session", "test"], { env: environment });
    server.once("exit", (status) => failed(new Error(`the profiler ended with status ${status}`)));
  });
const profiler = (...command: string[]): string =>
  execFileSync(process.execPath, [PROGRAM, ...command], { env: environment, encoding: "utf8" });
const asked = <Answer>(...command: string[]): Answer => JSON.parse(profiler(...command, "--json")) as Answer;

beforeAll(served);
afterAll(async () => {
  watcher.close();
  if (server.exitCode === null) {
    const ended = once(server, "exit");
    server.kill();
    await ended;
  }
  rmSync(directory, { recursive: true });
});

/** The lines of a tree: depth as dots, name, bytes below and its own. */
const linesOf = (nodes: CallNode[], depth = 0): string[] =>
  nodes.flatMap(({ name, totalSamples, selfSamples, children = [] }) => [
    `${".".repeat(depth)}${name} ${totalSamples} ${selfSamples}`,
    ...linesOf(children, depth + 1),
  ]);

const treeOf = ({ threadHandle }: Thread): { weightType: string; lines: string[] } => {
  profiler("thread", "select", threadHandle);
  profiler("strategy", "native-allocations");
  const { weightType, regularCallTree } = asked<{ weightType: string; regularCallTree: CallNode }>("thread", "samples-top-down");
  return { weightType, lines: linesOf(regularCallTree.children ?? []) };
};

test("every thread of every metric has its stacks, to the byte", () => {
  const { threads } = asked<{ threads: Thread[] }>("thread", "list");
  const found = Object.fromEntries(
    threads.map((thread) => {
      const { weightType, lines } = treeOf(thread);
      expect(weightType).toBe("bytes");
      return [`${thread.processName}, ${thread.name}`, lines];
    }),
  );
  const loading = (bytes: number) => [`<module> ${bytes} 0`, `.serve ${bytes} 0`, `..load_table ${bytes} ${bytes}`];
  const putting = (bytes: number, others: number) => [
    `<module> ${bytes} 0`,
    `.serve ${bytes} 0`,
    `..put ${bytes} ${bytes}`,
    `<no Python frame> ${others} ${others}`,
  ];
  const walked = 100 * 4096;
  expect(found).toEqual({
    "At the peak, MainThread": loading(68 * MIB),
    "At the peak, worker-1": putting(6 * MIB, 1024),
    "Live at the end, MainThread": loading(64 * MIB),
    "Live at the end, worker-1": putting(6 * MIB, 512),
    "Allocated in total, MainThread": [
      `<module> ${68 * MIB + walked} 0`,
      `.serve ${68 * MIB + walked} 0`,
      `..load_table ${68 * MIB} ${68 * MIB}`,
      `..walk ${walked} 0`,
      `...walk ${walked} 0`,
      `....walk ${walked} ${walked}`,
    ],
    "Allocated in total, worker-1": putting(8 * MIB, 1024),
    "Temporary, MainThread": [
      `<module> ${walked} 0`,
      `.serve ${walked} 0`,
      `..walk ${walked} 0`,
      `...walk ${walked} 0`,
      `....walk ${walked} ${walked}`,
    ],
  });
});

test("memory over time is counters of bytes", () => {
  const { counters } = asked<{ counters: Counter[] }>("counter", "list");
  const seen = counters.map(({ name, unit, rangeSampleCount, stats }) => [name, unit, rangeSampleCount, stats[0]?.value]);
  // Between the least and the most: 10 MiB and 96, nothing and 74.
  expect(seen).toEqual([
    ["Resident memory", "bytes", 5, 86 * MIB],
    ["Tracked heap", "bytes", 5, 74 * MIB],
  ]);
});
