// Light or dark: the system's choice until the user makes one, which is remembered.

import { element } from "./dom.ts";

const STORED = "heaptide-theme";

export interface Theme {
  dark: boolean;
  /** A custom property of the style sheet. */
  color(name: string): string;
}

export function startTheme(changed: () => void): Theme {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let stored = remembered();
  const theme: Theme = {
    dark: stored === null ? system.matches : stored === "dark",
    color: (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim(),
  };
  const apply = () => {
    root.dataset["theme"] = theme.dark ? "dark" : "light";
  };
  system.addEventListener("change", () => {
    if (stored !== null) return;
    theme.dark = system.matches;
    apply();
    changed();
  });
  element("theme").addEventListener("click", () => {
    theme.dark = !theme.dark;
    stored = theme.dark ? "dark" : "light";
    try {
      localStorage.setItem(STORED, stored);
    } catch {
      // No storage for local files in some browsers; the choice lasts as long as the page.
    }
    apply();
    changed();
  });
  apply();
  return theme;
}

function remembered(): string | null {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null;
  }
}
