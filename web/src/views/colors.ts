// Colours of frames: a hue per module, a shade per file, the same in every page.

export interface Paint {
  fill: string;
  text: string;
}

/** FNV-1a, so that a module has the same colour everywhere. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return hash >>> 0;
}

/** From OKLCH (lightness 0 – 1, chroma, hue in degrees) to `rgb()`. */
export function oklch(lightness: number, chroma: number, hue: number): string {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
    -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
    -0.0041960863 * long - 0.7034186147 * middle + 1.707614701 * short,
  ];
  const channels = linear.map((value) => {
    const clamped = Math.min(Math.max(value, 0), 1);
    const encoded = clamped <= 0.0031308 ? 12.92 * clamped : 1.055 * clamped ** (1 / 2.4) - 0.055;
    return Math.round(encoded * 255);
  });
  return `rgb(${channels.join(" ")})`;
}

// Hues that are told apart beside each other; none is the red of errors or the pink of matches.
const HUES = [45, 70, 95, 130, 160, 190, 215, 240, 265, 290];

/** The colour of a file. `module` null is the standard library, an empty file no file at all. */
export function paintOf(file: string, module: string | null, dark: boolean): Paint {
  const text = dark ? "#eef1f4" : "#1d2126";
  if (file === "") return { fill: dark ? oklch(0.36, 0.005, 250) : oklch(0.9, 0.005, 250), text };
  const shade = ((hashOf(file) >>> 4) % 5) - 2;
  if (module === null) {
    return { fill: dark ? oklch(0.39 + shade * 0.01, 0.018, 250) : oklch(0.865 + shade * 0.01, 0.016, 250), text };
  }
  const hue = HUES[hashOf(module) % HUES.length]! + shade * 3;
  return { fill: dark ? oklch(0.45 + shade * 0.014, 0.075, hue) : oklch(0.845 + shade * 0.013, 0.085, hue), text };
}
