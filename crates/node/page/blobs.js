// Blobs: add files, make tickets, fetch by ticket or id, with progress.

import { content, queued, request, stream, target, upload } from "./api.js";
import { byId, bytes, keyed, make, setText } from "./dom.js";

const TICKET = /calnet[0-9a-z]{20,}/i;
const MAX_TRANSFERS = 50;

/** Transfers since the page was opened, the newest first. */
const transfers = [];
let refresh = () => {};

/** Names of blobs that this page knows, for downloads and tickets. */
const names = new Map();

function say(text) {
  setText(byId("blobs-message"), text);
}

function showTransfers() {
  const create = () => make("li", {},
    make("span"), " ", make("span", { class: "quiet" }), make("progress"));
  keyed(byId("transfers"), transfers, (one) => one.number, create, (element, one) => {
    const [title, state] = element.querySelectorAll("span");
    setText(title, one.title);
    setText(state, one.state);
    state.className = one.kind;
    const bar = element.querySelector("progress");
    bar.hidden = one.kind !== "quiet";
    bar.setAttribute("aria-label", one.title);
    if (one.size > 0) {
      bar.max = one.size;
      bar.value = one.done;
    }
  });
  byId("no-transfers").hidden = transfers.length > 0;
}

let count = 0;

function begin(title, size = 0) {
  count += 1;
  const one = { number: count, title, size, done: 0, state: "waiting", kind: "quiet" };
  transfers.unshift(one);
  transfers.splice(MAX_TRANSFERS);
  showTransfers();
  return one;
}

/** Runs a transfer and shows its end. */
async function carry(one, work) {
  try {
    one.state = await queued(() => work(one));
    one.kind = "good";
  } catch (error) {
    one.state = error.message;
    one.kind = "bad";
  }
  showTransfers();
  refresh();
}

function moved(one, done, size, rate) {
  one.done = done;
  one.size = size ?? one.size;
  const of = one.size ? ` of ${bytes(one.size)}` : "";
  one.state = `${bytes(done)}${of}${rate ? `, ${bytes(rate)}/s` : ""}`;
  showTransfers();
}

function add(file) {
  const one = begin(`Add ${file.name}`, file.size);
  return carry(one, async () => {
    const added = await upload(file, (sent) => moved(one, sent, file.size));
    names.set(added.id, file.name);
    return `added as ${added.id}`;
  });
}

/** Fetches what a ticket or an id names. */
function fetchBlob(text) {
  const ticket = text.match(TICKET)?.[0];
  const one = begin(ticket ? "Fetch by ticket" : `Fetch ${text}`);
  return carry(one, async () => {
    let end = "the node ended the transfer";
    const onRecord = (record) => {
      if (record.event === "progress") {
        moved(one, record.verified_bytes, record.size_bytes, record.rate_bytes_per_s);
      } else if (record.event === "fetched") {
        end = `fetched ${record.id}: ${bytes(record.size_bytes)} from ${record.providers.length} peers`;
        if (record.name) {
          names.set(record.id, record.name);
        }
      }
    };
    const path = ticket ? "/v1/tickets/fetch" : `/v1/blobs/${encodeURIComponent(text)}/fetch`;
    await stream("POST", path, onRecord, ticket ? { body: ticket } : {});
    return end;
  });
}

async function showTicket(element, id) {
  try {
    const name = names.get(id);
    const path = `/v1/blobs/${encodeURIComponent(id)}/ticket`;
    const { ticket } = await request("GET", name ? target(path, { name }) : path);
    const field = make("textarea", { readonly: true, rows: 3, "aria-label": `Ticket of ${id}` });
    field.value = ticket;
    element.querySelector("textarea")?.remove();
    element.append(field);
    field.focus();
    field.select();
  } catch (error) {
    say(error.message);
  }
}

/** Saves the content of a blob as a file of the browser. */
async function save(id) {
  try {
    const url = URL.createObjectURL(await content(id));
    const link = make("a", { href: url, download: names.get(id) ?? id });
    link.click();
    // The browser has begun to read it by then.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    say(error.message);
  }
}

async function remove(id) {
  if (!confirm(`Remove the blob ${id} from the store?`)) {
    return;
  }
  try {
    await request("DELETE", `/v1/blobs/${encodeURIComponent(id)}`);
    say(`removed ${id}`);
  } catch (error) {
    say(error.message);
  }
  refresh();
}

function item([id]) {
  const button = (name, action) => make("button", {
    type: "button", class: "small plainly", "aria-label": `${name} ${id}`, onclick: action,
  }, name);
  const element = make("li", { "data-blob": id }, make("span", { class: "id" }, id), " ", make("span", { class: "quiet" }), " ");
  element.append(
    button("Ticket", () => showTicket(element, id)),
    button("Save", () => save(id)),
    button("Remove", () => remove(id)),
  );
  return element;
}

export function showBlobs(page) {
  byId("blobs").hidden = !page;
  if (!page) {
    return;
  }
  const { usage } = page;
  const partials = usage.partials ? `, ${usage.partials} unfinished downloads` : "";
  setText(byId("usage"), `${usage.blobs} blobs, ${bytes(usage.used_bytes)} of ${bytes(usage.limit_bytes)}${partials}`);
  keyed(byId("blob-list"), page.blobs, ([id]) => id, item, (element, [id, size]) => {
    const name = names.get(id);
    setText(element.children[1], name ? `${bytes(size)}, ${name}` : bytes(size));
  });
}

function addAll(files) {
  for (const file of files) {
    add(file);
  }
}

export function startBlobs(refreshAll) {
  refresh = refreshAll;
  byId("files").addEventListener("change", (event) => {
    addAll(event.currentTarget.files);
    event.currentTarget.value = "";
  });
  byId("fetch").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = byId("fetch-ticket");
    fetchBlob(field.value.trim());
    field.value = "";
  });
  const drop = byId("drop");
  // The whole page takes drops, so that a file beside the frame does not replace the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) {
      drop.classList.remove("over");
    }
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    addAll(event.dataTransfer.files);
    const text = event.dataTransfer.files.length ? "" : event.dataTransfer.getData("text/plain");
    if (TICKET.test(text)) {
      fetchBlob(text);
    }
  });
}
