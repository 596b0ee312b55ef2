//! Tickets: one line of text that names a blob, a peer that serves it and the addresses of that
//! peer. Pure: text in, values out.
//!
//! `docs/protocol.md` specifies the format, `testdata/ticket.json` holds vectors. A ticket carries a
//! checksum, so a single wrong character is always found:
//!
//! ```
//! use calimero_network_blob::ticket::{Kind, Ticket, TicketError};
//! # use calimero_network_blob::BlobId;
//! # use calimero_network_primitives::PeerId;
//! # let peer: PeerId = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5".parse()?;
//! # let blob_id = BlobId::from([7; 32]);
//! let ticket = Ticket::new(peer, blob_id, Kind::Blob)
//!     .with_addresses(["/ip4/192.0.2.1/tcp/2428".parse()?])?;
//! let text = ticket.to_string();
//! assert_eq!(text.parse::<Ticket>()?, ticket);
//!
//! let wrong = text.replacen('a', "b", 2);
//! assert!(wrong.parse::<Ticket>().is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A ticket can hold a [`Secret`]: the seed of an Ed25519 key. The requester signs its requests with
//! the key, and the provider refuses requests that are not signed with it. The secret itself is
//! never sent to a peer.

use std::{fmt, str::FromStr};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{MAX_ADDRESS_BYTES, peer_of, without_peer},
    identity::ed25519,
};
use data_encoding::{BASE32_NOPAD_NOCASE, DecodeKind};
use unsigned_varint::encode;

use crate::{BlobId, collection::EntryPath, varint};

/// What the text of every ticket begins with.
pub const PREFIX: &str = "calnet";

/// Longest ticket, in characters: 4096, which one QR code holds.
pub const MAX_TICKET_CHARS: usize = 4096;

/// Addresses of one ticket.
pub const MAX_ADDRESSES: usize = 16;

/// Length of all addresses of one ticket, in bytes: 2048. With the longest name it leaves the ticket
/// below [`MAX_TICKET_CHARS`].
pub const MAX_ADDRESSES_BYTES: usize = 2048;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const SEED_BYTES: usize = 32;

const FLAG_COLLECTION: u8 = 0x01;
const FLAG_SIZE: u8 = 0x02;
const FLAG_SECRET: u8 = 0x04;
const FLAG_NAME: u8 = 0x08;
const KNOWN_FLAGS: u8 = FLAG_COLLECTION | FLAG_SIZE | FLAG_SECRET | FLAG_NAME;

/// Why a text is not a ticket, or a ticket cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The text does not begin like a ticket.
    #[error("this is not a ticket: a ticket begins with `{PREFIX}`")]
    Prefix,
    /// The text is too long.
    #[error("a ticket of {len} characters, at most {max} are allowed")]
    TooLong {
        /// Length of the text, in characters.
        len: usize,
        /// Longest ticket, in characters.
        max: usize,
    },
    /// The text has a character that no ticket has.
    #[error("the character {character:?} at position {position} cannot be in a ticket")]
    Character {
        /// The character.
        character: char,
        /// Its position, counted from 1.
        position: usize,
    },
    /// The text has a length that no ticket has.
    #[error("the ticket is cut: a part of it is missing")]
    Cut,
    /// The checksum does not match: a character was changed, left out or added.
    #[error("the checksum of the ticket is wrong: copy the whole ticket again")]
    Checksum,
    /// A newer program made the ticket.
    #[error("the ticket has version {version}, this program reads version {VERSION}")]
    Version {
        /// The version of the ticket.
        version: u8,
    },
    /// A field is cut or does not have its form.
    #[error("malformed ticket: {field}: {reason}")]
    Malformed {
        /// The name of the field.
        field: &'static str,
        /// What is wrong about it.
        reason: &'static str,
    },
    /// There are too many addresses.
    #[error("a ticket with {count} addresses, at most {max} are allowed")]
    TooManyAddresses {
        /// Number of addresses.
        count: u64,
        /// Most addresses that are allowed.
        max: usize,
    },
    /// One address is too long, or all of them are.
    #[error("addresses of {len_bytes} bytes in a ticket, at most {max_bytes} are allowed")]
    AddressesTooLong {
        /// Their length, in bytes.
        len_bytes: u64,
        /// Largest length, in bytes.
        max_bytes: usize,
    },
    /// An address is empty, or leads to another peer.
    #[error("the address {address} of a ticket {reason}")]
    Address {
        /// The address.
        address: Multiaddr,
        /// What is wrong about it.
        reason: &'static str,
    },
    /// The name cannot be the name of a file in a ticket.
    #[error("the name {name:?} is refused: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong about it.
        reason: &'static str,
    },
}

