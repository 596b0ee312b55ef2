//! Requests of 0.0.2 whose authorizer records what it is asked.

use std::sync::{Mutex, PoisonError};

use super::*;

type Asked = Arc<Mutex<Vec<Access>>>;

/// A server whose authorizer records each request and answers by `may`.
fn recording(
    store: &FsBlobStore,
    may: impl Fn(&Access) -> bool + Send + Sync + 'static,
) -> (Server, Asked) {
    let asked = Asked::default();
    let server = server(store, &BlobServeConfig::default()).with_authorizer({
        let asked = Arc::clone(&asked);
        move |access: Access| {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(access);
            may(&access)
        }
    });
    (server, asked)
}

fn taken(asked: &Asked) -> Vec<Access> {
    std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A request that is signed at this time, in seconds since the Unix epoch.
fn signed(blob_id: BlobId, timestamp: u64) -> BlobRequest {
    let auth = BlobAuth::sign(&signer(), &blob_id, &CONTEXT, timestamp).unwrap();
    BlobRequest {
        blob_id,
        context_id: CONTEXT,
        auth: Some(auth),
    }
}

fn torn(blob_id: BlobId) -> BlobRequest {
    let mut request = signed(blob_id, now());
    if let Some(auth) = &mut request.auth {
        auth.signature[5] ^= 1;
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorizer_is_asked_who_asks_for_what() {
    let there = folder();
    let id = there.store.put(b"for one key").unwrap().id;
    let key = signer().public().to_bytes();
    let (server, asked) = recording(&there.store, move |access| access.public_key == Some(key));
    let access = |public_key| Access {
        requester: requester(),
        context_id: CONTEXT,
        blob_id: id,
        public_key,
    };
    let unsigned = BlobRequest {
        blob_id: id,
        context_id: CONTEXT,
        auth: None,
    };
    let (found, served) = ask_v0(&server, requester(), &unsigned).await;
    assert!(!found, "no key was shown");
    served.await.unwrap().unwrap();
    assert_eq!(taken(&asked), [access(None)]);

    let (found, served) = ask_v0(&server, requester(), &signed(id, now())).await;
    assert!(found);
    served.await.unwrap().unwrap();
    // The second time to learn whether the signature is needed.
    assert_eq!(taken(&asked), [access(Some(key)), access(None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proven_key_that_may_not_have_the_blob_gets_nothing() {
    let there = folder();
    let id = there.store.put(b"for another key").unwrap().id;
    let (server, asked) = recording(&there.store, |_| false);
    let (found, served) = ask_v0(&server, requester(), &signed(id, now())).await;
    assert!(!found);
    served.await.unwrap().unwrap();
    assert_eq!(taken(&asked).len(), 1);
}

/// The authorizer may rely on the key that it is given: it never sees one that is not proven.
#[tokio::test(flavor = "multi_thread")]
async fn the_authorizer_never_sees_a_key_that_is_not_proven() {
    let there = folder();
    let id = there.store.put(b"for those who sign").unwrap().id;
    let (server, asked) = recording(&there.store, |access| access.public_key.is_some());
    for bad in [torn(id), signed(id, now() - 60), signed(id, now() + 60)] {
        let (found, served) = ask_v0(&server, requester(), &bad).await;
        assert!(!found, "{bad:?}");
        assert!(matches!(served.await.unwrap(), Err(ServeError::Auth(_))));
        assert_eq!(taken(&asked), []);
    }
}

/// A signature that is shown is checked where none is needed as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_is_refused_for_a_public_blob() {
    let there = folder();
    let id = there.store.put(b"for everybody").unwrap().id;
    let (server, asked) = recording(&there.store, |_| true);
    let (found, served) = ask_v0(&server, requester(), &torn(id)).await;
    assert!(!found);
    let refused = served.await.unwrap();
    assert!(matches!(
        refused,
        Err(ServeError::Auth(AuthError::Signature))
    ));
    assert_eq!(taken(&asked), []);
    // A valid one of a public blob is not bound to its presenter.
    let good = signed(id, now());
    for presenter in [requester(), peer(66)] {
        assert!(ask_v0(&server, presenter, &good).await.0);
    }
}
