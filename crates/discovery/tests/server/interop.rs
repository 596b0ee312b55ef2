//! Against the stock client (libp2p-rendezvous).

use std::{collections::BTreeSet, time::Duration};

use calimero_network_discovery::server::rendezvous::{Event, registry::Registered};
use calimero_network_primitives::{Keypair, PeerId};
use futures::StreamExt;
use libp2p_rendezvous::{Cookie, ErrorCode, Namespace, Registration, client};
use libp2p_swarm::{Swarm, SwarmEvent};

use crate::common::{QUIC, Server, TCP, dial, swarm, within};

/// A stock client, connected, that says it is at a public address.
struct Client {
    swarm: Swarm<client::Behaviour>,
    server: PeerId,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        let keypair = Keypair::generate_ed25519();
        let mut swarm = swarm(&keypair, client::Behaviour::new(keypair.clone()));
        dial(&mut swarm, &server.address).await;
        swarm.add_external_address("/ip4/192.0.2.7/tcp/2428".parse().unwrap());
        let server = server.peer;
        Self { swarm, server }
    }

    fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    async fn event(&mut self) -> client::Event {
        within(async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::Behaviour(event) => return event,
                    SwarmEvent::ConnectionClosed { cause, .. } => panic!("{cause:?}"),
                    _ => {}
                }
            }
        })
        .await
    }

    async fn register(&mut self, namespace: &str, ttl_s: Option<u64>) -> Result<u64, ErrorCode> {
        let namespace = Namespace::new(namespace.to_owned()).unwrap();
        self.swarm
            .behaviour_mut()
            .register(namespace, self.server, ttl_s)
            .unwrap();
        match self.event().await {
            client::Event::Registered { ttl, .. } => Ok(ttl),
            client::Event::RegisterFailed { error, .. } => Err(error),
            other => panic!("{other:?}"),
        }
    }

    async fn discover(
        &mut self,
        namespace: Option<&str>,
        cookie: Option<Cookie>,
        limit: Option<u64>,
    ) -> Result<(Vec<Registration>, Cookie), ErrorCode> {
        let namespace = namespace.map(|text| Namespace::new(text.to_owned()).unwrap());
        self.swarm
            .behaviour_mut()
            .discover(namespace, cookie, limit, self.server);
        match self.event().await {
            client::Event::Discovered {
                registrations,
                cookie,
                ..
            } => Ok((registrations, cookie)),
            client::Event::DiscoverFailed { error, .. } => Err(error),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stock_client_registers_finds_others_and_leaves() {
    for at in [TCP, QUIC] {
        let mut server = Server::start(at, |_| {}).await;
        let mut alice = Client::connect(&server).await;
        let mut bob = Client::connect(&server).await;

        assert_eq!(alice.register("ns", None).await, Ok(7200));
        let (event, held) = server.event().await;
        let Event::Registered {
            peer, registered, ..
        } = event
        else {
            panic!("{event:?}");
        };
        let first = Registered {
            ttl_s: 7200,
            renewed: false,
        };
        assert_eq!((peer, registered), (alice.peer(), first));
        assert_eq!(held.registrations, 1);

        let (found, cookie) = bob.discover(Some("ns"), None, None).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].record.peer_id(), alice.peer());
        let address = found[0].record.addresses()[0].to_string();
        assert_eq!(address, "/ip4/192.0.2.7/tcp/2428");
        assert_eq!(found[0].namespace.to_string(), "ns");
        assert!((7190..=7200).contains(&found[0].ttl), "{}", found[0].ttl);

        // Nothing new; then a renewal, which is.
        let (found, cookie) = bob.discover(Some("ns"), Some(cookie), None).await.unwrap();
        assert!(found.is_empty());
        assert_eq!(alice.register("ns", Some(8000)).await, Ok(8000));
        let (found, cookie) = bob.discover(Some("ns"), Some(cookie), None).await.unwrap();
        assert_eq!(found.len(), 1);

        alice
            .swarm
            .behaviour_mut()
            .unregister(Namespace::from_static("ns"), server.peer);
        let gone = async {
            loop {
                if let (Event::Unregistered { .. }, held) = server.event().await {
                    return held;
                }
            }
        };
        let held = tokio::select! {
            held = gone => held,
            event = alice.event() => panic!("{event:?}"),
        };
        assert_eq!(held.registrations, 0);
        let (found, _) = bob.discover(Some("ns"), Some(cookie), None).await.unwrap();
        assert!(found.is_empty());
    }
}

