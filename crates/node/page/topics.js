// Topics: the mesh as a picture, and the messages of topics that this page subscribes to.

import { Failure, request, stream, target } from "./api.js";
import { byId, draw, keyed, make, setText, short } from "./dom.js";

const WIDTH = 320;
const HEIGHT = 240;
const MAX_DRAWN = 24;
const MAX_MESSAGES = 50;
/** Time in which a stream that is replaced may deliver the messages from before its replacement. */
const HANDOVER_MS = 1000;

/** Topics whose messages this page reads, the newest last, with their messages. */
const reading = new Map();

/** The stream of all these topics: a stream for each would take all connections of a browser. */
let current = null;
/** Whether a stream is being replaced. Two at a time are open then, and no more. */
let isChanging = false;

let refresh = () => {};
/** What was shown last, to show it again with new messages. */
let shown = null;

function say(text) {
  setText(byId("topics-message"), text);
}

/** Draws this node in the middle and the subscribers around it. */
function picture(svg, topic, own) {
  const mesh = new Set(topic.mesh);
  const all = [...new Set([...topic.mesh, ...topic.subscribers])].sort();
  const drawn = all.slice(0, MAX_DRAWN);
  const parts = [];
  const nodes = [];
  drawn.forEach((peer, nth) => {
    const angle = (2 * Math.PI * nth) / drawn.length - Math.PI / 2;
    const x = WIDTH / 2 + Math.cos(angle) * (WIDTH / 2 - 45);
    const y = HEIGHT / 2 + Math.sin(angle) * (HEIGHT / 2 - 35);
    const kind = mesh.has(peer) ? "in-mesh" : "subscriber";
    parts.push(draw("line", { x1: WIDTH / 2, y1: HEIGHT / 2, x2: x, y2: y, class: kind }));
    const title = draw("title", {}, `${peer}: ${mesh.has(peer) ? "in the mesh" : "subscriber"}`);
    nodes.push(
      draw("circle", { cx: x, cy: y, r: 9, class: kind, "data-peer": peer }, title),
      draw("text", { x, y: y + 22 }, short(peer)),
    );
  });
  const self = draw("circle", { cx: WIDTH / 2, cy: HEIGHT / 2, r: 11, class: "self" });
  svg.replaceChildren(...parts, ...nodes, self, draw("text", { x: WIDTH / 2, y: HEIGHT / 2 + 26 }, short(own)));
  const label = `${topic.mesh.length} peers in the mesh, ${topic.subscribers.length} subscribers`;
  svg.setAttribute("aria-label", label);
}

function section(topic) {
  const name = topic.topic;
  const field = make("input", { "aria-label": `Message to ${name}`, placeholder: "Message" });
  const publish = make("form", { class: "row", onsubmit: async (event) => {
    event.preventDefault();
    try {
      const sent = await request("POST", target("/v1/topics/messages", { topic: name }), {
        body: new Blob([field.value]),
      });
      say(`published ${sent.bytes} bytes to ${name}`);
      field.value = "";
    } catch (error) {
      say(error.message);
    }
  } }, field, make("button", { type: "submit" }, "Publish"));
  const toggle = make("button", { type: "button", class: "small plainly", onclick: () => {
    reading.has(name) ? leave(name) : read(name);
  } });
  return make(
    "article",
    { class: "topic" },
    make("div", {},
      make("h3", {}, name),
      make("p", { class: "quiet" }),
      toggle,
      publish,
      make("ol", { class: "plain messages", role: "log", "aria-label": `Messages of ${name}`, tabindex: "0" })),
    draw("svg", { class: "mesh", role: "img", viewBox: `0 0 ${WIDTH} ${HEIGHT}` }),
  );
}

export function showTopics(page, own) {
  const { topics } = page;
  shown = () => showTopics(page, own);
  const sorted = [...topics].sort((one, other) => (one.topic < other.topic ? -1 : 1));
  keyed(byId("topic-list"), sorted, (topic) => topic.topic, section, (element, topic) => {
    const [mesh, others] = [topic.mesh.length, topic.subscribers.length];
    setText(element.querySelector("p"), `${mesh} in the mesh, ${others} subscribers`);
    const text = reading.has(topic.topic) ? "Stop reading" : "Read messages";
    setText(element.querySelector("button.small"), text);
    const state = JSON.stringify([topic.mesh, topic.subscribers]);
    const svg = element.querySelector("svg");
    if (svg.drawn !== state) {
      svg.drawn = state;
      picture(svg, topic, own);
    }
    const messages = reading.get(topic.topic)?.messages;
    if (messages) {
      element.querySelector("ol").replaceChildren(...messages);
    }
  });
  byId("no-topics").hidden = topics.length > 0;
}

