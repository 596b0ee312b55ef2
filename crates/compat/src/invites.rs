//! Specialized node invites, between the types of the manager and those of the published crate.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use calimero_network_primitives::{
    messages::OutboundRequestId,
    specialized_node_invite::{
        MAX_SPECIALIZED_NODE_INVITE_MESSAGE_SIZE, SpecializedNodeInvitationResponse,
        VerificationRequest,
    },
};
use eyre::{Result, eyre};
use futures::{AsyncRead, AsyncWrite};
use network::{
    ResponseChannel, SpecializedNodeInviteRequest as OurRequest,
    SpecializedNodeInviteResponse as OurResponse,
};
use tokio::sync::Mutex;

/// The ids of pending requests: the manager's, and the one that the node knows. The manager bounds
/// their number by `specialized.max_outbound`.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<HashMap<network::OutboundRequestId, OutboundRequestId>>);

impl Pending {
    /// Sends a request by `send` and pairs its id with `id`. Answers wait until that is done.
    pub(crate) async fn send(
        &self,
        id: OutboundRequestId,
        send: impl Future<Output = Result<network::OutboundRequestId>>,
    ) -> Result<OutboundRequestId> {
        let mut pending = self.0.lock().await;
        pending.insert(send.await?, id);
        Ok(id)
    }

    /// The id that the node knows of a request that has ended.
    pub(crate) async fn take(&self, id: &network::OutboundRequestId) -> Option<OutboundRequestId> {
        self.0.lock().await.remove(id)
    }
}

pub(crate) fn request_to_ours(request: VerificationRequest) -> OurRequest {
    let VerificationRequest::TeeAttestation {
        nonce,
        quote_bytes,
        public_key,
    } = request;
    OurRequest::TeeAttestation {
        nonce,
        quote_bytes: quote_bytes.into(),
        public_key: *public_key.digest(),
    }
}

fn request_to_node(request: OurRequest) -> Result<VerificationRequest> {
    match request {
        OurRequest::TeeAttestation {
            nonce,
            quote_bytes,
            public_key,
        } => Ok(VerificationRequest::TeeAttestation {
            nonce,
            quote_bytes: quote_bytes.into(),
            public_key: public_key.into(),
        }),
        _ => Err(eyre!("the node does not know requests of this kind")),
    }
}

fn response_to_ours(response: SpecializedNodeInvitationResponse) -> OurResponse {
    OurResponse {
        nonce: response.nonce,
        invitation_bytes: response.invitation_bytes.map(Into::into),
        error: response.error,
    }
}

pub(crate) fn response_to_node(response: OurResponse) -> SpecializedNodeInvitationResponse {
    SpecializedNodeInvitationResponse {
        nonce: response.nonce,
        invitation_bytes: response.invitation_bytes.map(Into::into),
        error: response.error,
    }
}

/// The byte stream of one request: reads the request, takes the response, and sends it to the
/// channel of the manager when it is closed. Dropping it refuses the request.
pub(crate) struct Exchange {
    request: Vec<u8>,
    read: usize,
    response: Vec<u8>,
    channel: Option<ResponseChannel>,
}

impl Exchange {
    pub(crate) fn new(request: OurRequest, channel: ResponseChannel) -> Result<Self> {
        let request = borsh::to_vec(&request_to_node(request)?)?;
        Ok(Self {
            request: prefixed(&request)?,
            read: 0,
            response: Vec::new(),
            channel: Some(channel),
        })
    }

    /// Sends the response, if it is complete.
    fn finish(&mut self) -> io::Result<()> {
        let Some(channel) = self.channel.take() else {
            return Ok(());
        };
        let payload = self.response.get(4..).unwrap_or_default();
        let response = borsh::from_slice::<SpecializedNodeInvitationResponse>(payload)?;
        let response = response_to_ours(response);
        channel.send(&response).map_err(io::Error::other)
    }
}

/// The message with its length before it, as it goes over the network.
fn prefixed(message: &[u8]) -> Result<Vec<u8>> {
    let len = u32::try_from(message.len())?;
    Ok([&len.to_be_bytes(), message].concat())
}

impl AsyncRead for Exchange {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let rest = &self.request[self.read..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Exchange {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // A message of the largest size, and its length.
        let limit = MAX_SPECIALIZED_NODE_INVITE_MESSAGE_SIZE as usize + 4;
        if self.response.len() + buf.len() > limit {
            let size = self.response.len() + buf.len();
            let error = format!("invite response of {size} bytes, the limit is {limit}");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, error)));
        }
        self.response.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.response.is_empty() {
            // The node dropped the channel without a response.
            self.channel = None;
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.finish().inspect_err(|error| {
            tracing::warn!(%error, "an invite response was not sent");
        }))
    }
}
