//! The messages of the protocol: the request of an attested node and its
//! response.

use std::fmt;

use borsh::BorshSerialize;
use bytes::Bytes;

/// Length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 32;

/// Length of a public key, in bytes.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// A request of a specialized node to be invited.
///
/// In Borsh it is an enum: one byte with the variant number precedes the
/// fields.
#[derive(Clone, PartialEq, Eq, Hash, BorshSerialize)]
#[non_exhaustive]
pub enum SpecializedNodeInviteRequest {
    /// Variant 0: a node in a trusted execution environment sends its
    /// attestation.
    TeeAttestation {
        /// Connects the response to the request. The node that announced a need
        /// for such nodes chose it.
        nonce: [u8; NONCE_BYTES],
        /// The attestation quote. This crate does not interpret it; the
        /// receiver's application verifies it. A decoded quote is a slice of
        /// the receive buffer.
        quote_bytes: Bytes,
        /// The public key for which the invitation is created.
        public_key: [u8; PUBLIC_KEY_BYTES],
    },
}

impl SpecializedNodeInviteRequest {
    /// Returns the nonce that connects the response to this request.
    #[must_use]
    pub fn nonce(&self) -> &[u8; NONCE_BYTES] {
        match self {
            Self::TeeAttestation { nonce, .. } => nonce,
        }
    }
}

/// Formats opaque bytes as their number.
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

/// The response: an invitation, or the reason why there is none.
///
/// The format allows both fields to be present or absent; the application
/// defines the meaning. The application also decides whether
/// [`nonce`](Self::nonce) must equal that of the request.
#[derive(Clone, PartialEq, Eq, Hash, BorshSerialize)]
pub struct SpecializedNodeInviteResponse {
    /// The nonce of the request.
    pub nonce: [u8; NONCE_BYTES],
    /// The invitation. This crate does not interpret it. A decoded invitation
    /// is a slice of the receive buffer.
    pub invitation_bytes: Option<Bytes>,
    /// The reason why there is no invitation: untrusted text of the peer, up to
    /// 1 MiB.
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
    /// Creates a response with an invitation.
    #[must_use]
    pub fn invitation(nonce: [u8; NONCE_BYTES], invitation: impl Into<Bytes>) -> Self {
        Self {
            nonce,
            invitation_bytes: Some(invitation.into()),
            error: None,
        }
    }

    /// Creates a response with an error text.
    #[must_use]
    pub fn error(nonce: [u8; NONCE_BYTES], error: impl Into<String>) -> Self {
        Self {
            nonce,
            invitation_bytes: None,
            error: Some(error.into()),
        }
    }

    /// Creates the response of a node that refuses a request before its
    /// application has answered.
    #[must_use]
    pub fn refusal(nonce: [u8; NONCE_BYTES], refusal: Refusal) -> Self {
        Self::error(nonce, refusal.text())
    }

    /// Returns the refusal that this response contains, or `None` if it is a
    /// response of the peer's application.
    #[must_use]
    pub fn as_refusal(&self) -> Option<Refusal> {
        if self.invitation_bytes.is_some() {
            return None;
        }
        let text = self.error.as_deref()?;
        Refusal::ALL.into_iter().find(|known| known.text() == text)
    }
}

/// Reason for which a node refused a request before its application answered.
///
/// The format has no field for it except the error text. Each refusal therefore
/// has a fixed text that starts with the name of the protocol, and other
/// implementations report it as an ordinary error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The limit of concurrent requests is reached.
    #[error("the peer serves its limit of concurrent requests")]
    Busy,
    /// The request is above the peer's limit.
    #[error("the request is above the peer's size limit")]
    TooLarge,
    /// The request could not be decoded.
    #[error("the peer cannot decode the request")]
    Malformed,
    /// The application dropped the request without a response.
    #[error("the peer's application gave no response")]
    Unanswered,
    /// The application did not respond in time.
    #[error("the peer's application gave no response in time")]
    Late,
}

impl Refusal {
    /// All refusals, each exactly once.
    pub const ALL: [Self; 5] = [
        Self::Busy,
        Self::TooLarge,
        Self::Malformed,
        Self::Unanswered,
        Self::Late,
    ];

    /// Returns the error text of the refusal in a response. At most 64 bytes.
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
