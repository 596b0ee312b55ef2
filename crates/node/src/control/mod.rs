//! The control interface of a running node: HTTP on a Unix socket in its data folder.
//!
//! Other commands of `calnet` and other programs use it to do what only the process that holds the
//! folder can do. The socket has mode 0600, so its owner alone can connect, and can then do what the
//! node can. Answers are JSON objects with `event` and `time`, or bytes of a blob. Streams are
//! server-sent events with one such object each. A failure is an object with `event` `error`, `code`
//! and `message`. A request ends when its client closes the connection.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200 if the node listens and has found the network, else 503; the reason |
//! | `GET /v1/status` | addresses, discovery, the oldest 256 connections |
//! | `GET /v1/peers` | all connections |
//! | `POST /v1/peers?address=A` | dials an address |
//! | `DELETE /v1/peers/PEER` | closes the connections of a peer |
//! | `POST`, `DELETE /v1/peers/PEER/block` | blocks or unblocks a peer |
//! | `GET /v1/topics` | topics with their subscribers and mesh |
//! | `GET /v1/topics/messages?topic=T` | subscribes while the stream is read; several topics may be named |
//! | `POST /v1/topics/messages?topic=T` | publishes the body |
//! | `GET /v1/blobs` | blobs, partial downloads, usage |
//! | `POST /v1/blobs?context=C` | stores and announces the body |
//! | `GET /v1/blobs/ID` | the content |
//! | `DELETE /v1/blobs/ID` | withdraws and removes a blob and its partial download |
//! | `POST /v1/blobs/ID/fetch?context=C&dial=A` | fetches a blob into the store, as a stream |
//! | `POST /v1/blobs/ID/verify` | reads a blob and compares it with its id |
//! | `GET /v1/events` | the records that the node prints, as a stream |
//! | `GET /v1/metrics` | OpenMetrics |
//! | `GET /v1/config` | the configuration in effect |

mod answer;
mod blobs;
mod client;
mod peers;
mod server;
mod target;
mod topics;

pub(crate) use self::{
    blobs::StorePage,
    client::Client,
    peers::PeerChange,
    server::{ControlSocket, METRICS_TYPE, Served, serve},
    target::Query,
    topics::{Feed, TopicsPage},
};
