// Asks the node every two seconds, and at once after an event that may change what is shown.

import { Failure, ask, request, setToken, takeTokenOfAddress } from "./api.js";
import { showBlobs, startBlobs } from "./blobs.js";
import { byId, setText } from "./dom.js";
import { readEvents, visible } from "./events.js";
import { showDiscovery, showNetwork, showNode, showResources } from "./node.js";
import { showPeers, startPeers } from "./peers.js";
import { showTopics, startTopics } from "./topics.js";

const INTERVAL_MS = 2000;
/** Events come in groups: one request answers for all of them. */
const GATHER_MS = 200;
/** Events that change nothing of what is asked for. They can be many. */
const QUIET = new Set(["message", "blob_progress"]);

let wake = () => {};
let isWanted = false;
let isStarted = false;

/** Refreshes soon. */
function refresh() {
  isWanted = true;
  wake();
}

/** A boot node has no store, which is not a fault. */
async function blobs() {
  try {
    return await request("GET", "/v1/blobs");
  } catch (error) {
    if (error instanceof Failure && error.status === 409) {
      return null;
    }
    throw error;
  }
}

async function show() {
  const status = await request("GET", "/v1/status");
  const [readiness, netcheck, topics, store] = await Promise.all([
    ask("/readyz"),
    request("GET", "/v1/netcheck"),
    request("GET", "/v1/topics"),
    blobs(),
  ]);
  showNode(status, readiness);
  showNetwork(netcheck);
  showDiscovery(status);
  showResources(status);
  showPeers(status);
  showTopics(topics, status.peer);
  showBlobs(store);
  byId("main").hidden = false;
}

/** Resolves after a while, or soon after a refresh is wanted. */
function pause() {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, INTERVAL_MS);
    wake = () => {
      clearTimeout(timer);
      wake = () => {};
      setTimeout(() => {
        isWanted = false;
        resolve();
      }, GATHER_MS);
    };
    if (isWanted) {
      wake();
    }
  });
}

function askForToken(message) {
  byId("main").hidden = true;
  byId("login").hidden = false;
  setText(byId("login-error"), message);
  setText(byId("summary"), "Not logged in");
  byId("token").focus();
}

async function run() {
  for (;;) {
    await visible();
    try {
      await show();
      if (!isStarted) {
        isStarted = true;
        readEvents((record) => QUIET.has(record.event) || refresh());
      }
    } catch (error) {
      if (error instanceof Failure && error.status === 401) {
        return askForToken("The token is missing or wrong.");
      }
      setText(byId("summary"), `The node does not answer: ${error.message}`);
    }
    await pause();
  }
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  byId("token").value = "";
  byId("login").hidden = true;
  run();
});

startPeers(refresh);
startTopics(refresh);
startBlobs(refresh);
takeTokenOfAddress();
run();
