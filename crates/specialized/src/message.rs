//! The messages: what an attested node asks, and what it is told.

use std::fmt;

use borsh::BorshSerialize;
use bytes::Bytes;

/// Length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 32;

/// Length of a public key, in bytes.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// A node of a special kind asks to be invited.
///
/// Borsh: an enum, the variant number in one byte before its fields.
#[derive(Clone, PartialEq, Eq, Hash, BorshSerialize)]
#[non_exhaustive]
pub enum SpecializedNodeInviteRequest {
    /// Variant 0: a node that runs in a trusted execution environment shows its attestation.
    TeeAttestation {
        /// Ties the answer to the question. It comes from whoever announced that such nodes are
        /// wanted.
        nonce: [u8; NONCE_BYTES],
        /// The attestation quote. Opaque here; whoever answers verifies it. Decoded, it is a slice
        /// of the receive buffer.
        quote_bytes: Bytes,
        /// The public key that the invitation is to be made for.
        public_key: [u8; PUBLIC_KEY_BYTES],
    },
}

impl SpecializedNodeInviteRequest {
    /// What ties the answer to this request.
    #[must_use]
    pub fn nonce(&self) -> &[u8; NONCE_BYTES] {
        match self {
            Self::TeeAttestation { nonce, .. } => nonce,
        }
    }
}

/// Opaque bytes as logs show them: by their number.
struct Opaque<'a>(&'a Bytes);

impl fmt::Debug for Opaque<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for SpecializedNodeInviteRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TeeAttestation {
                nonce,
                quote_bytes,
                public_key,
            } => f
                .debug_struct("TeeAttestation")
                .field("nonce", nonce)
                .field("quote_bytes", &Opaque(quote_bytes))
                .field("public_key", public_key)
                .finish(),
        }
    }
}

/// The answer: an invitation, or why there is none.
///
/// The format allows both and neither; what that means is for the application to say. So is
/// whether [`nonce`](Self::nonce) must be that of the request.
#[derive(Clone, PartialEq, Eq, Hash, BorshSerialize)]
pub struct SpecializedNodeInviteResponse {
    /// The nonce of the request.
    pub nonce: [u8; NONCE_BYTES],
    /// The invitation. Opaque here. Decoded, it is a slice of the receive buffer.
    pub invitation_bytes: Option<Bytes>,
    /// Why there is no invitation. Text of the peer: not trusted, up to 1 MiB of it.
    pub error: Option<String>,
}

impl fmt::Debug for SpecializedNodeInviteResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let invitation = self.invitation_bytes.as_ref().map(Opaque);
        f.debug_struct("SpecializedNodeInviteResponse")
            .field("nonce", &self.nonce)
            .field("invitation_bytes", &invitation)
            .field("error", &self.error)
            .finish()
    }
}

impl SpecializedNodeInviteResponse {
    /// An answer with an invitation.
    #[must_use]
    pub fn invitation(nonce: [u8; NONCE_BYTES], invitation: impl Into<Bytes>) -> Self {
        Self {
            nonce,
            invitation_bytes: Some(invitation.into()),
            error: None,
        }
    }

    /// An answer that says why there is no invitation.
    #[must_use]
    pub fn error(nonce: [u8; NONCE_BYTES], error: impl Into<String>) -> Self {
        Self {
            nonce,
            invitation_bytes: None,
            error: Some(error.into()),
        }
    }

    /// The answer of a node that did not get as far as answering.
    #[must_use]
    pub fn refusal(nonce: [u8; NONCE_BYTES], refusal: Refusal) -> Self {
        Self::error(nonce, refusal.text())
    }

    /// Which refusal this is; `None` if it is an answer of the peer's application.
    #[must_use]
    pub fn as_refusal(&self) -> Option<Refusal> {
        if self.invitation_bytes.is_some() {
            return None;
        }
        let text = self.error.as_deref()?;
        Refusal::ALL.into_iter().find(|known| known.text() == text)
    }
}

/// Why a node did not get as far as answering.
///
/// The format has no place for it beside the error text, so each refusal has a fixed text that
/// starts with the name of the protocol: implementations that do not know it report it as any
/// other error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It serves as many requests as it may.
    #[error("the peer serves as many requests as it may")]
    Busy,
    /// The request is larger than it accepts.
    #[error("the request is larger than the peer accepts")]
    TooLarge,
    /// The request is not one it can read.
    #[error("the peer cannot read the request")]
    Malformed,
    /// Its application let the request go without an answer.
    #[error("the peer's application gave no answer")]
    Unanswered,
    /// Its application did not answer in time.
    #[error("the peer's application gave no answer in time")]
    Late,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 5] = [
        Self::Busy,
        Self::TooLarge,
        Self::Malformed,
        Self::Unanswered,
        Self::Late,
    ];

    /// The error text that stands for it. At most 64 bytes.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Busy => "specialized-node-invite: busy",
            Self::TooLarge => "specialized-node-invite: request too large",
            Self::Malformed => "specialized-node-invite: malformed request",
            Self::Unanswered => "specialized-node-invite: no answer",
            Self::Late => "specialized-node-invite: no answer in time",
        }
    }
}
