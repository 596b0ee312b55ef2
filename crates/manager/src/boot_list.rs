//! Boot nodes of `/dnsaddr` names, which are resolved again and again while the node runs.

#[cfg(feature = "dns")]
use std::time::Duration;
use std::time::Instant;

use calimero_network_primitives::Multiaddr;
#[cfg(feature = "dns")]
use calimero_network_primitives::config::is_boot_list;
#[cfg(feature = "dns")]
use calimero_network_transport::{AddressError, AddressList};
use tokio::sync::{mpsc, watch};

/// Longest time between two lookups of a list, 15 s: the interval at which boot nodes are redialled.
/// The resolver caches records for their lifetime, so a zone decides how often its servers are asked.
#[cfg(feature = "dns")]
const INTERVAL: Duration = Duration::from_secs(15);

/// Shortest time between two lookups of a list, 1 s: several boot nodes may be lost at one time.
#[cfg(feature = "dns")]
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest time between two lookups after one that failed, 5 s: its name servers have a fault.
#[cfg(feature = "dns")]
const MIN_INTERVAL_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// A list of boot nodes: a `/dnsaddr` name in `discovery.boot`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootListStatus {
    /// The name, as configured.
    pub list: Multiaddr,
    /// Number of addresses in the list. At most 16 boot nodes of all lists are used.
    pub addresses: usize,
    /// Why the latest lookup, or a part of it, failed. What it held before is kept.
    pub error: Option<String>,
    /// Time at which the list, or whether it can be resolved, changed last.
    pub changed_at: Instant,
}

/// What changed in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    addresses: Vec<Multiaddr>,
    error: Option<String>,
}

/// The boot nodes of the lists of a configuration. The tasks that resolve them end with this value.
#[derive(Debug)]
pub(crate) struct BootLists {
    lists: Vec<BootListStatus>,
    /// What each list holds.
    held: Vec<Vec<Multiaddr>>,
    answers: mpsc::Receiver<(usize, Answer)>,
    wanted: watch::Sender<()>,
}

impl BootLists {
    /// Starts to resolve the lists among `boot`, if there are any. Needs a tokio runtime.
    pub(crate) fn start(boot: &[Multiaddr]) -> Self {
        let (sender, answers) = mpsc::channel(1);
        let (wanted, _) = watch::channel(());
        let all = Self {
            lists: Vec::new(),
            held: Vec::new(),
            answers,
            wanted,
        };
        // Without DNS there are no lists: the configuration refuses them.
        #[cfg(feature = "dns")]
        let all = all.following(boot, &sender);
        #[cfg(not(feature = "dns"))]
        let _ = (boot, sender);
        all
    }

    /// Starts a task for each list.
    #[cfg(feature = "dns")]
    fn following(mut self, boot: &[Multiaddr], sender: &mpsc::Sender<(usize, Answer)>) -> Self {
        for list in boot.iter().filter(|one| is_boot_list(one)) {
            let (nth, wanted) = (self.add(list), self.wanted.subscribe());
            let list = AddressList::system(list.clone());
            tokio::spawn(follow(nth, list, sender.clone(), wanted));
        }
        self
    }

    /// Adds a list that is not resolved yet. Returns its number.
    #[cfg(feature = "dns")]
    fn add(&mut self, list: &Multiaddr) -> usize {
        self.held.push(Vec::new());
        self.lists.push(BootListStatus {
            list: list.clone(),
            addresses: 0,
            error: None,
            changed_at: Instant::now(),
        });
        self.lists.len() - 1
    }

    /// Resolves the lists again now, because a boot node was lost: it may have moved.
    pub(crate) fn resolve_now(&self) {
        self.wanted.send_replace(());
    }

