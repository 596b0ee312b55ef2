//! Requesters that ask too much, too little, or for what is not theirs.

mod authorized;

use std::{sync::Arc, time::Duration};

use asynchronous_codec::{Encoder, FramedRead};
use bytes::BytesMut;
use calimero_network_blob::{
    BlobId,
    error::AuthError,
    serve::{Access, Requested, ServeError, ServeEvent, Served, Server},
    store::{BlobStore, FsBlobStore, FsConfig},
    transfer::Version,
    v0::{BlobAuth, BlobRequest, BlobResponse},
    v1::{Hello, Refusal, Request, RequesterCodec, Response, SessionAuth},
};
use calimero_network_primitives::{
    PeerId,
    config::{BlobServeConfig, BlobServeTuning},
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future, stream::FuturesUnordered};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::net::{
    CONTEXT, LONG, Net, Socket, content, fetch, folder, frame, impatient, peer, requester, signer,
};

const MIB: usize = 1 << 20;

type Outcome = JoinHandle<Result<Served, ServeError>>;

/// A socket to a server, as `peer`.
async fn connect(server: &Server, peer: PeerId, version: Version) -> (Socket, Outcome) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (ours, theirs) = future::join(TcpStream::connect(addr), listener.accept()).await;
    let serving = server.serve(peer, version, theirs.unwrap().0.compat());
    (ours.unwrap().compat(), tokio::spawn(serving))
}

fn server(store: &FsBlobStore, config: &BlobServeConfig) -> Server {
    let store: Arc<dyn BlobStore> = Arc::new(store.clone());
    Server::new(peer(1), store, config)
}

