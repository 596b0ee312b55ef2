//! The entropy of the cryptographic library.
//!
//! AWS-LC seeds its random numbers from the timing jitter of the processor, and mixes in random
//! bytes of the operating system. It measures the jitter when the first random number of the
//! process is requested, which takes 20 to 120 ms of processor time. A thread does this while the
//! node starts. Listeners do not wait for it; handshakes do, as futures, so that no thread of a
//! runtime is blocked.

use std::sync::OnceLock;

use futures::{
    FutureExt as _,
    channel::oneshot,
    future::{Map, Shared},
};
use rustls::crypto::CryptoProvider;

use super::provider::provider;

/// The collection of this process.
static COLLECTION: OnceLock<Collection> = OnceLock::new();

/// Starts a thread in which the cryptographic library collects its entropy, unless it was started
/// before.
///
/// The first random number of a process takes 20 to 120 ms of processor time (measured). A
/// handshake that begins before the entropy is collected waits for it without blocking its thread.
/// [`build`](crate::build) calls this function. A program that calls it at the start of `main` has
/// the entropy earlier.
pub fn warm_up() {
    let _ = collection();
}

/// Completes when the library has its entropy. Starts the collection if nothing has. Cancel safe.
pub(crate) async fn collected() {
    collection().done.clone().await;
}

fn collection() -> &'static Collection {
    COLLECTION.get_or_init(|| Collection::start(|| collect(&provider())))
}

/// Has the library collect its entropy, through one unused key exchange.
fn collect(provider: &CryptoProvider) {
    // An error is reported by the first handshake, which asks the library again.
    let mut bytes = [0; 32];
    let _ = provider.secure_random.fill(&mut bytes);
    if let Some(group) = provider.kx_groups.first() {
        let _ = group.start();
    }
}

type Done = Map<oneshot::Receiver<()>, fn(Result<(), oneshot::Canceled>)>;

/// A thread that collects entropy.
struct Collection {
    /// Completes when the thread has ended, even by a panic, or could not be started. In these
    /// cases the first handshake collects the entropy.
    done: Shared<Done>,
}

impl Collection {
    fn start(collect: impl FnOnce() + Send + 'static) -> Self {
        let (ended, end) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("entropy".to_owned());
        let _ = thread.spawn(move || {
            let _ended = ended;
            collect();
        });
        let ignore: fn(_) = |_| ();
        Self {
            done: end.map(ignore).shared(),
        }
    }
}

#[cfg(test)]
mod tests;
