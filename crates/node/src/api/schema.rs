//! Types that exist for the description of the API alone.

#![expect(dead_code, reason = "describes what other types write and read")]

use utoipa::ToSchema;

/// A record with its name and time, as `output::json_line` writes it.
#[derive(ToSchema)]
pub(super) struct Answer<T> {
    #[serde(flatten)]
    record: T,
    /// Name of the record.
    event: String,
    /// Time of the answer (RFC 3339, UTC).
    #[schema(format = DateTime)]
    time: String,
}

/// Bytes.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(super) struct Content(Vec<u8>);

/// One server-sent event of a stream.
#[derive(ToSchema)]
pub(super) struct StreamEvent {
    /// One record as JSON: `NodeRecord` or `BlobRecord`, with its time.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// The id of a blob: 32 bytes in base58.
#[derive(ToSchema)]
#[schema(
    value_type = String,
    pattern = "^[1-9A-HJ-NP-Za-km-z]{32,44}$",
    example = "GKot5hBsd81kMupNCXHaqbhv3huEbxAFMLnpcX2hniwn",
)]
pub(super) struct BlobIdText(String);

/// The id of a context: 32 bytes in base58.
#[derive(ToSchema)]
#[schema(
    value_type = String,
    pattern = "^[1-9A-HJ-NP-Za-km-z]{32,44}$",
    example = "11111111111111111111111111111111",
)]
pub(super) struct ContextIdText(String);

/// A peer id in base58.
#[derive(ToSchema)]
#[schema(
    value_type = String,
    pattern = "^[1-9A-HJ-NP-Za-km-z]{46,60}$",
    example = "12D3KooWR5V4zmisVtVdGE6i8jfFwtgRNq5t8eDGxfckKuhXu7Eh",
)]
pub(super) struct PeerIdText(String);

/// A multiaddress.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^/[^/]", example = "/ip4/127.0.0.1/tcp/2428")]
pub(super) struct AddressText(String);

/// A ticket, as `calnet send` prints it.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^[Cc][Aa][Ll][Nn][Ee][Tt][A-Za-z2-7]+$", max_length = 4096)]
pub(super) struct TicketText(String);

/// A topic: 1 to 1024 bytes of UTF-8.
#[derive(ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 1024, example = "news")]
pub(super) struct TopicText(String);
