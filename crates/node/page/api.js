// Requests to the node that serves this page.

let token = null;

/** Time for the answer to a question, and to a request that makes the node dial or wait. */
const QUESTION_MS = 10_000;
const ACTION_MS = 60_000;

/** A browser opens six connections to a node. Transfers take two, streams two, questions the others. */
const MAX_TRANSFERS_AT_ONCE = 2;

/** A request that failed, with the code and message of the node. */
export class Failure extends Error {
  constructor(status, record) {
    super(record.message ?? `status ${status}`);
    this.status = status;
    this.code = record.code ?? "other";
  }
}

/** Keeps the token in memory. It is stored nowhere. */
export function setToken(text) {
  token = text;
}

/** Takes the token from `#token=…` and removes it from the address, and so from the history. */
export function takeTokenOfAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    token = found;
    history.replaceState(null, "", location.pathname);
  }
}

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

async function failure(response) {
  let record = {};
  try {
    record = await response.json();
  } catch {
    // Not an answer of the API, such as the one of a proxy.
  }
  return new Failure(response.status, record);
}

async function send(method, path, options = {}) {
  const response = await fetch(path, { method, headers: headers(), cache: "no-store", ...options });
  if (!response.ok) {
    throw await failure(response);
  }
  return response;
}

/** Runs `work` with a signal that aborts it after `after` milliseconds. */
async function within(after, work) {
  try {
    return await work(AbortSignal.timeout(after));
  } catch (error) {
    if (error.name === "TimeoutError") {
      throw new Error(`no answer within ${after / 1000} s`);
    }
    throw error;
  }
}

/** Sends a request and returns its record. */
export function request(method, path, options) {
  const after = method === "GET" ? QUESTION_MS : ACTION_MS;
  return within(after, async (signal) => (await send(method, path, { ...options, signal })).json());
}

/** Returns a record whatever the status: `/readyz` answers 503 with a reason. */
export function ask(path) {
  const options = { headers: headers(), cache: "no-store" };
  return within(QUESTION_MS, async (signal) => (await fetch(path, { ...options, signal })).json());
}

/** Returns a function that runs work once fewer than `most` others that it was given run. */
function turns(most) {
  const waiting = [];
  let running = 0;
  return async (work) => {
    if (running >= most) {
      // The one that ends passes its turn on.
      await new Promise((resolve) => waiting.push(resolve));
    } else {
      running += 1;
    }
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) {
        next();
      } else {
        running -= 1;
      }
    }
  };
}

/** Runs a transfer once fewer than two others run. */
export const queued = turns(MAX_TRANSFERS_AT_ONCE);

/** Saves what is stored already, which does not wait for transfers with peers. */
const saving = turns(1);

/** The content of a blob. */
export function content(id) {
  return saving(async () => (await send("GET", `/v1/blobs/${encodeURIComponent(id)}`)).blob());
}

/** The path with parameters. */
export function target(path, parameters) {
  return `${path}?${new URLSearchParams(parameters)}`;
}

/**
 * Reads a stream of records until it ends or `signal` aborts it. `onRecord` gets the id of the event
 * besides, `null` without one. An `error` record is thrown. `EventSource` cannot send the token, so the
 * stream is read by `fetch`.
 */
export async function stream(method, path, onRecord, options = {}) {
  const response = await send(method, path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let id = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    text += value;
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (line.startsWith("id:")) {
        id = Number(line.slice(3));
      } else if (line.startsWith("data:")) {
        const record = JSON.parse(line.slice(5));
        if (record.event === "error") {
          throw new Failure(response.status, record);
        }
        onRecord(record, id);
        id = null;
      }
    }
  }
}

/** Adds a file as a blob. `fetch` reports no progress of an upload, so this is an older request. */
export function upload(file, onProgress) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", "/v1/blobs");
    for (const [name, value] of Object.entries(headers())) {
      sending.setRequestHeader(name, value);
    }
    sending.setRequestHeader("Content-Type", "application/octet-stream");
    sending.upload.onprogress = (event) => onProgress(event.loaded);
    sending.onerror = () => reject(new Error("the connection with the node was lost"));
    sending.onload = () => {
      let record = {};
      try {
        record = JSON.parse(sending.responseText);
      } catch {
        // Not an answer of the API.
      }
      sending.status === 200 ? resolve(record) : reject(new Failure(sending.status, record));
    };
    sending.send(file);
  });
}
