use std::{pin::pin, time::Duration};

use calimero_network::{Keypair, NetworkConfig, NetworkManager};
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_subscription_waits_for_an_unsubscription_that_has_begun() {
    let config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    let started = NetworkManager::start(Keypair::generate_ed25519(), config).await;
    let (client, mut events) = started.unwrap();
    tokio::spawn(async move { while events.next().await.is_some() {} });
    let feed = Feed::new(&[]);
    let topic = Topic::free("news").unwrap();
    let begin = || Subscription::begin(&client, &feed, topic.clone());
    let first = begin().await.unwrap();
    let unsubscribing = feed.changing.lock().await;
    drop(first);
    let mut next = pin!(begin());
    let early = timeout(Duration::from_millis(200), &mut next).await;
    assert!(early.is_err(), "it did not wait");
    drop(unsubscribing);
    let _held = next.await.unwrap();
    drop(feed.changing.lock().await);
    assert!(client.unsubscribe(&topic).await.unwrap(), "not subscribed");
}
