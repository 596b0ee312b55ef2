//! Hole punching: the side that is to be the listener opens its NAT for the side that dials.

use std::time::Duration;

use super::*;
use crate::quic::addr;

const LISTENER: Endpoint = Endpoint::Listener;

#[tokio::test]
async fn the_inbound_connection_ends_the_punching_dial() {
    for mut dialer in [Node::ours(), Node::stock()] {
        let mut puncher = Node::ours();
        let own = with_peer(&puncher.listen().await, puncher.peer);
        let from = with_peer(&dialer.listen().await, dialer.peer);
        let punching = puncher.dial(&from, LISTENER, PortUse::Reuse);
        let dialling = dialer.dial_out(&own);
        // The transport hands the connection to the dial; it is no event of the listener.
        let (punched, dialled) = within(async {
            tokio::select! {
                ends = async { futures::join!(punching, dialling) } => ends,
                event = puncher.event() => panic!("an event instead: {event:?}"),
            }
        })
        .await;
        let (punched, mut dialled) = (punched.expect("punches"), dialled.expect("dials").1);
        assert_eq!(punched.0, dialer.peer);
        let server = tokio::spawn(echo_all(punched.1));
        let mut stream = open(&mut dialled).await.expect("opens");
        stream.write_all(b"through").await.expect("writes");
        let mut received = [0; 7];
        within(stream.read_exact(&mut received))
            .await
            .expect("reads");
        assert_eq!(&received, b"through");
        server.abort();
    }
}

#[tokio::test]
async fn packets_leave_from_the_listener_until_the_deadline() {
    let after = Duration::from_millis(600);
    let mut puncher = Node::impatient(after);
    let own = addr::parse(&puncher.listen().await)
        .expect("an address of QUIC")
        .socket;
    let remote = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("binds");
    let to = with_peer(
        &addr::multiaddr(remote.local_addr().expect("bound")),
        PeerId::random(),
    );
    let punching = tokio::spawn(puncher.dial(&to, LISTENER, PortUse::New));
    let mut packets = Vec::new();
    for _ in 0..3 {
        let mut packet = [0; 128];
        let (length, from) = within(remote.recv_from(&mut packet))
            .await
            .expect("receives");
        assert_eq!((length, from), (64, own));
        packets.push(packet);
    }
    assert!(
        packets[0] != packets[1] && packets[1] != packets[2],
        "packets are random"
    );
    let error = within(punching)
        .await
        .expect("no panic")
        .err()
        .expect("nobody came");
    assert!(
        matches!(ours(&error), Error::Timeout { after: found } if *found == after),
        "{error}"
    );
}

#[tokio::test]
async fn another_peer_comes_through_the_hole() {
    let (mut puncher, mut dialer) = (Node::ours(), Node::ours());
    let own = with_peer(&puncher.listen().await, puncher.peer);
    let expected = PeerId::random();
    let from = with_peer(&dialer.listen().await, expected);
    let punching = puncher.dial(&from, LISTENER, PortUse::Reuse);
    let dialling = dialer.dial_out(&own);
    let (punched, dialled) = within(async {
        tokio::select! {
            ends = async { futures::join!(punching, dialling) } => ends,
            event = puncher.event() => panic!("an event instead: {event:?}"),
        }
    })
    .await;
    let error = punched.err().expect("the wrong peer");
    assert!(
        matches!(ours(&error), Error::WrongPeer(wrong) if wrong.expected == expected && wrong.found == dialer.peer),
        "{error}"
    );
    // To the dialler it was the right one, until it was closed.
    let mut muxer = dialled.expect("the dialler meets whom it dialled").1;
    let error = next_inbound(&mut muxer).await.err().expect("closed");
    assert!(matches!(ours(&error), Error::Closed { code: 0 }), "{error}");
}

#[tokio::test]
async fn what_cannot_be_punched() {
    let mut node = Node::ours();
    let remote: Multiaddr = "/ip4/127.0.0.1/udp/9/quic-v1"
        .parse()
        .expect("a multiaddress");
    let named = with_peer(&remote, PeerId::random());
    let refused = |result: Result<_, TransportError<io::Error>>| match result {
        Err(TransportError::Other(error)) => error,
        _ => panic!("the dial begins"),
    };

    let error = refused(node.try_dial(&named, LISTENER, PortUse::Reuse).map(drop));
    assert!(matches!(ours(&error), Error::NoListener), "{error}");

    node.listen().await;
    let nameless = node.try_dial(&remote, LISTENER, PortUse::Reuse).map(drop);
    assert!(matches!(
        nameless,
        Err(TransportError::MultiaddrNotSupported(_))
    ));

    let first = node.dial(&named, LISTENER, PortUse::Reuse);
    let error = refused(node.try_dial(&named, LISTENER, PortUse::Reuse).map(drop));
    assert!(matches!(ours(&error), Error::PunchInProgress(_)), "{error}");
    // A dial that was given up makes room for the next.
    drop(first);
    drop(node.dial(&named, LISTENER, PortUse::Reuse));

    let mut dials = Vec::new();
    for port in 1000..1128 {
        let address = with_peer(
            &addr::multiaddr(([127, 0, 0, 1], port).into()),
            PeerId::random(),
        );
        dials.push(node.dial(&address, LISTENER, PortUse::Reuse));
    }
    let error = refused(node.try_dial(&named, LISTENER, PortUse::Reuse).map(drop));
    assert!(matches!(ours(&error), Error::TooManyPunches), "{error}");
}
