//! Signed peer records.

use calimero_network_primitives::PeerId;
use libp2p_core::{PeerRecord, SignedEnvelope};

use crate::wire::rendezvous::Refusal;

/// Verifies a record and says whose it is: signed by the key that its peer id is made of, for
/// at least one address.
///
/// The layout is the one of the stock client (libp2p-rendezvous 0.18). It takes no page on which
/// there is any other, so none is let in.
///
/// # Errors
///
/// [`Refusal::Record`].
pub fn verify(record: &[u8]) -> Result<PeerId, Refusal> {
    let envelope = SignedEnvelope::from_protobuf_encoding(record).map_err(|_| Refusal::Record)?;
    let record = PeerRecord::from_signed_envelope(envelope).map_err(|_| Refusal::Record)?;
    if record.addresses().is_empty() {
        return Err(Refusal::Record);
    }
    Ok(record.peer_id())
}