/// What the blob of a ticket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The content of one file.
    Blob,
    /// A [`Collection`](crate::collection::Collection): a folder.
    Collection,
}

/// The Ed25519 key that a requester signs its requests with.
#[derive(Clone)]
pub struct Secret(ed25519::Keypair);

impl Secret {
    /// Returns the secret that is the seed of a key. Use a new key for each ticket.
    #[must_use]
    pub fn new(key: ed25519::Keypair) -> Self {
        Self(key)
    }

    /// Returns the key, which signs requests: it is a [`Signer`](crate::transfer::Signer).
    #[must_use]
    pub fn key(&self) -> &ed25519::Keypair {
        &self.0
    }

    /// Returns the public key that a signed request proves, which an
    /// [`Authorizer`](crate::serve::Authorizer) compares.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.0.public().to_bytes()
    }

    fn from_seed(mut seed: [u8; SEED_BYTES]) -> Result<Self, TicketError> {
        let secret = ed25519::SecretKey::try_from_bytes(&mut seed);
        let secret = secret.map_err(|_| malformed("secret", "it is not the seed of a key"))?;
        Ok(Self(secret.into()))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.public_key() == other.public_key()
    }
}

impl Eq for Secret {}

/// Does not show the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A blob, and how to reach a peer that serves it. A value of this type can be written: all of its
/// parts are within their limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    peer: PeerId,
    blob_id: BlobId,
    kind: Kind,
    size_bytes: Option<u64>,
    secret: Option<Secret>,
    name: Option<String>,
    addresses: Vec<Multiaddr>,
}

impl Ticket {
    /// Returns a ticket without addresses, size, name and secret.
    #[must_use]
    pub fn new(peer: PeerId, blob_id: BlobId, kind: Kind) -> Self {
        Self {
            peer,
            blob_id,
            kind,
            size_bytes: None,
            secret: None,
            name: None,
            addresses: Vec::new(),
        }
    }

    /// Sets the addresses of the peer, in the order of preference. A `/p2p/<peer>` at their end is
    /// left out.
    ///
    /// # Errors
    ///
    /// [`TicketError`] if there are too many, one is too long, empty or leads to another peer.
    pub fn with_addresses(
        mut self,
        addresses: impl IntoIterator<Item = Multiaddr>,
    ) -> Result<Self, TicketError> {
        let mut kept = Vec::new();
        for address in addresses {
            if peer_of(&address).is_some_and(|other| other != self.peer) {
                return Err(TicketError::Address {
                    address,
                    reason: "leads to another peer",
                });
            }
            kept.push(without_peer(&address));
        }
        check_addresses(&kept)?;
        self.addresses = kept;
        Ok(self)
    }

    /// Sets the size of the content in bytes: of the file, or of all files of the folder.
    #[must_use]
    pub fn with_size_bytes(mut self, size_bytes: u64) -> Self {
        self.size_bytes = Some(size_bytes);
        self
    }

    /// Sets the secret that the provider asks for.
    #[must_use]
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Sets the name under which the provider has the file or folder.
    ///
    /// # Errors
    ///
    /// [`TicketError::Name`] for a name that is not one component of an
    /// [`EntryPath`], and one that begins with a dot: a ticket makes no hidden files.
    pub fn with_name(mut self, name: &str) -> Result<Self, TicketError> {
        check_name(name)?;
        self.name = Some(name.to_owned());
        Ok(self)
    }

