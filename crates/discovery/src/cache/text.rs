//! The text in which peers are kept, version 1. Pure.
//!
//! ```text
//! calimero-peers 1
//! <seconds since 1970 when last heard of> <peer id> <address> <address> ...
//! end <number of peers>
//! ```
//!
//! One peer a line, fields parted by one space, every line ended by a line feed. The last line
//! tells a whole file from a torn one.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use calimero_network_primitives::{Multiaddr, PeerId, addr::MAX_ADDRESS_BYTES};

use crate::machine::CacheEntry;

/// Largest text read or written, in bytes: 4 MiB, 4,096 peers with four circuit addresses each.
pub const MAX_CACHE_BYTES: usize = 4 << 20;

/// Most peers read or written: 4,096, a whole address book of the default size.
pub const MAX_CACHED_PEERS: usize = 4096;

/// Most addresses of one peer read or written: 16, four times what an address book keeps by
/// default.
pub const MAX_CACHED_ADDRESSES_PER_PEER: usize = 16;

const NAME: &str = "calimero-peers";
const VERSION: u32 = 1;
const END: &str = "end";

/// Room kept for the last line, in bytes.
const END_BYTES: usize = 32;

/// Why a text is no cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It is longer than [`MAX_CACHE_BYTES`].
    #[error("is longer than {MAX_CACHE_BYTES} bytes")]
    TooLong,
    /// It is not text.
    #[error("is not UTF-8 after {valid_up_to} bytes")]
    NotText {
        /// Bytes that are.
        valid_up_to: usize,
    },
    /// It begins with something else than the name of the format.
    #[error("is of another format")]
    Foreign,
    /// It is of a version that this program does not know.
    #[error("is of version {found}, not {VERSION}")]
    Version {
        /// Which.
        found: u32,
    },
    /// Its end is missing, or tells another number of peers than are there.
    #[error("is torn: {peers} peers and no end that counts them")]
    Torn {
        /// Peers that were read.
        peers: usize,
    },
    /// A line cannot be read.
    #[error("line {line}: {reason}")]
    Line {
        /// Which, counted from 1.
        line: usize,
        /// Why.
        reason: LineError,
    },
}

/// Why a line of a cache cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// It does not begin with a number of seconds.
    #[error("no time")]
    Time,
    /// Its second field is no peer id.
    #[error("no peer id")]
    Peer,
    /// The peer is there already.
    #[error("a peer that is there already")]
    Twice,
    /// A further field is no address, or a longer one than [`MAX_ADDRESS_BYTES`].
    #[error("no address in field {field}")]
    Address {
        /// Which field, counted from 1.
        field: usize,
    },
    /// It has no address, or more than [`MAX_CACHED_ADDRESSES_PER_PEER`].
    #[error("{found} addresses")]
    Addresses {
        /// How many.
        found: usize,
    },
    /// It is one peer more than [`MAX_CACHED_PEERS`].
    #[error("more than {MAX_CACHED_PEERS} peers")]
    TooMany,
}

/// Writes `entries`, whose ages are as of `now`.
///
/// Peers over a bound are left out from the end, and so are addresses of a peer. An address that
/// would not read as itself is left out, and a peer without an address.
#[must_use]
pub fn encode(entries: &[CacheEntry], now: SystemTime) -> String {
    let now = since_1970(now);
    let mut text = format!("{NAME} {VERSION}\n");
    let mut seen = HashSet::new();
    for entry in entries {
        if seen.len() >= MAX_CACHED_PEERS {
            break;
        }
        let addresses: Vec<String> = (entry.addresses.iter())
            .filter_map(readable)
            .take(MAX_CACHED_ADDRESSES_PER_PEER)
            .collect();
        if addresses.is_empty() || seen.contains(&entry.peer) {
            continue;
        }
        let heard = now.saturating_sub(entry.age).as_secs();
        let line = format!("{heard} {} {}\n", entry.peer, addresses.join(" "));
        if text.len() + line.len() + END_BYTES > MAX_CACHE_BYTES {
            break;
        }
        text.push_str(&line);
        seen.insert(entry.peer);
    }
    text.push_str(&format!("{END} {}\n", seen.len()));
    text
}

