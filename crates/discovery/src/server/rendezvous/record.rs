//! Signed peer records.

use calimero_network_primitives::PeerId;
use libp2p_core::{PeerRecord, SignedEnvelope};

use crate::wire::rendezvous::Refusal;

/// Verifies a record and returns its peer: it must be signed by the key of its peer id and have at
/// least one address.
///
/// The layout is that of the stock client (libp2p-rendezvous 0.18). That client drops a page that
/// contains a record of another layout, so such a record is refused.
///
/// # Errors
///
/// [`Refusal::Record`] for every other record.
pub fn verify(record: &[u8]) -> Result<PeerId, Refusal> {
    let envelope = SignedEnvelope::from_protobuf_encoding(record).map_err(|_| Refusal::Record)?;
    let record = PeerRecord::from_signed_envelope(envelope).map_err(|_| Refusal::Record)?;
    if record.addresses().is_empty() {
        return Err(Refusal::Record);
    }
    Ok(record.peer_id())
}