    /// Returns the peer that serves the blob.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Returns the id of the blob.
    #[must_use]
    pub fn blob_id(&self) -> BlobId {
        self.blob_id
    }

    /// Returns what the blob is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the size in bytes that the maker of the ticket claims.
    #[must_use]
    pub fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    /// Returns the secret that the provider asks for.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Returns the name of the file or folder: one component of a path, not hidden.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the addresses of the peer, without `/p2p/<peer>` at their end.
    #[must_use]
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Writes the fields of the ticket, without the checksum.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut flags = 0;
        let mut flag = |is_set: bool, bit: u8| flags |= if is_set { bit } else { 0 };
        flag(self.kind == Kind::Collection, FLAG_COLLECTION);
        flag(self.size_bytes.is_some(), FLAG_SIZE);
        flag(self.secret.is_some(), FLAG_SECRET);
        flag(self.name.is_some(), FLAG_NAME);
        let mut to = vec![VERSION, flags];
        put(&mut to, &self.peer.to_bytes());
        to.extend_from_slice(self.blob_id.as_bytes());
        if let Some(size_bytes) = self.size_bytes {
            put_number(&mut to, size_bytes);
        }
        if let Some(Secret(key)) = &self.secret {
            to.extend_from_slice(key.secret().as_ref());
        }
        if let Some(name) = &self.name {
            put(&mut to, name.as_bytes());
        }
        put_number(&mut to, self.addresses.len() as u64);
        for address in &self.addresses {
            put(&mut to, address.as_ref());
        }
        to
    }

    /// Reads the fields of a ticket, without the checksum. A ticket has one encoding: what is read
    /// is written as the same bytes.
    ///
    /// # Errors
    ///
    /// [`TicketError`] with what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        let from = &mut Reader { rest: bytes };
        match from.byte("version")? {
            VERSION => {}
            version => return Err(TicketError::Version { version }),
        }
        let flags = from.byte("flags")?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(malformed("flags", "one of them is unknown"));
        }
        let has = |flag: u8| flags & flag != 0;
        let peer = PeerId::from_bytes(from.bytes("peer id")?)
            .map_err(|_| malformed("peer id", "it is not one"))?;
        let blob_id = BlobId::from(from.array("blob id")?);
        let kind = match has(FLAG_COLLECTION) {
            true => Kind::Collection,
            false => Kind::Blob,
        };
        let mut ticket = Self::new(peer, blob_id, kind);
        if has(FLAG_SIZE) {
            ticket.size_bytes = Some(from.number("size")?);
        }
        if has(FLAG_SECRET) {
            ticket.secret = Some(Secret::from_seed(from.array("secret")?)?);
        }
        if has(FLAG_NAME) {
            let name = str::from_utf8(from.bytes("name")?);
            let name = name.map_err(|_| malformed("name", "it is not UTF-8"))?;
            ticket = ticket.with_name(name)?;
        }
        let count = from.number("number of addresses")?;
        if count > MAX_ADDRESSES as u64 {
            let max = MAX_ADDRESSES;
            return Err(TicketError::TooManyAddresses { count, max });
        }
        let mut addresses = Vec::new();
        for _ in 0..count {
            let address = Multiaddr::try_from(from.bytes("address")?.to_vec())
                .map_err(|_| malformed("address", "it is not a multiaddress"))?;
            if without_peer(&address) != address {
                let reason = "names a peer at its end";
                return Err(TicketError::Address { address, reason });
            }
            addresses.push(address);
        }
        if !from.rest.is_empty() {
            return Err(malformed("addresses", "bytes follow the last one"));
        }
        check_addresses(&addresses)?;
        ticket.addresses = addresses;
        // A peer id or an address can have several encodings, of which one is written.
        match ticket.to_bytes() == bytes {
            true => Ok(ticket),
            false => Err(malformed("encoding", "it is not the shortest one")),
        }
    }
}

/// Writes the ticket as text: [`PREFIX`] and lower-case base32.
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.to_bytes();
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        let text = BASE32_NOPAD_NOCASE.encode(&bytes).to_ascii_lowercase();
        write!(f, "{PREFIX}{text}")
    }
}

