// What people type into the filter: terms, all of which must hold. `lblatency top` has the same.
//   proxy:web  server:s1  ip:10.0.0.0/24  port:443  reason:rst  p99>100ms  "any text"  -not

import { COLUMNS } from "./columns.js";

const TERM = /-?(?:[a-z0-9_]+(?::|[<>]=?))?(?:"[^"]*"?|[^\s"]+)/giu;
const PARTS = /^(-?)(?:([a-z0-9_]+)(:|[<>]=?))?(.*)$/isu;
const REASONS = new Map([
  ["rst", "resets"],
  ["reset", "resets"],
  ["failed", "failed_connects"],
]);
const UNITS = { "": 1, us: 1e-6, µs: 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600, "%": 0.01, k: 1e3 };
const WORDS = new Map(COLUMNS.slice(1).map(({ id, word }) => [word, id])).set("count", "count");

// An address as groups of 16 bits: two for IPv4, eight for IPv6; null if it is none.
function groups(text) {
  const v4 = /^(?:(.*:))?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (v4) {
    const [a, b, c, d] = v4.slice(2).map(Number);
    if (Math.max(a, b, c, d) > 255) return null;
    if (v4[1] === undefined) return [a * 256 + b, c * 256 + d];
    text = `${v4[1]}${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
  }
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const [head, tail] = halves.map((half) => (half ? half.split(":") : []));
  const missing = 8 - head.length - (tail?.length ?? 0);
  if (tail === undefined ? missing !== 0 : missing < 1) return null;
  const all = [...head, ...Array(missing).fill("0"), ...(tail ?? [])];
  return all.every((each) => /^[0-9a-f]{1,4}$/i.test(each))
    ? all.map((each) => parseInt(each, 16))
    : null;
}

// A test of groups for "10.0.0.0/24", "fd00::/8" or one address; null if it is no such thing.
function network(text) {
  const [address, length, more] = text.split("/");
  const wanted = groups(address.replace(/^\[|\]$/g, ""));
  if (!wanted || more !== undefined || !/^\d{1,3}$/.test(length ?? "0")) return null;
  const most = 16 * wanted.length;
  const bits = Number(length ?? most);
  if (bits > most) return null;
  return (found) => {
    if (found?.length !== wanted.length) return false;
    for (let i = 0; i * 16 < bits; i++) {
      const shift = Math.max(0, 16 - (bits - i * 16));
      if (found[i] >> shift !== wanted[i] >> shift) return false;
    }
    return true;
  };
}

function split(target) {
  const colon = target.lastIndexOf(":");
  return [target.slice(0, colon).replace(/^\[|\]$/g, ""), target.slice(colon + 1)];
}

// Addresses of targets as groups, since the same ones are asked for at each poll.
const parsed = new Map();
const PARSED_MAX = 50000;

function addressOf(target) {
  let found = parsed.get(target);
  if (found === undefined) {
    if (parsed.size >= PARSED_MAX) parsed.clear();
    found = groups(split(target)[0]);
    parsed.set(target, found);
  }
  return found;
}

function compared(word, sign, value) {
  const id = WORDS.get(word);
  const [, digits, unit] = /^([\d.]+)\s*([a-zµ%]*)$/.exec(value) ?? [];
  const limit = Number(digits) * UNITS[unit];
  if (!id || Number.isNaN(limit)) return null;
  const holds = {
    ">": (x) => x > limit,
    "<": (x) => x < limit,
    ">=": (x) => x >= limit,
    "<=": (x) => x <= limit,
  }[sign];
  return (backends, row) => holds(backends.value(id, row));
}

// The test of one term, called with (backends, row); a string says what is wrong with the term.
function compile(word, sign, value, all) {
  const text = value.toLowerCase();
  if (sign && sign !== ":") return compared(word, sign, text) ?? `${all}: say it like p99>100ms`;
  switch (word) {
    case "proxy":
      return (backends, row) => backends.proxyOf(row).toLowerCase().includes(text);
    case "server":
      return (backends, row) => (backends.server(row) ?? "").toLowerCase().includes(text);
    case "port":
      return (backends, row) => split(backends.target(row))[1] === text;
    case "ip": {
      const within = network(text);
      if (!within) return `${all}: say it like ip:10.0.0.7, ip:10.0.0.0/24 or ip:fd00::/8`;
      return (backends, row) => within(addressOf(backends.target(row)));
    }
    case "reason": {
      const id = REASONS.get(text);
      if (!id) return `${all}: the reasons are rst and failed`;
      return (backends, row) => backends.value(id, row) > 0;
    }
    default: {
      const anywhere = (word ? word + sign + value : value).toLowerCase();
      return (backends, row) =>
        backends.target(row).includes(anywhere) ||
        backends.proxyOf(row).toLowerCase().includes(anywhere) ||
        (backends.server(row) ?? "").toLowerCase().includes(anywhere);
    }
  }
}

// {test: null if all rows match, mistakes: a sentence for each term that is wrong and left out}
export function parse(text) {
  const tests = [];
  const mistakes = [];
  for (const [term] of text.matchAll(TERM)) {
    const [, not, word, sign, quoted] = PARTS.exec(term);
    const value = quoted.replace(/^"|"$/g, "");
    if (!value) continue;
    const test = compile(word?.toLowerCase(), sign, value, term);
    if (typeof test === "string") mistakes.push(test);
    else tests.push(not ? (backends, row) => !test(backends, row) : test);
  }
  return {
    test: tests.length ? (backends, row) => tests.every((each) => each(backends, row)) : null,
    mistakes,
  };
}
