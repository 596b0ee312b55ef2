//! Who has a blob: the records of providers in the DHT.

use bytes::{BufMut, Bytes, BytesMut};
use calimero_network_primitives::{
    BlobId, ContextId, Keypair, PeerId, identity::PublicKey, limits::MAX_PROVIDER_RECORD_BYTES,
};

use crate::error::RecordError;

/// What a signature over a provider record begins with, so that it means nothing elsewhere.
const DOMAIN: &[u8] = b"calimero:dht:blob-provider:v1";

/// Length of a record's key, in bytes.
pub const RECORD_KEY_BYTES: usize = 64;

/// Length of the size in a record, in bytes.
const SIZE_BYTES: usize = 8;

/// The key of a blob's provider records: the context id, then the blob id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// The context in which the blob is offered.
    pub context_id: ContextId,
    /// The id of the blob.
    pub blob_id: BlobId,
}

impl RecordKey {
    /// The key as it is in the DHT.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD_KEY_BYTES] {
        let mut key = [0; RECORD_KEY_BYTES];
        key[..32].copy_from_slice(self.context_id.as_bytes());
        key[32..].copy_from_slice(self.blob_id.as_bytes());
        key
    }

    /// Reads a key of the DHT.
    ///
    /// # Errors
    ///
    /// [`RecordError::KeyLength`] where it has another length.
    pub fn from_bytes(key: &[u8]) -> Result<Self, RecordError> {
        let key: &[u8; RECORD_KEY_BYTES] = key.try_into().map_err(|_| RecordError::KeyLength {
            len_bytes: key.len(),
            expected_bytes: RECORD_KEY_BYTES,
        })?;
        let (mut context_id, mut blob_id) = ([0; 32], [0; 32]);
        context_id.copy_from_slice(&key[..32]);
        blob_id.copy_from_slice(&key[32..]);
        Ok(Self {
            context_id: context_id.into(),
            blob_id: blob_id.into(),
        })
    }
}

/// A provider's signed word that it has a blob. What [`verify`](Self::verify) returns is proven
/// to be said by that peer about that key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderRecord {
    /// Who has the blob.
    pub provider: PeerId,
    /// Size of the blob in bytes, by the word of the provider.
    pub size_bytes: u64,
}

/// The signed layout: Borsh of `{ peer_id: Vec<u8>, size: u64, public_key: Vec<u8>, signature:
/// Vec<u8> }`. Read in place, since Borsh's own reader allocates by the lengths that the bytes claim.
struct Layout<'a> {
    peer_id: &'a [u8],
    size_bytes: u64,
    public_key: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Layout<'a> {
    fn read(value: &'a [u8]) -> Option<Self> {
        let (peer_id, value) = split_vec(value)?;
        let (size, value) = value.split_first_chunk()?;
        let (public_key, value) = split_vec(value)?;
        let (signature, value) = split_vec(value)?;
        value.is_empty().then_some(Self {
            peer_id,
            size_bytes: u64::from_le_bytes(*size),
            public_key,
            signature,
        })
    }

    fn write(&self) -> Result<Bytes, RecordError> {
        let vectors = [self.peer_id, self.public_key, self.signature];
        let vectors_bytes: usize = vectors.iter().map(|vector| 4 + vector.len()).sum();
        check_length(vectors_bytes + SIZE_BYTES)?;
        let mut value = BytesMut::with_capacity(vectors_bytes + SIZE_BYTES);
        put_vec(&mut value, self.peer_id)?;
        value.put_u64_le(self.size_bytes);
        put_vec(&mut value, self.public_key)?;
        put_vec(&mut value, self.signature)?;
        Ok(value.freeze())
    }
}

/// The bytes of a leading Borsh vector, and what follows it.
fn split_vec(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = value.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
}

fn put_vec(value: &mut BytesMut, bytes: &[u8]) -> Result<(), RecordError> {
    let len = u32::try_from(bytes.len()).map_err(|_| RecordError::Layout)?;
    value.put_u32_le(len);
    value.put_slice(bytes);
    Ok(())
}

