//! Specialized node invites.

use calimero_network_primitives::PeerId;
use calimero_network_specialized::{
    OutboundRequestId, RespondError, ResponseChannel, SpecializedNodeInviteRequest,
    SpecializedNodeInviteResponse,
};

use super::NetworkClient;
use crate::{command::Command, error::InviteError};

/// Specialized node invites.
///
/// ```
/// # use calimero_network::{
/// #     InviteEvent, Keypair, NetworkConfig, NetworkEvent, NetworkManager,
/// #     SpecializedNodeInviteRequest as Request, SpecializedNodeInviteResponse as Response,
/// # };
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let quiet = NetworkConfig { listen: Vec::new(), ..NetworkConfig::default() };
/// # let key = Keypair::generate_ed25519;
/// # let (node, mut node_sees) = NetworkManager::start_in_memory(key(), quiet.clone()).await?;
/// # let (host, mut host_sees) = NetworkManager::start_in_memory(key(), quiet).await?;
/// # let (_, address) = host.listen_on("/memory/0".parse()?).await?;
/// # node.dial(address).await?;
/// let request = Request::TeeAttestation {
///     nonce: [7; 32],
///     quote_bytes: "a quote".into(),
///     public_key: [9; 32],
/// };
/// let asked = node.send_specialized_node_verification_request(host.peer_id(), request).await?;
///
/// while let Some(event) = host_sees.next().await {
///     if let NetworkEvent::Invite(InviteEvent::Request { request, channel, .. }) = event {
///         let answer = Response::invitation(*request.nonce(), "welcome");
///         host.send_specialized_node_invitation_response(channel, &answer)?;
///         break;
///     }
/// }
/// while let Some(event) = node_sees.next().await {
///     if let NetworkEvent::Invite(InviteEvent::Response { request_id, response, .. }) = event {
///         assert_eq!(request_id, asked);
///         assert_eq!(response.invitation_bytes, Some("welcome".into()));
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
/// ```
impl NetworkClient {
    /// Asks `peer` to verify this node and to invite it. Dials the peer if it is not connected and an
    /// address is known.
    ///
    /// The id that is given comes back in exactly one
    /// [`InviteEvent::Response`](crate::InviteEvent::Response) or
    /// [`InviteEvent::Failed`](crate::InviteEvent::Failed), after
    /// `specialized.request_timeout_ms` at the latest.
    ///
    /// # Errors
    ///
    /// [`InviteError`]; no event comes then.
    pub async fn send_specialized_node_verification_request(
        &self,
        peer: PeerId,
        request: SpecializedNodeInviteRequest,
    ) -> Result<OutboundRequestId, InviteError> {
        self.ask(|reply| Command::Invite {
            peer,
            request,
            reply,
        })
        .await?
    }

    /// Answers the request that came with `channel`, from any task. Followed by
    /// [`InviteEvent::ResponseSent`](crate::InviteEvent::ResponseSent) or
    /// [`InviteEvent::ResponseFailed`](crate::InviteEvent::ResponseFailed).
    ///
    /// # Errors
    ///
    /// [`RespondError`] if the answer is too large, or the request has ended.
    pub fn send_specialized_node_invitation_response(
        &self,
        channel: ResponseChannel,
        response: &SpecializedNodeInviteResponse,
    ) -> Result<(), RespondError> {
        channel.send(response)
    }
}
