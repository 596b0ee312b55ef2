//! An upload limit that many requesters share, in paused time: exact, however loaded the machine
//! is.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use asynchronous_codec::{Encoder, FramedRead};
use bytes::BytesMut;
use calimero_network_blob::{
    BlobId,
    bandwidth::Bandwidth,
    blob_id,
    fetch::{BlobFetchConfig, Destination, FetchError, FetchRequest, Fetched, Fetcher, Providers},
    serve::{Server, Totals},
    store::BlobStore,
    transfer::{Identity, Version},
    v1::{Hello, Refusal, Request, RequesterCodec, Response},
};
use calimero_network_primitives::{PeerId, config::BlobServeConfig, resources::Origin};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::join_all, stream};
use tokio::time::Instant;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    net::{CONTEXT, Folder, content, folder},
    pipes::{Pipes, numbered, slowly_to},
};

/// The smallest limit that a configuration may have, in bytes per second.
const LIMIT: u64 = 64 * 1024;

const MIB: u64 = 1 << 20;

/// A server with the smallest limit.
struct Limited {
    there: Folder,
    server: Server,
    totals: Totals,
}

impl Limited {
    fn new() -> Self {
        let there = folder();
        let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
        let server = Server::new(provider(), store, &BlobServeConfig::default());
        let server = server.with_bandwidth(&Bandwidth::new(LIMIT, 0));
        let totals = server.totals();
        Self {
            there,
            server,
            totals,
        }
    }

    fn put(&self, content: &[u8]) -> BlobId {
        self.there.store.put(content).unwrap().id
    }

    /// A fetcher of a peer whose connection comes from `origin`.
    fn fetcher(&self, peer: PeerId, origin: u8, version: Version) -> Fetcher {
        let server = self.server.clone();
        let origin = Some(Origin::Ipv4([192, 0, 2, origin]));
        let pipes = Pipes::new(provider(), version, move |pipe| {
            let serving = server.serve_from(peer, origin, version, pipe);
            Box::pin(async move {
                let _ = serving.await;
            })
        });
        let config = BlobFetchConfig::default();
        Fetcher::new(pipes, Identity::unsigned(peer), &config)
    }
}

fn provider() -> PeerId {
    numbered(0)
}

/// Fetches a blob into memory. `on_chunk` takes the bytes that are verified whenever that changes.
async fn fetch(fetcher: Fetcher, id: BlobId, on_chunk: impl Fn(u64)) -> Fetched {
    let request = FetchRequest::new(CONTEXT, id);
    try_fetch(&fetcher, request, on_chunk).await.unwrap()
}

async fn try_fetch(
    fetcher: &Fetcher,
    request: FetchRequest,
    on_chunk: impl Fn(u64),
) -> Result<Fetched, FetchError> {
    let listed = stream::iter([provider()]);
    let to = Destination::Memory {
        max_bytes: 64 * MIB,
    };
    // As calnet does: a search that finds the same provider.
    let providers = Providers::listed(listed);
    let providers = providers.with_search(|| stream::iter([provider()]));
    let transfer = fetcher.fetch(request, providers, to);
    let mut progress = transfer.progress();
    let watching = async {
        while let Some(progress) = progress.next().await {
            on_chunk(progress.verified_bytes);
        }
    };
    futures::future::join(transfer, watching).await.0
}

/// Time in which the limit sends some bytes at 80 % of its rate.
fn useful(bytes: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / LIMIT as f64 / 0.8)
}

/// Each of some requesters fetches a blob of two chunks.
async fn all_get_it(requesters: u32, version: Version) {
    let limited = Limited::new();
    let content = content(1, 2 * MIB as usize);
    let id = limited.put(&content);
    let verified = Arc::new(Mutex::new(vec![0; requesters as usize]));
    let at_first_end = Arc::new(Mutex::new(None));
    let begun = Instant::now();
    let all = (0..requesters).map(|number| {
        let fetcher = limited.fetcher(numbered(1 + number), 1, version);
        let (verified, at_first_end) = (Arc::clone(&verified), Arc::clone(&at_first_end));
        async move {
            let on_chunk = |bytes| verified.lock().unwrap()[number as usize] = bytes;
            let fetched = fetch(fetcher, id, on_chunk).await;
            let verified = verified.lock().unwrap().clone();
            at_first_end.lock().unwrap().get_or_insert(verified);
            fetched
        }
    });
    let fetched = join_all(all).await;
    let elapsed = begun.elapsed();
    let bytes = u64::from(requesters) * 2 * MIB;
    assert!(elapsed <= useful(bytes), "{version:?}: {elapsed:?}");
    assert!(
        fetched
            .iter()
            .all(|one| one.content.as_deref() == Some(&content[..]))
    );
    assert_eq!(
        limited.totals.read().sent_bytes,
        bytes,
        "nothing is sent twice"
    );
    // In turn: when the first one has its second chunk, all others have one, but for those that are
    // being sent to, of which there are two.
    let at_first_end = at_first_end.lock().unwrap().take().unwrap();
    let without = at_first_end.iter().filter(|bytes| **bytes < MIB).count();
    assert!(without <= 2, "{version:?}: {at_first_end:?}");
}

