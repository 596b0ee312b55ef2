// Events of the node as they happen.

import { stream } from "./api.js";
import { byId, clock, make, setText, words } from "./dom.js";

const MAX_EVENTS = 200;
const RETRY_MS = 2000;

/** The fields of a record as text. */
function describe(record) {
  const fields = Object.entries(record).filter(([name]) => name !== "event" && name !== "time");
  return fields.map(([name, value]) => {
    const text = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
    return `${words(name)} ${text}`;
  }).join(", ");
}

function show(record) {
  const list = byId("event-list");
  const time = make("time", { datetime: record.time }, clock(record.time));
  list.prepend(make("li", {}, time, make("b", {}, words(record.event)), describe(record)));
  while (list.children.length > MAX_EVENTS) {
    list.lastElementChild.remove();
  }
}

/** Reads events while the page is visible, and calls `onEvent` for each. */
export async function readEvents(onEvent) {
  for (;;) {
    await visible();
    const ending = new AbortController();
    const hide = () => document.hidden && ending.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      setText(byId("events-state"), "Newest first.");
      await stream("GET", "/v1/events", (record) => {
        show(record);
        onEvent(record);
      }, { signal: ending.signal });
    } catch (error) {
      setText(byId("events-state"), ending.signal.aborted ? "Paused." : `No events: ${error.message}`);
    }
    document.removeEventListener("visibilitychange", hide);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

/** Waits until the page is visible. A hidden page leaves its connections to others. */
export function visible() {
  if (!document.hidden) {
    return Promise.resolve();
  }
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
  });
}