function leave(topic) {
  reading.delete(topic);
  follow();
  refresh();
}

function read(topic) {
  if (!reading.has(topic)) {
    reading.set(topic, { isFollowing: false, messages: [] });
    if (current?.topics.has(topic)) {
      onFollowing([topic]);
    }
    follow();
  }
}

/** Shows a text as the last message of a topic. */
function append(subscription, text) {
  subscription.messages.push(make("li", {}, text));
  subscription.messages.splice(0, Math.max(subscription.messages.length - MAX_MESSAGES, 0));
}

function onFollowing(topics) {
  for (const topic of topics) {
    const subscription = reading.get(topic);
    if (subscription && !subscription.isFollowing) {
      subscription.isFollowing = true;
      append(subscription, "subscribed");
    }
  }
  // A topic may not be listed yet.
  refresh();
}

function onMessage(record) {
  const subscription = reading.get(record.topic);
  if (subscription) {
    append(subscription, `${short(record.peer)}: ${record.text ?? record.hex}`);
  }
}

function onLagged(missed) {
  for (const subscription of reading.values()) {
    append(subscription, `${missed} messages were lost: the page was too slow`);
  }
}

/**
 * Opens a stream of topics in place of `before`, which goes on. Messages have numbers, and the new
 * stream names the last one from before it: up to that one the old stream shows messages. The new one
 * holds what it receives until the old one is drained, and shows what that has not shown.
 */
function open(topics, before) {
  const one = { topics: new Set(topics), before, ending: new AbortController(), held: [], last: 0, until: Infinity };
  one.drained = new Promise((resolve) => { one.onDrained = resolve; });
  one.followed = new Promise((resolve) => { one.onFollowed = resolve; });
  const onRecord = (record, number) => {
    if (record.event === "following") {
      if (one.before) {
        one.before.until = number;
      }
      onFollowing(record.topics);
      one.onFollowed(true);
    } else if (record.event === "message") {
      if (number > one.until) {
        one.onDrained();
        return;
      }
      one.last = number;
      if (!one.before?.topics.has(record.topic)) {
        onMessage(record);
      } else if (one.held) {
        one.held.push([record, number]);
      } else if (number > one.before.last) {
        onMessage(record);
      }
    } else if (record.event === "lagged" && one.until === Infinity) {
      onLagged(record.missed);
    }
    shown?.();
  };
  const path = target("/v1/topics/messages", topics.map((topic) => ["topic", topic]));
  const ended = stream("GET", path, onRecord, { signal: one.ending.signal });
  ended.catch((error) => { one.error = error; }).then(() => onEnd(one));
  return one;
}

function onEnd(one) {
  one.onFollowed(false);
  one.onDrained();
  if (current === one) {
    current = null;
    say(one.error ? `${[...one.topics].join(", ")}: ${one.error.message}` : "the node ended the stream of messages");
    reading.clear();
    refresh();
  }
}

/** Puts a stream of the topics that are read in place of the one of before. */
async function replace() {
  const before = current;
  const topics = [...reading.keys()];
  if (topics.length === 0) {
    current = null;
    before?.ending.abort();
    return;
  }
  const next = open(topics, before);
  if (!(await next.followed)) {
    say(`${topics.join(", ")}: ${next.error?.message ?? "the node ended the stream of messages"}`);
    const newest = topics.findLast((topic) => !reading.get(topic)?.isFollowing);
    if (next.error instanceof Failure && newest !== undefined) {
      // The node refused the newest topic, such as one too many.
      reading.delete(newest);
    } else {
      reading.clear();
    }
    refresh();
    return;
  }
  current = next;
  if (before) {
    await Promise.race([before.drained, new Promise((resolve) => setTimeout(resolve, HANDOVER_MS))]);
    before.ending.abort();
    before.before = null;
    next.held.filter(([, number]) => number > before.last).forEach(([record]) => onMessage(record));
    shown?.();
  }
  next.held = null;
}

const isCurrent = () => {
  const followed = current?.topics ?? new Set();
  return followed.size === reading.size && [...reading.keys()].every((topic) => followed.has(topic));
};

/** Follows the topics that are read, and no others. */
async function follow() {
  if (isChanging) {
    return;
  }
  isChanging = true;
  try {
    while (!isCurrent()) {
      await replace();
    }
  } finally {
    isChanging = false;
  }
}

export function startTopics(refreshAll) {
  refresh = refreshAll;
  byId("subscribe").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = byId("subscribe-topic");
    read(field.value);
    field.value = "";
  });
}
