// Colours of the heat map, from few to all: of one hue, towards the background's opposite.

import { isDark } from "./theme.js";

const SHADES = 16;
const RAMPS = {
  light: ["222 235 250", "128 178 227", "40 101 180", "22 28 84"],
  dark: ["27 44 66", "34 98 158", "83 176 222", "232 250 214"],
};

// Shades as [red, green, blue].
export function shades() {
  const ramp = RAMPS[isDark() ? "dark" : "light"].map((each) => each.split(" ").map(Number));
  return Array.from({ length: SHADES }, (_, i) => {
    const at = (i / (SHADES - 1)) * (ramp.length - 1);
    const low = Math.min(ramp.length - 2, Math.floor(at));
    return ramp[low].map((value, c) => Math.round(value + (ramp[low + 1][c] - value) * (at - low)));
  });
}
