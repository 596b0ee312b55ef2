//! The network of a node.

use axum::response::Response;

use super::{
    State,
    answer::{self, Refusal},
    schema::Answer,
};
use crate::netcheck::NetcheckPage;

/// Which NAT the node is behind, as other peers have seen it, and what that means.
#[utoipa::path(
    get,
    path = "/v1/netcheck",
    tag = "node",
    responses((status = 200, description = "What the node has seen.", body = Answer<NetcheckPage>)),
)]
pub(super) async fn netcheck(state: State) -> Result<Response, Refusal> {
    let status = state.client.status().await?;
    Ok(answer::record(&NetcheckPage::of_node(&status)))
}