#[tokio::test]
async fn a_stock_client_goes_through_all_members_page_by_page() {
    let server = Server::start(TCP, |_| {}).await;
    let mut members = BTreeSet::new();
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = Client::connect(&server).await;
        client.register("ns", None).await.unwrap();
        members.insert(client.peer());
        clients.push(client);
    }
    let mut asker = Client::connect(&server).await;
    let (mut told, mut cookie) = (Vec::new(), None);
    loop {
        let page = asker.discover(Some("ns"), cookie, Some(5)).await;
        let (found, next) = page.unwrap();
        if found.is_empty() {
            break;
        }
        assert!(found.len() <= 5);
        told.extend(found.iter().map(|found| found.record.peer_id()));
        cookie = Some(next);
    }
    assert_eq!(told.len(), 12);
    assert_eq!(BTreeSet::from_iter(told), members);
}

#[tokio::test]
async fn a_stock_client_is_refused_in_its_own_words() {
    let server = Server::start(TCP, |config| config.tuning.max_registrations_per_peer = 2).await;
    let mut client = Client::connect(&server).await;
    for ttl_s in [7199, 72 * 3600 + 1] {
        let refused = client.register("ns", Some(ttl_s)).await;
        assert_eq!(refused, Err(ErrorCode::InvalidTtl));
    }
    client.register("a", None).await.unwrap();
    client.register("b", None).await.unwrap();
    let refused = client.register("c", None).await;
    assert_eq!(refused, Err(ErrorCode::Unavailable));
    client.register("a", None).await.unwrap();

    let (_, cookie) = client.discover(Some("a"), None, None).await.unwrap();
    let refused = client.discover(Some("b"), Some(cookie.clone()), None).await;
    assert_eq!(refused.unwrap_err(), ErrorCode::InvalidCookie);
    let refused = client.discover(None, None, None).await;
    assert_eq!(refused.unwrap_err(), ErrorCode::NotAuthorized);

    // A cookie of another server, or of this one before a restart.
    let other = Server::start(TCP, |_| {}).await;
    let mut elsewhere = Client::connect(&other).await;
    elsewhere.register("a", None).await.unwrap();
    let made_up = Cookie::for_namespace(Namespace::from_static("a"));
    let refused = elsewhere.discover(Some("a"), Some(made_up), None).await;
    assert_eq!(refused.unwrap_err(), ErrorCode::InvalidCookie);
}

/// As a node does that starts with many overlays: more requests than the server takes in one go.
#[tokio::test]
async fn a_burst_of_a_stock_client_is_served_whole() {
    let server = Server::start(TCP, |config| {
        config.tuning.request_burst = 8;
        config.tuning.requests_per_second = 50;
        config.tuning.max_registrations_per_peer = 60;
    })
    .await;
    let mut client = Client::connect(&server).await;
    for index in 0..60 {
        let namespace = Namespace::new(format!("ns{index}")).unwrap();
        let behaviour = client.swarm.behaviour_mut();
        behaviour.register(namespace, server.peer, None).unwrap();
    }
    for _ in 0..60 {
        let event = client.event().await;
        assert!(
            matches!(event, client::Event::Registered { .. }),
            "{event:?}"
        );
    }
}

#[tokio::test]
async fn a_registration_ends_by_itself() {
    let mut server =
        Server::start(TCP, |config| config.tuning.min_ttl = Duration::from_secs(1)).await;
    let mut client = Client::connect(&server).await;
    client.register("ns", Some(1)).await.unwrap();
    let expired = async {
        loop {
            if let (Event::Expired { registrations }, held) = server.event().await {
                return (registrations, held.registrations);
            }
        }
    };
    assert_eq!(within(expired).await, (1, 0));
}