fn impatient_server() -> BlobServeConfig {
    BlobServeConfig {
        tuning: BlobServeTuning {
            request_timeout: Duration::from_millis(500),
            idle_timeout: Duration::from_millis(500),
            stall_timeout: Duration::from_secs(2),
            ..BlobServeTuning::default()
        },
        ..BlobServeConfig::default()
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn encoded(requests: &[Request]) -> BytesMut {
    let mut wire = BytesMut::new();
    for request in requests {
        RequesterCodec.encode(request.clone(), &mut wire).unwrap();
    }
    wire
}

fn hello() -> Request {
    Request::Hello(Hello {
        context_id: CONTEXT,
        auth: None,
    })
}

fn get(blob_id: BlobId) -> Request {
    Request::Get {
        blob_id,
        inline_max_bytes: 65_536,
        from: 0,
    }
}

fn read(blob_id: BlobId, range: std::ops::Range<u64>) -> Request {
    Request::Read {
        blob_id,
        ranges: vec![range],
    }
}

/// Sends requests, closes, and collects what is answered.
async fn ask(mut socket: Socket, requests: &[Request]) -> Vec<Response> {
    socket.write_all(&encoded(requests)).await.unwrap();
    socket.close().await.unwrap();
    let responses = FramedRead::new(socket, RequesterCodec);
    let responses = responses.map(|response| response.unwrap()).collect();
    tokio::time::timeout(LONG, responses).await.expect("no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_in_their_order() {
    let there = folder();
    let large = there.store.put(&content(1, 3 * MIB)).unwrap().id;
    let small = there.store.put(b"small").unwrap().id;
    let server = server(&there.store, &BlobServeConfig::default());
    let (socket, served) = connect(&server, requester(), Version::V1).await;
    let requests = [
        hello(),
        get(large),
        read(large, 1..3),
        get(small),
        read(large, 0..1),
        get(BlobId::new([7; 32])),
        read(large, 2..4),
    ];
    let responses = ask(socket, &requests).await;
    let kinds: Vec<_> = responses
        .iter()
        .map(|response| match response {
            Response::List(_) => "list".to_owned(),
            Response::Inline { .. } => "inline".to_owned(),
            Response::Chunk { index, .. } => format!("chunk {index}"),
            Response::Refused(refusal) => format!("{refusal:?}"),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        "list", "chunk 1", "chunk 2", "inline", "chunk 0", "NotFound", "NotFound",
    ];
    assert_eq!(kinds, expected);
    let served = served.await.unwrap().unwrap();
    assert_eq!(served.requests, 6);
    assert_eq!(served.refused, 2);
    assert_eq!(served.sent_bytes, 3 * MIB as u64 + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_public_is_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let config = FsConfig {
        public: false,
        ..FsConfig::default()
    };
    let store = FsBlobStore::open(dir.path(), &config).unwrap();
    let id = store.put(b"secret").unwrap().id;
    let server = server(&store, &BlobServeConfig::default());
    let (socket, _) = connect(&server, requester(), Version::V1).await;
    let responses = ask(socket, &[hello(), get(id), read(id, 0..1)]).await;
    assert_eq!(
        responses,
        [const { Response::Refused(Refusal::NotFound) }; 2]
    );
    let net = Net::default();
    net.add_server(peer(1), Version::V0, server).await;
    let here = folder();
    assert!(
        fetch(&net, &impatient(), id, [peer(1)], &here.store)
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_of() {
    let there = folder();
    let id = there.store.put(b"x").unwrap().id;
    let (told, mut heard) = mpsc::channel(8);
    let server = server(&there.store, &BlobServeConfig::default()).with_events(told);
    let (socket, _) = connect(&server, requester(), Version::V1).await;
    let absent = BlobId::new([7; 32]);
    ask(socket, &[hello(), get(id), get(absent)]).await;
    let expected = [(id, true), (absent, false)].map(|(blob_id, given)| {
        ServeEvent::Requested(Requested {
            peer: requester(),
            context_id: CONTEXT,
            blob_id,
            given,
        })
    });
    // Both are looked up at the same time.
    let heard = [heard.recv().await.unwrap(), heard.recv().await.unwrap()];
    assert!(
        expected.iter().all(|told| heard.contains(told)),
        "{heard:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends() {
    let there = folder();
    let server = server(&there.store, &impatient_server());
    for version in [Version::V1, Version::V0] {
        let (_socket, served) = connect(&server, requester(), version).await;
        let served = tokio::time::timeout(LONG, served).await.expect("no end");
        assert!(matches!(served.unwrap(), Err(ServeError::NoRequest { .. })));
    }
    // After a greeting it may be silent for a while, and is then let go.
    let (mut socket, served) = connect(&server, requester(), Version::V1).await;
    socket.write_all(&encoded(&[hello()])).await.unwrap();
    let served = tokio::time::timeout(LONG, served).await.expect("no end");
    assert_eq!(served.unwrap().unwrap(), Served::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_is_let_go() {
    let there = folder();
    let id = there.store.put(&content(2, 64 * MIB)).unwrap().id;
    let server = server(&there.store, &impatient_server());
    for version in [Version::V1, Version::V0] {
        let (mut socket, served) = connect(&server, requester(), version).await;
        socket.write_all(&all_of(id, version)).await.unwrap();
        let served = tokio::time::timeout(LONG, served).await.expect("no end");
        assert!(matches!(served.unwrap(), Err(ServeError::Io(_))));
    }
}

/// A request for 64 chunks.
fn all_of(blob_id: BlobId, version: Version) -> Vec<u8> {
    match version {
        Version::V1_1 | Version::V1 => encoded(&[hello(), read(blob_id, 0..64)]).to_vec(),
        Version::V0 => {
            let request = BlobRequest {
                blob_id,
                context_id: CONTEXT,
                auth: None,
            };
            frame(&request.encode().unwrap()).to_vec()
        }
    }
}

/// Who takes a little again and again stalls never, and holds all there is for chunks.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_little_does_not_keep_others_waiting() {
    let there = folder();
    let id = there.store.put(&content(2, 64 * MIB)).unwrap().id;
    let config = BlobServeConfig {
        max_chunks: 2,
        tuning: BlobServeTuning {
            max_chunks_per_peer: 2,
            stall_timeout: LONG,
            chunk_timeout: Duration::from_secs(1),
            ..impatient_server().tuning
        },
        ..impatient_server()
    };
    let server = server(&there.store, &config);
    for version in [Version::V1, Version::V0] {
        let (mut slow, served) = connect(&server, requester(), version).await;
        slow.write_all(&all_of(id, version)).await.unwrap();
        let dripping = tokio::spawn(async move {
            let mut little = vec![0; 4096];
            while slow.read(&mut little).await.is_ok_and(|len| len > 0) {
                // This is what it does to others.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let (quick, _) = connect(&server, peer(7), Version::V1).await;
        let responses = ask(quick, &[hello(), read(id, 0..3)]).await;
        assert_eq!(responses.len(), 3);
        let served = tokio::time::timeout(LONG, served).await.expect("no end");
        let after = config.tuning.chunk_timeout;
        assert!(
            matches!(served.unwrap(), Err(ServeError::Slow { after: given }) if given == after)
        );
        dripping.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_ends_the_stream() {
    let there = folder();
    let server = server(&there.store, &BlobServeConfig::default());
    for (version, bytes, expected) in [
        (Version::V1, &[0x02, 0x7f, 0x00][..], "unknown message"),
        (Version::V1, &[0xff, 0xff, 0x7f], "are allowed"),
        (Version::V0, &[0xff, 0xff, 0xff, 0xff], "broken frame"),
        (Version::V0, b"\x00\x00\x00\x02{}", "handshake"),
        (Version::V0, b"\x00\x00\x00\x02[[", "handshake"),
    ] {
        let (mut socket, served) = connect(&server, requester(), version).await;
        socket.write_all(bytes).await.unwrap();
        let served = tokio::time::timeout(LONG, served).await.expect("no end");
        let error = served.unwrap().unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    // A request before the greeting, and two greetings.
    for requests in [&[get(BlobId::new([7; 32]))][..], &[hello(), hello()]] {
        let (mut socket, served) = connect(&server, requester(), Version::V1).await;
        socket.write_all(&encoded(requests)).await.unwrap();
        let served = tokio::time::timeout(LONG, served).await.expect("no end");
        assert!(matches!(served.unwrap(), Err(ServeError::Greeting)));
    }
    let bomb = [frame(&b"[".repeat(16_000)), frame(&vec![b'['; 16_385])];
    for bomb in bomb {
        let (mut socket, served) = connect(&server, requester(), Version::V0).await;
        socket.write_all(&bomb).await.unwrap();
        let served = tokio::time::timeout(LONG, served).await.expect("no end");
        assert!(matches!(
            served.unwrap(),
            Err(ServeError::Handshake(_) | ServeError::Frame(_))
        ));
    }
}

async fn ask_v0(server: &Server, peer: PeerId, request: &BlobRequest) -> (bool, Outcome) {
    let (mut socket, served) = connect(server, peer, Version::V0).await;
    let request = frame(&request.encode().unwrap());
    socket.write_all(&request).await.unwrap();
    socket.close().await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let len = u32::from_be_bytes(answer[..4].try_into().unwrap()) as usize;
    let response = BlobResponse::decode(&answer[4..4 + len]).unwrap();
    (response.found, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn authentications_are_checked() {
    let there = folder();
    let id = there.store.put(b"for those who sign").unwrap().id;
    let signer = signer();
    let key = signer.public().to_bytes();
    // What is given without a signature needs no guard against replay.
    let server = server(&there.store, &BlobServeConfig::default())
        .with_authorizer(move |access: Access| access.public_key == Some(key));
    let signed_at = |timestamp| BlobRequest {
        blob_id: id,
        context_id: CONTEXT,
        auth: Some(BlobAuth::sign(&signer, &id, &CONTEXT, timestamp).unwrap()),
    };
    let good = signed_at(now());
    let (found, served) = ask_v0(&server, requester(), &good).await;
    assert!(found);
    served.await.unwrap().unwrap();
    // Once more by the same peer, and replayed by another one.
    assert!(ask_v0(&server, requester(), &good).await.0);
    let (found, served) = ask_v0(&server, peer(66), &good).await;
    assert!(!found);
    let replayed = served.await.unwrap();
    assert!(matches!(
        replayed,
        Err(ServeError::Auth(AuthError::Replayed { first })) if first == requester()
    ));
    // Too old, in the future, of another blob, torn.
    let mut other = signed_at(now());
    other.blob_id = there.store.put(b"other").unwrap().id;
    let mut torn = signed_at(now());
    if let Some(auth) = &mut torn.auth {
        auth.signature[5] ^= 1;
    }
    for bad in [
        signed_at(now() - 60),
        signed_at(now() + 60),
        signed_at(0),
        signed_at(u64::MAX),
        other,
        torn,
    ] {
        let (found, served) = ask_v0(&server, requester(), &bad).await;
        assert!(!found, "{bad:?}");
        assert!(matches!(served.await.unwrap(), Err(ServeError::Auth(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authentications_of_sessions_are_checked() {
    let there = folder();
    let server = server(&there.store, &BlobServeConfig::default());
    let signer = signer();
    let sign = |requester: PeerId, provider: PeerId, timestamp| {
        let auth = SessionAuth::sign(&signer, &CONTEXT, &requester, &provider, timestamp);
        Request::Hello(Hello {
            context_id: CONTEXT,
            auth: Some(auth.unwrap()),
        })
    };
    for (greeting, good) in [
        (sign(requester(), peer(1), now()), true),
        // Replayed by another peer, presented to another provider, old, in the future.
        (sign(peer(66), peer(1), now()), false),
        (sign(requester(), peer(2), now()), false),
        (sign(requester(), peer(1), now() - 60), false),
        (sign(requester(), peer(1), now() + 60), false),
    ] {
        let (mut socket, served) = connect(&server, requester(), Version::V1).await;
        socket.write_all(&encoded(&[greeting])).await.unwrap();
        socket.close().await.unwrap();
        let served = tokio::time::timeout(LONG, served).await.expect("no end");
        match served.unwrap() {
            Ok(_) => assert!(good),
            Err(ServeError::Auth(_)) => assert!(!good),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_of_one_peer_do_not_stop_another() {
    let there = folder();
    let id = there.store.put(&content(3, 8 * MIB)).unwrap().id;
    let server = server(&there.store, &BlobServeConfig::default());
    // The greedy one asks a thousand times at once, and reads nothing.
    let mut greedy = Vec::new();
    for _ in 0..250 {
        let (mut socket, served) = connect(&server, peer(66), Version::V1).await;
        let wire = encoded(&[
            hello(),
            read(id, 0..8),
            read(id, 0..8),
            read(id, 0..8),
            read(id, 0..8),
        ]);
        socket.write_all(&wire).await.unwrap();
        greedy.push((socket, served));
    }
    let net = Net::default();
    net.add_server(peer(1), Version::V1, server.clone()).await;
    let here = folder();
    let fetched = fetch(&net, &impatient(), id, [peer(1)], &here.store).await;
    fetched.unwrap();
    // All but a few of its own are refused as busy.
    let busy = greedy.iter_mut().map(|(socket, _)| async {
        let mut head = [0; 8];
        // A chunk begins with its length of four bytes, a refusal with one of four.
        socket.read(&mut head).await.unwrap() > 0 && head[1] == 0x83
    });
    let busy: FuturesUnordered<_> = busy.collect();
    let busy = busy.filter(|busy| future::ready(*busy)).take(200).count();
    let busy = tokio::time::timeout(LONG, busy).await;
    assert_eq!(busy.expect("too few are refused"), 200);
    greedy.iter().for_each(|(_, served)| served.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_requester_waits_its_turn() {
    let there = folder();
    let id = there.store.put(&content(4, 3 * MIB)).unwrap().id;
    let config = BlobServeConfig {
        max_transfers: 1,
        tuning: BlobServeTuning {
            max_transfers_per_peer: 1,
            ..BlobServeTuning::default()
        },
        ..BlobServeConfig::default()
    };
    let server = server(&there.store, &config);
    let net = Net::default();
    net.add_server(peer(1), Version::V0, server).await;
    let fetches = (0..6).map(|_| async {
        let here = folder();
        fetch(&net, &impatient(), id, [peer(1)], &here.store).await
    });
    for fetched in future::join_all(fetches).await {
        fetched.unwrap();
    }
}
