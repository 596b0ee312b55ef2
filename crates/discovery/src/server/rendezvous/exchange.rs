//! One request and its answer on one stream.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, FutureExt as _, future::Either,
};
use futures_timer::Delay;

/// What surrounds a record in a request, in bytes: a namespace (255), a cookie (1,024) and what
/// is unknown here.
pub(super) const REQUEST_OVERHEAD_BYTES: usize = 2048;

/// Bytes of a length that is not above a request's: 2^21 has three.
const MAX_LENGTH_BYTES: usize = 3;

/// Why a stream carried no request, or took no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It carried something else than a request.
    #[error("not a request of /rendezvous/1.0.0")]
    Malformed,
    /// The request is longer than any request has to be.
    #[error("a request of {claimed} bytes; at most {limit} are read")]
    TooLong {
        /// Length that the peer claims.
        claimed: usize,
        /// Bytes that are read.
        limit: usize,
    },
    /// Not done by the deadline.
    #[error("not done within {} ms", after.as_millis())]
    Late {
        /// The deadline.
        after: Duration,
    },
    /// As many requests as may be are under way.
    #[error("{limit} requests are under way")]
    TooMany {
        /// How many may be: of the connection or of all.
        limit: usize,
    },
    /// The peer asks faster than it may, and its requests would wait longer than the deadline.
    #[error("more requests than may be in this time")]
    TooFast,
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads one request.
pub(super) async fn read<S>(stream: &mut S, limit: usize) -> Result<Bytes, Failure>
where
    S: AsyncRead + Unpin,
{
    let mut claimed = 0;
    for at in 0.. {
        if at == MAX_LENGTH_BYTES {
            return Err(Failure::Malformed);
        }
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        claimed |= usize::from(byte[0] & 0x7f) << (7 * at);
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    if claimed > limit {
        return Err(Failure::TooLong { claimed, limit });
    }
    let mut message = vec![0; claimed];
    stream.read_exact(&mut message).await?;
    Ok(message.into())
}

/// Writes an answer and ends the stream.
pub(super) async fn answer<S>(stream: &mut S, answer: &[u8]) -> Result<(), Failure>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(answer).await?;
    Ok(stream.close().await?)
}

/// `work`, unless `deadline` passes first.
pub(super) async fn by<T>(
    deadline: &mut Delay,
    after: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    futures::pin_mut!(work);
    match futures::future::select(work, deadline.fuse()).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err(Failure::Late { after }),
    }
}
