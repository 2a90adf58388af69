// The table's columns: ids are those of the API, words those of the filter, widths are in px.

import { NONE, amount, duration, rate } from "./format.js";

const sum = { total: "sum", format: amount, width: 78 };
const time = (metric, quantile) => ({
  total: { metric, quantile },
  format: duration,
  width: quantile === "p95" && metric !== "lifetime" ? 106 : 82,
});

export const COLUMNS = [
  { id: "backend", title: "Backend", word: "backend", help: "address, or name and address" },
  {
    id: "closed_per_s",
    title: "Rate /s",
    word: "rate",
    help: "connections that ended per second",
    ...sum,
    format: rate,
  },
  { id: "open", title: "Open", word: "open", help: "connections that are open now", ...sum },
  { id: "p50", title: "p50", word: "p50", help: "median lifetime", ...time("lifetime", "p50") },
  {
    id: "p95",
    title: "p95",
    word: "p95",
    help: "95 % of the lifetimes are at most this",
    ...time("lifetime", "p95"),
  },
  {
    id: "p99",
    title: "p99",
    word: "p99",
    help: "99 % of the lifetimes are at most this",
    ...time("lifetime", "p99"),
  },
  {
    id: "connect_p95",
    title: "Connect p95",
    word: "connect",
    help: "95 % of the connects took at most this",
    ...time("connect", "p95"),
  },
  {
    id: "first_byte_p95",
    title: "1st byte p95",
    word: "first_byte",
    help: "95 % of the first bytes came within this",
    ...time("first_byte", "p95"),
  },
  {
    id: "active_p95",
    title: "Active p95",
    word: "active",
    help: "95 % of the connections were active for at most this",
    ...time("active", "p95"),
  },
  {
    id: "resets",
    title: "Resets",
    word: "resets",
    help: "connections closed by RST in the window",
    ...sum,
  },
  {
    id: "failed_connects",
    title: "Failed",
    word: "failed",
    help: "connections that were never established, in the window",
    ...sum,
  },
  {
    id: "change",
    title: "Changes now",
    word: "change",
    help: "how much the window differs from the one before, beyond chance",
    format: change,
    width: 136,
  },
];

function change(share) {
  if (!(share > 0)) return Number.isNaN(share) ? NONE : "";
  return share < 0.01 ? "< 1 %" : `${Math.round(share * 100)} %`;
}
