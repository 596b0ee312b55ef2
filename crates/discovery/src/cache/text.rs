//! The text format of the peer cache, version 1. Without IO.
//!
//! ```text
//! calimero-peers 1
//! <seconds since 1970 when last seen> <peer id> <address> <address> ...
//! end <number of peers>
//! ```
//!
//! Each line is one peer, with fields separated by one space, and ends with a line feed. The last
//! line shows that the file is complete.

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

/// Bytes that are reserved for the last line.
const END_BYTES: usize = 32;

/// The reason why a text is not a peer cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The text is longer than [`MAX_CACHE_BYTES`].
    #[error("is longer than {MAX_CACHE_BYTES} bytes")]
    TooLong,
    /// The content is not UTF-8.
    #[error("is not UTF-8 after {valid_up_to} bytes")]
    NotText {
        /// Length of the valid part in bytes.
        valid_up_to: usize,
    },
    /// The text does not begin with the name of the format.
    #[error("is of another format")]
    Foreign,
    /// The version of the format is unknown to this program.
    #[error("is of version {found}, not {VERSION}")]
    Version {
        /// Version that the text names.
        found: u32,
    },
    /// The last line is missing, or its number of peers is not the number of lines.
    #[error("is torn: {peers} peers and no end that counts them")]
    Torn {
        /// Number of peers that were read.
        peers: usize,
    },
    /// A line of the text is invalid.
    #[error("line {line}: {reason}")]
    Line {
        /// Number of the line, counted from 1.
        line: usize,
        /// Defect of the line.
        reason: LineError,
    },
}

/// The reason why a line of a peer cache is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line does not begin with a number of seconds.
    #[error("no time")]
    Time,
    /// The second field is not a peer id.
    #[error("no peer id")]
    Peer,
    /// An earlier line has the same peer.
    #[error("a peer that is there already")]
    Twice,
    /// A further field is not an address, or longer than [`MAX_ADDRESS_BYTES`].
    #[error("no address in field {field}")]
    Address {
        /// Number of the field, counted from 1.
        field: usize,
    },
    /// The line has no address, or more than [`MAX_CACHED_ADDRESSES_PER_PEER`].
    #[error("{found} addresses")]
    Addresses {
        /// Number of addresses in the line.
        found: usize,
    },
    /// The line exceeds [`MAX_CACHED_PEERS`].
    #[error("more than {MAX_CACHED_PEERS} peers")]
    TooMany,
}

/// Encodes `entries`, whose ages are relative to `now`.
///
/// Peers and addresses above a limit are left out from the end. An address that would be decoded to
/// another one is left out, and so is a peer without an address.
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

/// Decodes the text that [`encode`] wrote, with ages relative to `now`. A peer that was seen in the
/// future, because the clock was set back, gets the age zero.
///
/// # Errors
///
/// [`FormatError`] for the first part that [`encode`] would not have written.
pub fn decode(bytes: &[u8], now: SystemTime) -> Result<Vec<CacheEntry>, FormatError> {
    if bytes.len() > MAX_CACHE_BYTES {
        return Err(FormatError::TooLong);
    }
    let text = str::from_utf8(bytes).map_err(|error| FormatError::NotText {
        valid_up_to: error.valid_up_to(),
    })?;
    let (head, body) = match text.split_once('\n') {
        Some(parts) => parts,
        // A prefix of a valid text.
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
    // The first line is the header.
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

/// Parses a number as [`encode`] writes it: digits only.
fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

/// Returns the text of an address if it parses to the same address. Binary addresses can hold names
/// with a space, a slash or a line feed.
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
