// Connections: path, transport, round trip and traffic of each.

import { request, target } from "./api.js";
import { byId, bytes, circuit, keyed, make, setText, short } from "./dom.js";

/** Bytes of each connection at the last look, for their rates. */
let before = new Map();

const keyOf = (one) => `${one.peer} ${one.address} ${one.inbound}`;

function say(text) {
  setText(byId("peers-message"), text);
}

/** Runs an action of a button, and reports its end. */
async function act(button, text, action) {
  button.disabled = true;
  try {
    say(text(await action()));
  } catch (error) {
    say(error.message);
  }
  button.disabled = false;
}

function cell(label) {
  return make("td", { "data-label": label });
}

function row(one) {
  const peer = encodeURIComponent(one.peer);
  const button = (name, action) => make("button", {
    type: "button",
    class: "small plainly",
    "aria-label": `${name} ${short(one.peer)}`,
    onclick: (event) => action(event.currentTarget),
  }, name);
  const ping = button("Ping", (self) => act(
    self,
    (pong) => `${short(one.peer)}: ${pong.round_trip_ms.toFixed(1)} ms, ${pong.path}`,
    () => request("POST", `/v1/peers/${peer}/ping`),
  ));
  const disconnect = button("Disconnect", (self) => act(
    self,
    () => `disconnecting ${short(one.peer)}`,
    () => request("DELETE", `/v1/peers/${peer}`),
  ));
  const head = make("th", { scope: "row", class: "id", title: one.peer }, `…${short(one.peer)}`);
  const names = ["Path", "Transport", "RTT", "Received", "Sent", "Agent"];
  return make("tr", {}, head, ...names.map(cell), make("td", {}, ping, disconnect));
}

/** An amount, and its rate since the last look. */
function traffic(total, last, seconds) {
  const rate = last === undefined || seconds <= 0 ? 0 : (total - last) / seconds;
  return rate >= 1 ? `${bytes(total)} (${bytes(Math.round(rate))}/s)` : bytes(total);
}

/** Shows the connections of a status, which lists the oldest 256: a boot node has thousands. */
export function showPeers({ oldest_connections: listed, connections: count }) {
  const now = performance.now();
  const after = new Map();
  keyed(byId("peer-rows"), listed, keyOf, row, (element, one) => {
    const key = keyOf(one);
    const last = before.get(key);
    const seconds = last ? (now - last.at) / 1000 : 0;
    const rtt = one.round_trip_ms;
    const limit = one.circuit_limit ? `; circuit: ${circuit(one.circuit_limit)}` : "";
    const texts = [
      `${one.path}, ${one.inbound ? "inbound" : "outbound"}${limit}`,
      `${one.transport}, ${one.security}`,
      rtt === null || rtt === undefined ? "not measured yet" : `${rtt.toFixed(1)} ms`,
      traffic(one.received_bytes, last?.received, seconds),
      traffic(one.sent_bytes, last?.sent, seconds),
      one.agent_version ?? "unknown",
    ];
    texts.forEach((text, nth) => setText(element.children[nth + 1], text));
    element.title = one.address;
    after.set(key, { at: now, received: one.received_bytes, sent: one.sent_bytes });
  });
  before = after;
  const which = count > listed.length ? `, the oldest ${listed.length} are listed` : "";
  setText(byId("peer-count"), `(${count}${which})`);
  byId("no-peers").hidden = listed.length > 0;
}

export function startPeers(refresh) {
  byId("connect").addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = byId("connect-address");
    say("dialling");
    try {
      const one = await request("POST", target("/v1/peers", { address: field.value.trim() }));
      say(`connected with ${short(one.peer)} at ${one.address}`);
      field.value = "";
      refresh();
    } catch (error) {
      say(error.message);
    }
  });
}
