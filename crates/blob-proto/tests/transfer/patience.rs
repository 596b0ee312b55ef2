//! How long a transfer goes on without content, in paused time and with the default timers.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use calimero_network_blob::{
    blob_id,
    fetch::{BlobFetchConfig, Destination, FetchError, FetchRequest, Fetcher, Providers},
    serve::Server,
    store::BlobStore,
    transfer::{Identity, Version},
    v1::{ListPage, ProviderCodec, Refusal, Request, Response},
};
use calimero_network_primitives::{PeerId, config::BlobServeConfig};
use futures::{AsyncWriteExt, StreamExt, stream};
use tokio::time::Instant;

use crate::{
    net::{CONTEXT, content, folder, list, requester},
    pipes::{Pipes, numbered},
};

/// Fetches a blob of a few chunks into memory. Returns how it ended and after what time.
async fn fetch(pipes: &Pipes, providers: Providers) -> (Result<usize, FetchError>, Duration) {
    let fetcher = Fetcher::new(
        pipes.clone(),
        Identity::unsigned(requester()),
        &BlobFetchConfig::default(),
    );
    let request = FetchRequest::new(CONTEXT, blob_id(&content(7, LEN)));
    let max_bytes = LEN as u64;
    let begun = Instant::now();
    let transfer = fetcher.fetch(request, providers, Destination::Memory { max_bytes });
    let hours = Duration::from_secs(5 * 3600);
    let ended = tokio::time::timeout(hours, transfer).await.expect("no end");
    let ended = ended.map(|fetched| fetched.content.unwrap().len());
    (ended, begun.elapsed())
}

const LEN: usize = (2 << 20) + 5;

fn searching(listed: Vec<PeerId>) -> Providers {
    Providers::listed(stream::iter(listed)).with_search(stream::empty::<PeerId>)
}

#[track_caller]
fn assert_gave_up(ended: (Result<usize, FetchError>, Duration)) {
    assert_gave_up_after(ended, Duration::ZERO);
}