/// Reads what [`encode`] wrote, with ages as of `now`. A peer heard of in the future, because
/// the clock went back, was heard of now.
///
/// # Errors
///
/// [`FormatError`] at the first thing that [`encode`] would not have written.
pub fn decode(bytes: &[u8], now: SystemTime) -> Result<Vec<CacheEntry>, FormatError> {
    if bytes.len() > MAX_CACHE_BYTES {
        return Err(FormatError::TooLong);
    }
    let text = str::from_utf8(bytes).map_err(|error| FormatError::NotText {
        valid_up_to: error.valid_up_to(),
    })?;
    let (head, body) = match text.split_once('\n') {
        Some(parts) => parts,
        // The beginning of what we write, and no more.
        None if format!("{NAME} {VERSION}").starts_with(text) => {
            return Err(FormatError::Torn { peers: 0 });
        }
        None => return Err(FormatError::Foreign),
    };
    check_head(head)?;
    decode_body(body, since_1970(now))
}

fn check_head(head: &str) -> Result<(), FormatError> {
    let version = head
        .strip_prefix(NAME)
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or(FormatError::Foreign)?;
    match number::<u32>(version) {
        Some(VERSION) => Ok(()),
        Some(found) => Err(FormatError::Version { found }),
        None => Err(FormatError::Foreign),
    }
}

fn decode_body(body: &str, now: Duration) -> Result<Vec<CacheEntry>, FormatError> {
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    let mut rest = body;
    // The first line is the head.
    let mut line_number = 1;
    loop {
        line_number += 1;
        let torn = FormatError::Torn {
            peers: entries.len(),
        };
        let Some((line, behind)) = rest.split_once('\n') else {
            return Err(torn);
        };
        rest = behind;
        if let Some(count) = line.strip_prefix(END).and_then(|l| l.strip_prefix(' ')) {
            let whole = number(count) == Some(entries.len()) && rest.is_empty();
            return if whole { Ok(entries) } else { Err(torn) };
        }
        let read = decode_line(line, now).and_then(|entry| {
            if entries.len() >= MAX_CACHED_PEERS {
                return Err(LineError::TooMany);
            }
            let new = seen.insert(entry.peer);
            new.then_some(entry).ok_or(LineError::Twice)
        });
        entries.push(read.map_err(|reason| FormatError::Line {
            line: line_number,
            reason,
        })?);
    }
}

fn decode_line(line: &str, now: Duration) -> Result<CacheEntry, LineError> {
    let mut fields = line.split(' ');
    let heard: u64 = fields.next().and_then(number).ok_or(LineError::Time)?;
    let peer: PeerId = fields
        .next()
        .and_then(|field| field.parse().ok())
        .ok_or(LineError::Peer)?;
    let found = fields.clone().count();
    if !(1..=MAX_CACHED_ADDRESSES_PER_PEER).contains(&found) {
        return Err(LineError::Addresses { found });
    }
    let addresses = fields.enumerate().map(|(index, field)| {
        let address: Option<Multiaddr> = field.parse().ok();
        address
            .filter(|address| readable(address).is_some_and(|text| text == field))
            .ok_or(LineError::Address { field: index + 3 })
    });
    Ok(CacheEntry {
        peer,
        addresses: addresses.collect::<Result<_, _>>()?,
        age: Duration::from_secs(now.as_secs().saturating_sub(heard)),
    })
}

/// A number as [`encode`] writes it: digits alone.
fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

/// The text of an address that reads as itself. Binary addresses can hold names with a space, a
/// slash or a line feed in them.
fn readable(address: &Multiaddr) -> Option<String> {
    if address.is_empty() || address.len() > MAX_ADDRESS_BYTES {
        return None;
    }
    let text = address.to_string();
    let one_field = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    (one_field && text.parse().ok().as_ref() == Some(address)).then_some(text)
}

fn since_1970(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}