#[tokio::test(start_paused = true)]
async fn eight_requesters_share_the_smallest_limit() {
    for version in [Version::V1_1, Version::V1] {
        all_get_it(8, version).await;
    }
}

#[tokio::test(start_paused = true)]
async fn thirty_two_requesters_share_the_smallest_limit() {
    all_get_it(32, Version::V1_1).await;
}

/// Requesters of 0.0.2 cannot be asked to wait, so some have to try again. Nothing is sent in vain.
#[tokio::test(start_paused = true)]
async fn requesters_of_v0_share_the_smallest_limit() {
    let limited = Limited::new();
    let id = limited.put(&content(2, MIB as usize + 5));
    let v0 = (0..4).map(|number| {
        let fetcher = limited.fetcher(numbered(1 + number), 1, Version::V0);
        async move {
            let request = FetchRequest::new(CONTEXT, id).without_search();
            while let Err(error) = try_fetch(&fetcher, request.clone(), |_| {}).await {
                assert!(matches!(error, FetchError::NoProviders { .. }), "{error}");
            }
        }
    });
    let v1 = (0..4).map(|number| {
        let fetcher = limited.fetcher(numbered(11 + number), 1, Version::V1_1);
        fetch(fetcher, id, |_| {})
    });
    let begun = Instant::now();
    futures::future::join(join_all(v0), join_all(v1)).await;
    let bytes = 8 * (MIB + 5);
    assert_eq!(
        limited.totals.read().sent_bytes,
        bytes,
        "nothing is sent twice"
    );
    // Between the tries of those of 0.0.2 nothing may be sent.
    assert!(
        begun.elapsed() <= 2 * useful(bytes),
        "{:?}",
        begun.elapsed()
    );
}

/// Many peers of one origin do not take the share of another one.
#[tokio::test(start_paused = true)]
async fn origins_have_equal_shares_of_the_limit() {
    let limited = Limited::new();
    let id = limited.put(&content(3, 2 * MIB as usize));
    let begun = Instant::now();
    let crowd = (0..12).map(|number| {
        fetch(
            limited.fetcher(numbered(10 + number), 1, Version::V1_1),
            id,
            |_| {},
        )
    });
    let alone = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let begun = Instant::now();
        fetch(limited.fetcher(numbered(1), 2, Version::V1_1), id, |_| {}).await;
        begun.elapsed()
    };
    let (_, alone) = futures::future::join(join_all(crowd), alone).await;
    // Its two chunks, each behind those that were begun and one of the other origin.
    assert!(alone <= Duration::from_secs(6 * 16 * 2), "{alone:?}");
    assert!(
        begun.elapsed() <= useful(13 * 2 * MIB),
        "{:?}",
        begun.elapsed()
    );
}

/// Small blobs and lists wait for the same turns, and a batch is answered so as well.
#[tokio::test(start_paused = true)]
async fn a_batch_gets_its_turn_between_chunks() {
    let limited = Limited::new();
    let large = limited.put(&content(4, 3 * MIB as usize));
    let small: Vec<_> = (0..64).map(|seed| content(100 + seed, 20_000)).collect();
    let ids: Vec<_> = small.iter().map(|content| limited.put(content)).collect();
    let others = (0..4).map(|number| {
        fetch(
            limited.fetcher(numbered(10 + number), 1, Version::V1_1),
            large,
            |_| {},
        )
    });
    let here = folder();
    let store: Arc<dyn BlobStore> = Arc::new(here.store.clone());
    let fetcher = limited.fetcher(numbered(1), 1, Version::V1_1);
    let batch = fetcher.fetch_batch(CONTEXT, ids.clone(), vec![provider()], store);
    let begun = Instant::now();
    let (_, batch) = futures::future::join(join_all(others), batch).await;
    let batch = batch.unwrap();
    assert!(batch.failed.is_empty(), "{:?}", batch.failed);
    assert_eq!(batch.fetched.len(), ids.len());
    assert!(ids.iter().all(|id| here.store.has(id)));
    assert_eq!(ids[0], blob_id(&small[0]));
    let bytes = 12 * MIB + 64 * 20_000;
    assert!(begun.elapsed() <= useful(bytes), "{:?}", begun.elapsed());
}