/// Asserts that a search ended some time after the one in the answer.
#[track_caller]
fn assert_gave_up_after(ended: (Result<usize, FetchError>, Duration), retry_after: Duration) {
    let (ended, after) = ended;
    let Err(FetchError::NoProviders { failures, .. }) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(failures.len(), 1, "the provider is named");
    let timeout = BlobFetchConfig::default().tuning.search_timeout;
    let after = after.checked_sub(retry_after).expect("it ended too early");
    assert!(after >= timeout && after < 2 * timeout, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_search_for_a_provider_that_cannot_be_reached_ends() {
    let pipes = Pipes::default();
    assert_gave_up(fetch(&pipes, searching(vec![numbered(1)])).await);
    assert!(pipes.opens.load(Ordering::SeqCst) > 2, "it is asked again");
}

/// Answers each request of a stream with a refusal.
fn refusing(refusal: Refusal) -> Pipes {
    answering(Version::V1, move |request| match request {
        Request::Hello(_) => vec![],
        _ => vec![Response::Refused(refusal)],
    })
}

/// Answers each request of a stream of the provider 1 with the responses of `answer`.
pub(crate) fn answering(
    version: Version,
    answer: impl Fn(Request) -> Vec<Response> + Send + Sync + 'static,
) -> Pipes {
    let answer = Arc::new(answer);
    Pipes::new(numbered(1), version, move |pipe| {
        let answer = Arc::clone(&answer);
        Box::pin(async move {
            let (reader, mut writer) = futures::AsyncReadExt::split(pipe);
            let mut requests = asynchronous_codec::FramedRead::new(reader, ProviderCodec);
            while let Some(Ok(request)) = requests.next().await {
                let mut wire = bytes::BytesMut::new();
                for response in answer(request) {
                    asynchronous_codec::Encoder::encode(&mut ProviderCodec, response, &mut wire)
                        .unwrap();
                }
                let _ = writer.write_all(&wire).await;
            }
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_search_whose_provider_fails_ends() {
    let pipes = refusing(Refusal::Failed);
    assert_gave_up(fetch(&pipes, searching(vec![numbered(1)])).await);
}

/// It is waited for twice as long as it says, and a minute, at most five minutes: it has not shown
/// that it has the blob. Nobody asks others to wait for more than two hours. The driver looks at
/// it every 250 ms, so a second less counts.
#[tokio::test(start_paused = true)]
async fn a_search_whose_provider_is_busy_ends_after_what_it_was_told() {
    for (retry_after_ms, told_s) in [
        (2000, 63),
        (59_000, 177),
        (119_000, 297),
        (400_000, 299),
        (2 * 3600 * 1000, 299),
        // Nobody has that many requesters.
        (u64::MAX, 0),
    ] {
        let pipes = refusing(Refusal::Busy { retry_after_ms });
        let ended = fetch(&pipes, searching(vec![numbered(1)])).await;
        assert_gave_up_after(ended, Duration::from_secs(told_s));
    }
}

/// A provider that gives the list of a small blob, and is busy with its content for some time.
fn busy_with_content(content: bytes::Bytes, busy: Duration) -> (Pipes, Arc<AtomicUsize>) {
    let list = list(&content);
    let size_bytes = content.len() as u64;
    let (asked, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let count = Arc::clone(&asked);
    let pipes = answering(Version::V1_1, move |request| {
        let is_busy = begun.elapsed() < busy;
        // It never expects to need more than that.
        let refused = Response::Refused(Refusal::Busy {
            retry_after_ms: 1000,
        });
        vec![match request {
            Request::Hello(_) | Request::Got { .. } => return vec![],
            Request::Watch { .. } => Response::Have { ranges: vec![0..1] },
            Request::Get {
                inline_max_bytes: 0,
                ..
            } => Response::List(ListPage {
                size_bytes,
                from: 0,
                digests: list.digests().clone(),
            }),
            Request::Read { .. } if !is_busy => Response::Chunk {
                index: 0,
                data: content.clone(),
            },
            _ => {
                count.fetch_add(1, Ordering::SeqCst);
                refused
            }
        }]
    });
    (pipes, asked)
}

/// Fetches a small blob that `pipes` provide.
async fn fetch_small(pipes: Pipes, content: &bytes::Bytes) -> Result<usize, FetchError> {
    let config = BlobFetchConfig::default();
    let fetcher = Fetcher::new(pipes, Identity::unsigned(requester()), &config);
    let request = FetchRequest::new(CONTEXT, blob_id(content));
    let max_bytes = LEN as u64;
    let to = Destination::Memory { max_bytes };
    let fetched = fetcher
        .fetch(request, searching(vec![numbered(1)]), to)
        .await?;
    Ok(fetched.content.unwrap().len())
}

/// Its requesters may be slow, so what it says may be too short for each of them.
#[tokio::test(start_paused = true)]
async fn a_provider_that_shows_that_it_has_the_blob_may_be_busy_for_long() {
    let content = bytes::Bytes::from(content(8, 5000));
    let (pipes, asked) = busy_with_content(content.clone(), Duration::from_secs(7000));
    assert_eq!(fetch_small(pipes, &content).await.unwrap(), content.len());
    // Every 3.25 to 4 s, and not every second.
    let asked = asked.load(Ordering::SeqCst);
    assert!((1740..=2180).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_search_whose_provider_only_gives_the_list_ends() {
    let content = bytes::Bytes::from(content(8, 5000));
    let (pipes, _) = busy_with_content(content.clone(), Duration::MAX);
    let begun = Instant::now();
    let ended = fetch_small(pipes, &content).await;
    assert!(
        matches!(ended, Err(FetchError::NoProviders { .. })),
        "{ended:?}"
    );
    let after = begun.elapsed().as_secs();
    assert!((7199..7400).contains(&after), "{after}");
}

/// A provider of a batch that is busy, and sends content that does not verify now and then.
#[tokio::test(start_paused = true)]
async fn content_that_does_not_verify_makes_up_for_no_busy_provider_of_a_batch() {
    let begun = Instant::now();
    // When a stream began, and when content was sent last.
    let streams = Arc::new(Mutex::new(Vec::new()));
    let (seen, sent) = (Arc::clone(&streams), Mutex::new(begun));
    let pipes = answering(Version::V1, move |request| {
        let Request::Get { .. } = request else {
            seen.lock().unwrap().push(begun.elapsed());
            return vec![];
        };
        let mut sent = sent.lock().unwrap();
        if sent.elapsed() < Duration::from_secs(20) {
            return vec![Response::Refused(Refusal::Busy {
                retry_after_ms: 1000,
            })];
        }
        *sent = Instant::now();
        let content = bytes::Bytes::from_static(b"another blob");
        vec![Response::Inline { content }]
    });
    let config = BlobFetchConfig::default();
    let fetcher = Fetcher::new(pipes, Identity::unsigned(requester()), &config);
    let here = folder();
    let store: Arc<dyn BlobStore> = Arc::new(here.store.clone());
    let blobs: Vec<_> = (0..40).map(|seed| blob_id(&content(seed, 100))).collect();
    let batch = fetcher.fetch_batch(CONTEXT, blobs, vec![numbered(1)], store);
    let batch = batch.await.unwrap();
    assert_eq!((batch.fetched.len(), batch.failed.len()), (0, 40));
    // The blobs are asked for one by one after the batch.
    let ended = streams.lock().unwrap()[1].as_secs();
    assert!((61..70).contains(&ended), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn a_search_whose_provider_is_silent_ends() {
    for version in [Version::V1, Version::V0] {
        let pipes = Pipes::new(numbered(1), version, |pipe| {
            Box::pin(async move {
                let _open = pipe;
                std::future::pending::<()>().await;
            })
        });
        assert_gave_up(fetch(&pipes, searching(vec![numbered(1)])).await);
    }
}

/// It stays connected, has all of the blob, and sends nothing of it.
#[tokio::test(start_paused = true)]
async fn a_search_whose_provider_puts_off_each_chunk_ends() {
    let list = list(&content(7, LEN));
    let page = Response::List(ListPage {
        size_bytes: LEN as u64,
        from: 0,
        digests: list.digests().clone(),
    });
    let pipes = answering(Version::V1_1, move |request| match request {
        Request::Hello(_) | Request::Got { .. } => vec![],
        Request::Get { .. } => vec![page.clone()],
        Request::Watch { .. } => vec![Response::Have {
            ranges: vec![0..1, 1..3],
        }],
        Request::Read { ranges, .. } => {
            let absent = |index| Response::Absent {
                index,
                retry_after_ms: 1,
            };
            ranges.into_iter().flatten().map(absent).collect()
        }
    });
    assert_gave_up(fetch(&pipes, searching(vec![numbered(1)])).await);
}

/// Without a search the number of failures decides. To be busy is none for as long as it said.
#[tokio::test(start_paused = true)]
async fn a_listed_provider_that_is_busy_for_long_is_asked_again() {
    let pipes = refusing(Refusal::Busy {
        retry_after_ms: 60_000,
    });
    let (ended, after) = fetch(&pipes, Providers::listed(stream::iter([numbered(1)]))).await;
    assert!(
        matches!(ended, Err(FetchError::NoProviders { .. })),
        "{ended:?}"
    );
    // Every 30 s for 3 min.
    let attempts = 6 + BlobFetchConfig::default().tuning.max_failures as usize;
    assert_eq!(pipes.opens.load(Ordering::SeqCst), attempts);
    assert!(after > Duration::from_secs(180), "{after:?}");
}

/// As many as are used at one time, all of them unreachable, and one that is found later.
#[tokio::test(start_paused = true)]
async fn unreachable_providers_do_not_shut_out_a_later_one() {
    let there = folder();
    there.store.put(&content(7, LEN)).unwrap();
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let server = Server::new(numbered(0), store, &BlobServeConfig::default());
    let pipes = Pipes::new(numbered(0), Version::V1, move |pipe| {
        let serving = server.serve(requester(), Version::V1, pipe);
        Box::pin(async move {
            let _ = serving.await;
        })
    });
    let searches = AtomicUsize::new(0);
    let providers = Providers::listed(stream::iter((1..=200).map(numbered)));
    let providers = providers.with_search(move || {
        let later = searches.fetch_add(1, Ordering::SeqCst) >= 2;
        stream::iter(later.then(|| numbered(0)))
    });
    let (ended, _) = fetch(&pipes, providers).await;
    assert_eq!(ended.unwrap(), LEN);
}