impl ProviderRecord {
    /// Writes the value of a record that says the holder of `keypair` has the blob.
    ///
    /// # Errors
    ///
    /// [`RecordError::CannotSign`] where the keypair fails, [`RecordError::TooLong`] where its
    /// key is so large (RSA) that the record exceeds [`MAX_PROVIDER_RECORD_BYTES`].
    pub fn sign(keypair: &Keypair, key: &RecordKey, size_bytes: u64) -> Result<Bytes, RecordError> {
        let public_key = keypair.public();
        let peer_id = public_key.to_peer_id().to_bytes();
        let signature = keypair
            .sign(&signed_message(key, &peer_id, size_bytes))
            .map_err(|_| RecordError::CannotSign)?;
        Layout {
            peer_id: &peer_id,
            size_bytes,
            public_key: &public_key.encode_protobuf(),
            signature: &signature,
        }
        .write()
    }

    /// Reads and verifies the value of a record found under `key`.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: too long, of another layout, signed by another peer than the one it names,
    /// or not signed over this key, peer and size.
    pub fn verify(key: &RecordKey, value: &[u8]) -> Result<Self, RecordError> {
        check_length(value.len())?;
        let layout = Layout::read(value).ok_or(RecordError::Layout)?;
        let named = PeerId::from_bytes(layout.peer_id).map_err(|_| RecordError::PeerId)?;
        let public_key = PublicKey::try_decode_protobuf(layout.public_key)
            .map_err(|_| RecordError::PublicKey)?;
        let signer = public_key.to_peer_id();
        if signer != named {
            let signer = Box::new(signer);
            return Err(RecordError::NotTheSigner { named, signer });
        }
        let message = signed_message(key, layout.peer_id, layout.size_bytes);
        if !public_key.verify(&message, layout.signature) {
            return Err(RecordError::Signature { named });
        }
        Ok(Self {
            provider: named,
            size_bytes: layout.size_bytes,
        })
    }
}

/// The unsigned layout, which every peer can write in the name of any other: the peer id, then the size as
/// little-endian `u64`. Only for networks whose configuration asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsignedRecord {
    /// Who is said to have the blob. Nothing proves it.
    pub provider: PeerId,
    /// Size of the blob in bytes, as the writer of the record claims.
    pub size_bytes: u64,
}

impl UnsignedRecord {
    /// Writes the value of a record.
    ///
    /// # Errors
    ///
    /// [`RecordError::TooLong`], which the peer ids of all supported keys stay below.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut value = self.provider.to_bytes();
        value.extend_from_slice(&self.size_bytes.to_le_bytes());
        check_length(value.len())?;
        Ok(value.into())
    }

    /// Reads the value of a record. Verifies nothing, since nothing can be.
    ///
    /// # Errors
    ///
    /// [`RecordError::TooLong`], [`RecordError::Layout`] or [`RecordError::PeerId`].
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        check_length(value.len())?;
        let (peer_id, size) = value
            .split_last_chunk::<SIZE_BYTES>()
            .ok_or(RecordError::Layout)?;
        Ok(Self {
            provider: PeerId::from_bytes(peer_id).map_err(|_| RecordError::PeerId)?,
            size_bytes: u64::from_le_bytes(*size),
        })
    }
}

fn check_length(len_bytes: usize) -> Result<(), RecordError> {
    if len_bytes > MAX_PROVIDER_RECORD_BYTES {
        return Err(RecordError::TooLong {
            len_bytes,
            max_bytes: MAX_PROVIDER_RECORD_BYTES,
        });
    }
    Ok(())
}

/// What is signed: the domain, then key and peer id each after its length, then the size; lengths
/// and size as little-endian `u64`.
fn signed_message(key: &RecordKey, peer_id: &[u8], size_bytes: u64) -> Vec<u8> {
    let key = key.to_bytes();
    [
        DOMAIN,
        &(key.len() as u64).to_le_bytes(),
        &key,
        &(peer_id.len() as u64).to_le_bytes(),
        peer_id,
        &size_bytes.to_le_bytes(),
    ]
    .concat()
}