/// Positions of requesters that left are of no use to them, and hold up no others.
#[tokio::test(start_paused = true)]
async fn requesters_that_leave_hold_up_nobody() {
    let limited = Limited::new();
    let id = limited.put(&content(5, MIB as usize));
    let leaving = (0..16).map(|number| {
        let fetcher = limited.fetcher(numbered(10 + number), number as u8, Version::V1_1);
        tokio::time::timeout(Duration::from_secs(5), fetch(fetcher, id, |_| {}))
    });
    assert!(join_all(leaving).await.iter().all(Result::is_err));
    let begun = Instant::now();
    fetch(limited.fetcher(numbered(1), 1, Version::V1_1), id, |_| {}).await;
    // The one chunk, and the time for which a turn is held for others.
    assert!(
        begun.elapsed() <= useful(MIB) + Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}

/// Requesters on slow links, as many as have a turn at one time, do not keep the limit from others.
#[tokio::test(start_paused = true)]
async fn slow_requesters_leave_the_rest_of_the_limit_to_others() {
    let limited = Limited::new();
    let id = limited.put(&content(6, 40 * MIB as usize));
    let slow = (0..6).map(|number| {
        let server = limited.server.clone();
        let peer = numbered(50 + number);
        let pipes = Pipes::new(provider(), Version::V1_1, move |pipe| {
            slowly_to(peer, &server, Version::V1_1, pipe, 18 * 1024)
        });
        let identity = Identity::unsigned(peer);
        let fetcher = Fetcher::new(pipes, identity, &BlobFetchConfig::default());
        fetch(fetcher, id, |_| {})
    });
    let time = Duration::from_secs(1200);
    let ended = tokio::time::timeout(time, join_all(slow)).await;
    assert!(ended.is_err(), "they were quicker than the limit");
    let rate = limited.totals.read().sent_bytes as f64 / time.as_secs_f64();
    // Two of them take 56 %.
    assert!(rate >= 0.75 * LIMIT as f64, "{rate}");
}

/// A requester of 0.0.2 on a slow link does not keep the turn of blobs for as long as its blob
/// takes.
#[tokio::test(start_paused = true)]
async fn a_slow_requester_of_a_whole_blob_gives_its_turn_up() {
    let limited = Limited::new();
    let large = limited.put(&content(7, 40 * MIB as usize));
    let small = limited.put(&content(8, MIB as usize));
    // Two of them, because a second one is allowed while the limit is not used.
    let slow = (0..2).map(|number| {
        let server = limited.server.clone();
        let peer = numbered(50 + number);
        let pipes = Pipes::new(provider(), Version::V0, move |pipe| {
            slowly_to(peer, &server, Version::V0, pipe, 18 * 1024)
        });
        let identity = Identity::unsigned(peer);
        let fetcher = Fetcher::new(pipes, identity, &BlobFetchConfig::default());
        fetch(fetcher, large, |_| {})
    });
    let slow = join_all(slow);
    let other = async {
        tokio::time::sleep(Duration::from_secs(180)).await;
        let fetching = fetch(limited.fetcher(numbered(1), 2, Version::V0), small, |_| {});
        tokio::time::timeout(Duration::from_secs(300), fetching).await
    };
    tokio::select! {
        _ = slow => panic!("it was quicker than its link"),
        fetched = other => assert_eq!(fetched.unwrap().size_bytes, MIB),
    }
}

/// Small answers that need no turn are no way around it: a stream gets 4 KiB of them.
#[tokio::test(start_paused = true)]
async fn small_answers_one_after_the_other_need_a_turn() {
    let limited = Limited::new();
    let large = limited.put(&content(9, 40 * MIB as usize));
    let small = limited.put(&content(10, 1500));
    let busy = (0..4).map(|number| {
        let fetcher = limited.fetcher(numbered(10 + number), 1, Version::V1_1);
        fetch(fetcher, large, |_| {})
    });
    let asking = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = limited
            .server
            .serve(numbered(1), Version::V1, theirs.compat());
        let serving = tokio::spawn(serving);
        let (reader, mut writer) = ours.compat().split();
        let mut responses = FramedRead::new(reader, RequesterCodec);
        let mut wire = BytesMut::new();
        let hello = Request::Hello(Hello {
            context_id: CONTEXT,
            auth: None,
        });
        RequesterCodec.encode(hello, &mut wire).unwrap();
        let mut answers = Vec::new();
        for _ in 0..4 {
            let get = Request::Get {
                blob_id: small,
                inline_max_bytes: 65_536,
                from: 0,
            };
            RequesterCodec.encode(get, &mut wire).unwrap();
            writer.write_all(&wire.split()).await.unwrap();
            answers.push(responses.next().await.unwrap().unwrap());
        }
        serving.abort();
        answers
    };
    let answers = tokio::select! {
        _ = join_all(busy) => panic!("they were quicker than the limit"),
        answers = asking => answers,
    };
    let inline = |answer: &Response| matches!(answer, Response::Inline { .. });
    let busy = |answer: &Response| matches!(answer, Response::Refused(Refusal::Busy { .. }));
    assert!(answers[..2].iter().all(inline), "{answers:?}");
    assert!(answers[2..].iter().all(busy), "{answers:?}");
}
