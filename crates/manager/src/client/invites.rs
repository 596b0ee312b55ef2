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
/// #     Keypair, NetworkConfig, NetworkEvent, NetworkManager,
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
///     if let NetworkEvent::InviteRequest { request, channel, .. } = event {
///         let answer = Response::invitation(*request.nonce(), "welcome");
///         host.send_specialized_node_invitation_response(channel, &answer)?;
///         break;
///     }
/// }
/// while let Some(event) = node_sees.next().await {
///     if let NetworkEvent::InviteResponse { request_id, response, .. } = event {
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
    /// Asks `peer` to verify this node and to invite it, dialling it if no connection stands and
    /// an address is known.
    ///
    /// The id that is given comes back in exactly one
    /// [`InviteResponse`](crate::NetworkEvent::InviteResponse) or
    /// [`InviteFailed`](crate::NetworkEvent::InviteFailed), after
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

    /// Answers the request that came with `channel`, from any task. That the answer was sent, or
    /// why not, is told by [`InviteResponseSent`](crate::NetworkEvent::InviteResponseSent) or
    /// [`InviteResponseFailed`](crate::NetworkEvent::InviteResponseFailed).
    ///
    /// # Errors
    ///
    /// [`RespondError`] if the answer is too large, or nobody waits for it any more.
    pub fn send_specialized_node_invitation_response(
        &self,
        channel: ResponseChannel,
        response: &SpecializedNodeInviteResponse,
    ) -> Result<(), RespondError> {
        channel.send(response)
    }
}
