//! Boot nodes of `/dnsaddr` names, resolved again and again while the node runs.

use std::sync::Arc;
#[cfg(feature = "dns")]
use std::time::Duration;

use calimero_network_primitives::Multiaddr;
#[cfg(feature = "dns")]
use calimero_network_primitives::config::is_boot_list;
#[cfg(feature = "dns")]
use calimero_network_transport::AddressLists;
#[cfg(feature = "dns")]
use futures::future::join_all;
use tokio::sync::{Notify, mpsc};

/// Longest time between two lookups, 15 s: the interval at which boot nodes are redialled. The
/// resolver caches records for their lifetime, so a zone decides how often its servers are asked.
#[cfg(feature = "dns")]
const INTERVAL: Duration = Duration::from_secs(15);

/// Shortest time between two lookups, 1 s: many peers may be lost at one time.
#[cfg(feature = "dns")]
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The boot nodes of the lists of a configuration. The task that resolves them ends with this value.
#[derive(Debug)]
pub(crate) struct BootList {
    /// `None` if there are no lists.
    changes: Option<mpsc::Receiver<Vec<Multiaddr>>>,
    wanted: Arc<Notify>,
}

impl BootList {
    /// Starts to resolve the lists among `boot`, if there are any. Needs a tokio runtime.
    #[cfg(feature = "dns")]
    pub(crate) fn start(boot: &[Multiaddr]) -> Self {
        let lists: Vec<_> = boot
            .iter()
            .filter(|one| is_boot_list(one))
            .cloned()
            .collect();
        if lists.is_empty() {
            return Self::without_lists();
        }
        let (sender, receiver) = mpsc::channel(1);
        let wanted = Arc::<Notify>::default();
        tokio::spawn(resolve(lists, sender, wanted.clone()));
        Self {
            changes: Some(receiver),
            wanted,
        }
    }

    /// Without DNS there are no lists: the configuration refuses them.
    #[cfg(not(feature = "dns"))]
    pub(crate) fn start(_: &[Multiaddr]) -> Self {
        Self::without_lists()
    }

    fn without_lists() -> Self {
        Self {
            changes: None,
            wanted: Arc::default(),
        }
    }

    /// Resolves the lists again now, because a peer was lost: it may be a boot node that has moved.
    pub(crate) fn resolve_now(&self) {
        self.wanted.notify_one();
    }

    /// Waits for boot nodes that differ from the last ones. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Vec<Multiaddr> {
        if let Some(changes) = &mut self.changes
            && let Some(addresses) = changes.recv().await
        {
            return addresses;
        }
        std::future::pending().await
    }
}

/// Resolves `lists` until the receiver is dropped, and sends what they hold when it changes.
///
/// A list that cannot be resolved, or is empty, keeps what it held before: a fault of DNS does not
/// take a node off its network.
#[cfg(feature = "dns")]
async fn resolve(lists: Vec<Multiaddr>, sender: mpsc::Sender<Vec<Multiaddr>>, wanted: Arc<Notify>) {
    let resolver = AddressLists::system();
    let mut held = vec![Vec::new(); lists.len()];
    let mut failed = vec![false; lists.len()];
    let mut sent = Vec::new();
    loop {
        let answers = join_all(lists.iter().map(|list| resolver.resolve(list))).await;
        for (nth, answer) in answers.into_iter().enumerate() {
            let has_failed = match answer {
                Ok(mut addresses) => {
                    // Servers return records in any order.
                    addresses.sort_unstable_by_key(Multiaddr::to_vec);
                    held[nth] = addresses;
                    false
                }
                Err(error) => {
                    if !failed[nth] {
                        let list = &lists[nth];
                        tracing::warn!(%list, %error, "cannot resolve a list of boot nodes, it is tried again");
                    }
                    true
                }
            };
            failed[nth] = has_failed;
        }
        let all = held.concat();
        if all != sent {
            tracing::info!(addresses = all.len(), "the list of boot nodes changed");
            sent.clone_from(&all);
            if sender.send(all).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(MIN_INTERVAL).await;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL - MIN_INTERVAL) => {}
            () = wanted.notified() => {}
            () = sender.closed() => return,
        }
    }
}
