// Identity, addresses, discovery and resources: what `/v1/status` and `/readyz` say.

import { byId, bytes, circuit, keyed, make, setText, short, words } from "./dom.js";

const PHASES = ["boot", "register", "discover", "connect", "joined"];

const WHY = {
  unknown: "no peer has tested an address of this node yet",
  unreachable: "no peer reached an address of this node; peers connect through a relay",
};

/** Lines of text, as a list. */
function lines(list, items, kind = "address") {
  const create = () => make("li", { class: kind });
  keyed(list, items, (item) => item, create, (element, item) => setText(element, item));
}

function state(element, text, kind) {
  setText(element, text);
  element.className = kind;
}

export function showNode(status, readiness) {
  const { discovery } = status;
  setText(byId("peer"), status.peer);
  const why = discovery.reachable_because ?? WHY[discovery.reachability] ?? "";
  const kinds = { reachable: "good", unreachable: "bad" };
  state(byId("reachability"), `${discovery.reachability}: ${why}`, kinds[discovery.reachability] ?? "warn");
  state(byId("ready"), `${readiness.ready ? "yes" : "no"}: ${readiness.reason}`, readiness.ready ? "good" : "bad");
  const external = status.external.map((one) => `${one} (external)`);
  const listening = status.listening.map((one) => `${one} (listening)`);
  lines(byId("addresses"), [...external, ...listening]);
  const peers = status.peers === 1 ? "1 peer" : `${status.peers} peers`;
  setText(byId("summary"), `${discovery.phase}, ${peers}, ${discovery.reachability}`);
  document.title = `calnet ${short(status.peer)}: ${peers}`;
}

/** A fact that is `null` where it was not observed. */
const known = (fact) => ({ true: "yes", false: "no" })[fact] ?? "not known";

function protocolText(one) {
  const usable = one.usable === null ? "not tried" : one.usable ? "usable" : "no connection";
  const seen = one.public_addresses.map((address) => `, seen at ${address}`).join("");
  return `${one.transport} ${one.family}: ${usable}, mapping ${words(one.mapping)}, `
    + `filtering ${words(one.filtering)}${seen}`;
}

function serverText(one) {
  const kind = one.boot_node ? "boot node" : "relay";
  if (!one.connected) {
    return `${kind} …${short(one.peer)}: not connected${one.error ? `: ${one.error}` : ""}`;
  }
  const time = one.round_trip_ms === null ? "" : `, ${one.round_trip_ms.toFixed(1)} ms`;
  const mtu = one.path_mtu_bytes === null ? "" : `, path MTU ${one.path_mtu_bytes} bytes`;
  return `${kind} …${short(one.peer)}: connected${time}${mtu}`;
}

/** What `/v1/netcheck` says: which NAT the node is behind, and what that means. */
export function showNetwork(netcheck) {
  const kinds = { reachable: "good", all: "good", most: "good", few: "warn", no_peers: "bad" };
  state(byId("network-direct"), netcheck.summary, kinds[netcheck.direct] ?? "warn");
  lines(byId("network-advice"), netcheck.advice.map((one) => `would help: ${one.text}`), "quiet");
  const facts = [
    `UDP ${known(netcheck.udp)}`,
    `IPv6 ${known(netcheck.ipv6)}`,
    `port mapping ${words(netcheck.port_mapping)}`,
  ];
  setText(byId("network-facts"), facts.join(", "));
  lines(byId("network-protocols"), netcheck.protocols.map(protocolText));
  lines(byId("network-servers"), netcheck.servers.map(serverText));
}

/** The phases in their order. The phase of now is the current step. */
function showPhases(phase) {
  const list = byId("phases");
  const now = PHASES.indexOf(phase);
  const all = phase === "stopped" ? [...PHASES, "stopped"] : PHASES;
  const create = (name) => make("li", {}, make("span", {}, name));
  keyed(list, all, (name) => name, create, (element, name) => {
    element.classList.toggle("done", PHASES.indexOf(name) < now);
    if (name === phase) {
      element.setAttribute("aria-current", "step");
    } else {
      element.removeAttribute("aria-current");
    }
  });
}

export function showDiscovery({ discovery }) {
  showPhases(discovery.phase);
  const dials = `${discovery.dials_under_way} dials in progress, ${discovery.dials_waiting} waiting`;
  setText(byId("known"), `${discovery.known_peers} peers known, ${dials}`);
  const create = () => make("li", {}, make("span", { class: "id" }), " ", make("span"));
  const kinds = { connected: "good", unreachable: "bad" };
  keyed(byId("boot-nodes"), discovery.boot_nodes, (one) => one.peer, create, (element, one) => {
    const [peer, end] = element.querySelectorAll("span");
    const failures = one.failures ? ` (${one.failures} failures in a row)` : "";
    setText(peer, one.peer);
    state(end, one.reason ? `${one.state}: ${one.reason}${failures}` : one.state, kinds[one.state] ?? "warn");
  });
  const registrations = discovery.registrations.map((one) => {
    const end = one.held ? "registered" : "not registered";
    return `${one.namespace}: ${end} at …${short(one.at)}`;
  });
  const relays = discovery.relay_reservations.map((one) => {
    const limit = one.circuit_limit ? `; circuits: ${circuit(one.circuit_limit)}` : "";
    return `relay …${short(one.at)}: reservation ${one.state}${limit}`;
  });
  const overlays = discovery.overlays.map((one) =>
    `${one.namespace}: ${one.members_connected} of ${one.members_known} known members connected`);
  const lists = discovery.boot_lists.map((one) =>
    `boot list ${one.list}: ${one.addresses} addresses${one.error ? `; ${one.error}` : ""}`);
  lines(byId("held"), [...overlays, ...registrations, ...relays, ...lists], "quiet");
}

const amount = (resource, value) => (resource.includes("bytes") ? bytes(value) : String(value));

export function showResources({ resources }) {
  const create = (one) => make(
    "li",
    { class: "resource" },
    make("span", {}, words(one.resource)),
    make("span", { class: "quiet" }),
    make("meter", { min: 0, "aria-label": words(one.resource) }),
  );
  keyed(byId("resource-list"), resources, (one) => one.resource, create, (element, one) => {
    const refused = one.refused_node + one.refused_origin + one.refused_peer;
    const text = `${amount(one.resource, one.used)} of ${amount(one.resource, one.limit)}`;
    setText(element.children[1], refused ? `${text}, ${refused} refused` : text);
    const meter = element.lastElementChild;
    meter.max = one.limit;
    meter.high = Math.max(one.limit - one.reserve, 0) * 0.75;
    meter.value = one.used;
    meter.setAttribute("aria-valuetext", text);
  });
}
