// Elements, and how values read. Text of the node and of its peers becomes text nodes and attributes
// that hold text, never markup: nothing here parses HTML, and the policy of the page forbids it
// (`require-trusted-types-for`).

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id, which the page has. */
export const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

/** Makes an HTML element. A child that is not an element is text. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an SVG element. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Sets the text of an element if it differs, so that a selection in it stays. */
export function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/**
 * Makes the children of `parent` those of `items`, in their order. An element is kept while its key
 * is there, with its focus; `update` writes into it.
 */
export function keyed(parent, items, keyOf, create, update) {
  parent.keyed ??= new Map();
  const before = parent.keyed;
  const after = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (after.has(key)) {
      continue;
    }
    const element = before.get(key) ?? create(item);
    update(element, item);
    after.set(key, element);
    if (element === place) {
      place = place.nextElementSibling;
    } else {
      parent.insertBefore(element, place);
    }
  }
  for (const [key, element] of before) {
    if (!after.has(key)) {
      element.remove();
    }
  }
  parent.keyed = after;
}

/** The last eight characters of a peer id: the ids of Ed25519 keys all begin alike. */
export const short = (peer) => peer.slice(-8);

/** Bytes with a binary unit. */
export function bytes(count) {
  let value = count;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) {
      return unit === "B" ? `${value} B` : `${value.toFixed(1)} ${unit}`;
    }
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

/** The limit of a circuit: its relay closes it at either of them. */
export function circuit({ bytes: limit, seconds }) {
  const parts = [limit === null ? [] : bytes(limit), seconds === null ? [] : `${seconds} s`].flat();
  return parts.length > 0 ? `at most ${parts.join(" and ")}` : "unlimited";
}

/** A name such as `inbound_streams` as words. */
export const words = (name) => name.replaceAll("_", " ");

/** The time of day of a record. */
export function clock(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString();
}