/// Reads a ticket as text, in lower or upper case. White space around it is ignored.
impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > MAX_TICKET_CHARS {
            return Err(TicketError::TooLong {
                len: text.chars().count(),
                max: MAX_TICKET_CHARS,
            });
        }
        let (prefix, encoded) = text
            .split_at_checked(PREFIX.len())
            .ok_or(TicketError::Prefix)?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return Err(TicketError::Prefix);
        }
        let is_base32 = |c: char| matches!(c, 'a'..='z' | 'A'..='Z' | '2'..='7');
        if let Some((nth, character)) = encoded.chars().enumerate().find(|(_, c)| !is_base32(*c)) {
            return Err(TicketError::Character {
                character,
                position: PREFIX.len() + nth + 1,
            });
        }
        let decoded = BASE32_NOPAD_NOCASE.decode(encoded.as_bytes());
        let bytes = decoded.map_err(|error| match error.kind {
            // Bits behind the last byte, which are zero unless the last character was changed.
            DecodeKind::Trailing => TicketError::Checksum,
            _ => TicketError::Cut,
        })?;
        let (fields, checksum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(TicketError::Cut)?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*checksum) {
            return Err(TicketError::Checksum);
        }
        Self::from_bytes(fields)
    }
}

fn check_addresses(addresses: &[Multiaddr]) -> Result<(), TicketError> {
    if addresses.len() > MAX_ADDRESSES {
        return Err(TicketError::TooManyAddresses {
            count: addresses.len() as u64,
            max: MAX_ADDRESSES,
        });
    }
    for address in addresses {
        if address.is_empty() {
            return Err(TicketError::Address {
                address: address.clone(),
                reason: "is empty",
            });
        }
        if address.len() > MAX_ADDRESS_BYTES {
            return Err(TicketError::AddressesTooLong {
                len_bytes: address.len() as u64,
                max_bytes: MAX_ADDRESS_BYTES,
            });
        }
    }
    let len_bytes: usize = addresses.iter().map(Multiaddr::len).sum();
    if len_bytes > MAX_ADDRESSES_BYTES {
        return Err(TicketError::AddressesTooLong {
            len_bytes: len_bytes as u64,
            max_bytes: MAX_ADDRESSES_BYTES,
        });
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), TicketError> {
    let refuse = |reason| {
        Err(TicketError::Name {
            name: name.chars().take(64).collect(),
            reason,
        })
    };
    if name.contains('/') {
        return refuse("it is a path");
    }
    if name.starts_with('.') {
        return refuse("it begins with a dot");
    }
    match name.parse::<EntryPath>() {
        Ok(_) => Ok(()),
        Err(_) => refuse(
            "it is empty, longer than 255 bytes, or has a control character, a backslash or a colon",
        ),
    }
}

fn malformed(field: &'static str, reason: &'static str) -> TicketError {
    TicketError::Malformed { field, reason }
}

fn put_number(to: &mut Vec<u8>, number: u64) {
    let mut buffer = encode::u64_buffer();
    to.extend_from_slice(encode::u64(number, &mut buffer));
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    put_number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// The bytes of a ticket that are not read yet.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], TicketError> {
        let taken = self.rest.split_at_checked(len);
        let (taken, rest) = taken.ok_or(malformed(field, "it is cut"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, TicketError> {
        Ok(self.array::<1>(field)?[0])
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], TicketError> {
        let taken = self.take(field, N)?.try_into();
        taken.map_err(|_| malformed(field, "it is cut"))
    }

    fn number(&mut self, field: &'static str) -> Result<u64, TicketError> {
        let (number, rest) = varint::read(self.rest)
            .map_err(|_| malformed(field, "it is cut or not in its shortest form"))?;
        self.rest = rest;
        Ok(number)
    }

    fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], TicketError> {
        let len = usize::try_from(self.number(field)?).unwrap_or(usize::MAX);
        self.take(field, len)
    }
}