    /// Waits for a change, and returns the addresses of all lists. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Vec<Multiaddr> {
        let Some((nth, answer)) = self.answers.recv().await else {
            // There are no lists.
            return std::future::pending().await;
        };
        self.on_answer(nth, answer);
        self.held.concat()
    }

    fn on_answer(&mut self, nth: usize, answer: Answer) {
        let (Some(status), Some(held)) = (self.lists.get_mut(nth), self.held.get_mut(nth)) else {
            return;
        };
        let list = &status.list;
        match &answer.error {
            Some(error) if status.error.as_ref() != Some(error) => {
                tracing::warn!(%list, error, "cannot resolve a list of boot nodes, it is tried again");
            }
            None if status.error.is_some() => {
                tracing::info!(%list, "a list of boot nodes is resolved again");
            }
            _ => {}
        }
        status.changed_at = Instant::now();
        status.error = answer.error;
        // An empty list is more likely a fault than a wish to have no boot node.
        if !answer.addresses.is_empty() && *held != answer.addresses {
            *held = answer.addresses;
            tracing::info!(%list, addresses = held.len(), "a list of boot nodes changed");
        }
        status.addresses = held.len();
    }

    /// The lists, in the order of the configuration.
    pub(crate) fn status(&self) -> Vec<BootListStatus> {
        self.lists.clone()
    }
}

/// Resolves a list until the receiver is dropped, and sends what changed.
#[cfg(feature = "dns")]
async fn follow(
    nth: usize,
    mut list: AddressList,
    sender: mpsc::Sender<(usize, Answer)>,
    mut wanted: watch::Receiver<()>,
) {
    let mut sent = None;
    loop {
        let resolved = tokio::select! {
            resolved = list.resolve() => resolved,
            () = sender.closed() => return,
        };
        let least = match resolved.failure {
            Some(_) => MIN_INTERVAL_AFTER_FAILURE,
            None => MIN_INTERVAL,
        };
        let answer = Answer {
            error: resolved.failure.as_ref().map(AddressError::to_string),
            addresses: resolved.addresses,
        };
        if sent.as_ref() != Some(&answer) {
            sent = Some(answer.clone());
            if sender.send((nth, answer)).await.is_err() {
                return;
            }
        }
        // Nodes that were started together do not ask together.
        let rest = (INTERVAL - least).mul_f64(rand::random_range(0.8..1.0));
        let next = async {
            tokio::time::sleep(least).await;
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                _ = wanted.changed() => {}
            }
        };
        tokio::select! {
            () = next => {}
            () = sender.closed() => return,
        }
    }
}

#[cfg(feature = "dns")]
#[cfg(test)]
mod tests {
    use super::*;

    fn lists(count: usize) -> (BootLists, mpsc::Sender<(usize, Answer)>) {
        let (sender, answers) = mpsc::channel(8);
        let mut lists = BootLists::start(&[]);
        lists.answers = answers;
        for nth in 0..count {
            let list = format!("/dnsaddr/{nth}.example").parse().unwrap();
            lists.add(&list);
        }
        (lists, sender)
    }

    fn answer(addresses: &[&str], error: Option<&str>) -> Answer {
        Answer {
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            error: error.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn an_empty_list_keeps_what_it_held_and_says_why() {
        let (mut lists, sender) = lists(2);
        let (a, b) = ("/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1");
        sender.send((0, answer(&[a], None))).await.unwrap();
        assert_eq!(lists.changed().await, answer(&[a], None).addresses);
        sender.send((1, answer(&[b], None))).await.unwrap();
        assert_eq!(lists.changed().await, answer(&[a, b], None).addresses);
        sender
            .send((0, answer(&[], Some("no such name"))))
            .await
            .unwrap();
        assert_eq!(lists.changed().await, answer(&[a, b], None).addresses);
        let status = lists.status();
        assert_eq!(status[0].error.as_deref(), Some("no such name"));
        assert_eq!((status[0].addresses, status[1].addresses), (1, 1));
        assert_eq!(status[1].error, None);
        sender.send((0, answer(&[b], None))).await.unwrap();
        assert_eq!(lists.changed().await, answer(&[b, b], None).addresses);
        assert_eq!(lists.status()[0].error, None);
    }
}
