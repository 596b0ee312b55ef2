//! 0.0.2 against bytes that the published implementation has sent.

use std::sync::{Arc, LazyLock, Mutex};

use calimero_network_blob::{
    BlobId,
    fetch::{Destination, FetchError, FetchRequest, Fetcher, ProviderError},
    serve::Server,
    store::BlobStore,
    transfer::{Identity, Version},
};
use calimero_network_primitives::{ContextId, config::BlobServeConfig};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, stream};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::net::{
    LONG, Net, Socket, folder, frame, impatient, peer, read_all, requester, to_store,
};

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../testdata/vectors.json")).unwrap()
});

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    hex::decode(value[key].as_str().unwrap()).unwrap()
}

fn ids() -> (BlobId, ContextId) {
    let ids = &VECTORS["ids"];
    (
        ids["blob_id_base58"].as_str().unwrap().parse().unwrap(),
        ids["context_id_base58"].as_str().unwrap().parse().unwrap(),
    )
}

/// The response, three bytes in a chunk, the empty chunk: as the published provider sends them.
fn captured_answer(response: &[u8]) -> Vec<u8> {
    let chunks = &VECTORS["blob_chunk_borsh"];
    [
        frame(response).to_vec(),
        bytes(chunks, "three_bytes_framed"),
        bytes(chunks, "empty_framed"),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_is_the_captured_one() {
    let (blob_id, context_id) = ids();
    let expected = bytes(&VECTORS["blob_request"]["auth_null"], "frame_hex");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let net = Net::default();
    let (listening, len) = (Arc::clone(&heard), expected.len());
    net.add(peer(1), Version::V0, move |mut socket: Socket| {
        let heard = Arc::clone(&listening);
        async move {
            let mut request = vec![0; len];
            socket.read_exact(&mut request).await.unwrap();
            *heard.lock().unwrap() = request;
            let refusal = bytes(&VECTORS["blob_response"]["not_found"], "hex");
            socket.write_all(&frame(&refusal)).await.unwrap();
            let _ = socket.read(&mut [0]).await;
        }
        .boxed()
    })
    .await;
    let here = folder();
    let fetcher = Fetcher::new(net, Identity::unsigned(requester()), &impatient());
    let request = FetchRequest::new(context_id, blob_id);
    let transfer = fetcher.fetch(request, stream::iter([peer(1)]), to_store(&here.store));
    let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
    let Err(FetchError::NoProviders { failures, .. }) = fetched else {
        panic!("{fetched:?}")
    };
    assert!(matches!(failures[0].reason, ProviderError::NotFound));
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_captured_answer_is_understood() {
    let id = calimero_network_blob::blob_id(&[1, 2, 3]);
    let responses = &VECTORS["blob_response"];
    let no_size = bytes(&responses["found_no_size"], "hex");
    let said = br#"{"found":true,"size":3}"#.to_vec();
    for response in [no_size, said] {
        // With the close, without it, and with the close in place of the empty chunk.
        for (tail, close) in [(0, true), (0, false), (8, true)] {
            let answer = captured_answer(&response);
            let answer = answer[..answer.len() - tail].to_vec();
            let net = Net::default();
            net.add(peer(1), Version::V0, move |mut socket: Socket| {
                let answer = answer.clone();
                async move {
                    socket.write_all(&answer).await.unwrap();
                    if close {
                        socket.close().await.unwrap();
                    }
                    let _ = socket.read_to_end(&mut Vec::new()).await;
                }
                .boxed()
            })
            .await;
            let here = folder();
            let fetched = crate::net::fetch(&net, &impatient(), id, [peer(1)], &here.store).await;
            fetched.unwrap_or_else(|error| panic!("{tail} {close}: {error}"));
            assert_eq!(read_all(&here.store, &id), [1, 2, 3]);
        }
    }
}

/// A server of a store with the three bytes, and a socket to it.
async fn connected() -> (Socket, crate::net::Folder) {
    let there = folder();
    there.store.put(&[1, 2, 3]).unwrap();
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let server = Server::new(peer(1), store, &BlobServeConfig::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let served = server.serve(requester(), Version::V0, socket.compat());
        served.await.unwrap();
    });
    (TcpStream::connect(addr).await.unwrap().compat(), there)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_the_captured_one_and_ends() {
    let (mut socket, _there) = connected().await;
    let id = calimero_network_blob::blob_id(&[1, 2, 3]);
    let (_, context_id) = ids();
    // As the published requester writes it, and with keys that it may write one day.
    let request =
        format!(r#"{{"blob_id":"{id}","context_id":"{context_id}","auth":null,"later":[1,{{}}]}}"#);
    socket.write_all(&frame(request.as_bytes())).await.unwrap();
    let mut answer = Vec::new();
    // The requester does not close: the provider does.
    let heard = tokio::time::timeout(LONG, socket.read_to_end(&mut answer)).await;
    heard.expect("the provider closes").unwrap();
    assert_eq!(answer, captured_answer(br#"{"found":true,"size":3}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_is_the_captured_one_and_ends() {
    let (mut socket, _there) = connected().await;
    // Of a blob that is not there.
    let request = bytes(&VECTORS["blob_request"]["auth_null"], "frame_hex");
    socket.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    let heard = tokio::time::timeout(LONG, socket.read_to_end(&mut answer)).await;
    heard.expect("the provider closes").unwrap();
    let expected = bytes(&VECTORS["blob_response"]["not_found"], "hex");
    assert_eq!(answer, frame(&expected).to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_in_place_of_an_id_is_refused() {
    for id in [
        "../../etc/passwd",
        "/etc/passwd",
        "..\\u002f",
        "%2e%2e%2f",
        "",
    ] {
        let (mut socket, _there) = connected_to_any_end().await;
        let (_, context_id) = ids();
        let request = format!(r#"{{"blob_id":"{id}","context_id":"{context_id}"}}"#);
        socket.write_all(&frame(request.as_bytes())).await.unwrap();
        let mut answer = Vec::new();
        let heard = tokio::time::timeout(LONG, socket.read_to_end(&mut answer)).await;
        let _ = heard.expect("the provider closes");
        assert!(answer.is_empty(), "{id}");
    }
}

/// As [`connected`], where the server may fail.
async fn connected_to_any_end() -> (Socket, crate::net::Folder) {
    let there = folder();
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let server = Server::new(peer(1), store, &BlobServeConfig::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let _ = server
            .serve(requester(), Version::V0, socket.compat())
            .await;
    });
    (TcpStream::connect(addr).await.unwrap().compat(), there)
}

#[tokio::test(flavor = "multi_thread")]
async fn path_tricks_leave_no_trace_in_a_destination() {
    // The id decides nothing about where a file goes: the caller's path does.
    let there = folder();
    let id = there.store.put(b"x").unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("..name with dots..");
    let to = Destination::File(path.clone());
    crate::net::start(&net, &impatient(), id, [peer(1)], to)
        .await
        .unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"x");
}
