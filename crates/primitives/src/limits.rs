//! Every bound of the wire and its default, with its unit and its reason.
//!
//! A bound on which both ends must agree is a constant here and nowhere else. A bound that an
//! operator may change is the default of a field in [`crate::config`], which names the constant.

use std::time::Duration;

/// Bytes in one kibibyte.
pub const KIB: usize = 1024;
/// Bytes in one mebibyte.
pub const MIB: usize = 1024 * KIB;

/// Length of a context, group, namespace or blob id, in bytes: one SHA-256 digest.
pub const ID_LEN_BYTES: usize = 32;

/// Largest payload of one frame on the stream and blob protocols, in bytes: 8 MiB, inclusive.
///
/// Part of the wire format: a longer claim ends the stream.
pub const MAX_FRAME_PAYLOAD_BYTES: usize = 8 * MIB;

/// Length of the prefix of a frame, in bytes: one big-endian `u32`.
pub const FRAME_PREFIX_BYTES: usize = 4;

/// Bytes of small frames gathered before they are written, where nothing else is configured:
/// 64 KiB, four TLS records.
pub const FRAME_WRITE_BUFFER_BYTES: usize = 64 * KIB;

/// Bytes read from a stream of frames at one time, where nothing else is configured: 64 KiB.
pub const FRAME_READ_BUFFER_BYTES: usize = 64 * KIB;

/// Time for an outbound stream to open, dialling and negotiation included: 30 s, the deadline of a
/// dial.
pub const STREAM_OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for a listener to report its first address: 5 s. Binding is local, so this passes only
/// where no interface is up.
pub const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Blobs that one node announces at the same time: 4,096, the keys under which a node holds
/// provider records.
pub const MAX_ANNOUNCED_BLOBS: usize = 4_096;

/// Largest invite message, in bytes: 1 MiB, inclusive. Part of the wire format.
pub const MAX_INVITE_MESSAGE_BYTES: usize = MIB;

/// Largest gossip message, in bytes: 1 MiB, the same in both directions.
///
/// Published 0.11.0-rc.4 nodes drop what is over 64 KiB.
pub const MAX_GOSSIP_MESSAGE_BYTES: usize = MIB;

/// Largest gossip message that published 0.11.0-rc.4 nodes accept, in bytes: 62 KiB.
///
/// Their limit of 64 KiB covers the whole RPC. Author, sequence number, signature, the longest topic
/// ([`MAX_TOPIC_BYTES`]) and all lengths take less than 2 KiB.
pub const MAX_PUBLISHED_MESSAGE_BYTES: usize = 62 * KIB;

/// Topics that a node may subscribe to at the same time: 2,048.
///
/// A node announces all its topics to a new peer, in messages of at most 100 topics. The topics of all
/// of them together have at most [`MAX_GOSSIP_CONTROL_BYTES`]: as many of 244 bytes each, or 506 of
/// [`MAX_TOPIC_BYTES`].
pub const MAX_OWN_TOPICS: usize = 2_048;

/// Bytes around one topic in an announcement, at most: tags, lengths and flags.
pub const ANNOUNCED_TOPIC_OVERHEAD_BYTES: usize = 12;

/// Largest control part of one gossip message, in bytes: 512 KiB of announcements, offers and
/// requests.
pub const MAX_GOSSIP_CONTROL_BYTES: usize = 512 * KIB;

/// Size of one blob chunk, in bytes: 1 MiB. Part of a blob's identity.
pub const BLOB_CHUNK_BYTES: usize = MIB;

/// Largest value of a blob provider record, in bytes.
pub const MAX_PROVIDER_RECORD_BYTES: usize = 256;

/// Longest rendezvous namespace, in bytes, by the rendezvous specification.
pub const MAX_RENDEZVOUS_NAMESPACE_BYTES: usize = 255;

/// Longest topic text accepted, in bytes: 1 KiB.
///
/// Four times what has a rendezvous namespace (241 bytes under `/calimero/ctx/`), so that a topic
/// of a published node is refused only where a table of a few thousand of them would pass some
/// megabytes.
pub const MAX_TOPIC_BYTES: usize = KIB;

/// Port of TCP and UDP listeners where none is given.
pub const DEFAULT_PORT: u16 = 2428;

/// Longest duration a configuration may hold: a year.
///
/// Longer than any deadline, and far from where adding it to a clock overflows.
pub const MAX_CONFIGURED_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Longest queue or table a configuration may ask for, in entries: 2^20.
///
/// At some hundred bytes per entry, a full one takes some hundred MiB. Channels of tokio panic only
/// near the size of the address space.
pub const MAX_CONFIGURED_QUEUE: usize = 1 << 20;

/// Connections being set up at one time, each way.
///
/// A handshake holds a descriptor and about 50 KiB until it ends or its deadline passes, so a
/// dial storm or a flood of half-open inbound connections stays near 10 MiB.
pub const MAX_PENDING_CONNECTIONS: u32 = 128;

/// Established connections with one peer.
///
/// Simultaneous dials, a relayed connection with its direct successor and both transports at
/// once need four; eight leaves room for a reconnect that overlaps.
pub const MAX_CONNECTIONS_PER_PEER: u32 = 8;

/// Established connections in all: what fits the usual soft limit of 1024 descriptors only
/// with a raised limit, and a mesh of some hundred overlays without one.
pub const MAX_CONNECTIONS: u32 = 1024;

/// Receive window of a Yamux stream before it grows, in bytes, by the Yamux specification.
pub const YAMUX_INITIAL_WINDOW_BYTES: usize = 256 * KIB;

/// Largest Yamux data frame accepted, in bytes: a limit inside the `yamux` crate, which ends
/// the connection above it.
pub const YAMUX_MAX_FRAME_BYTES: usize = MIB;
