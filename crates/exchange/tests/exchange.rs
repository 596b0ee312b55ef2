//! Both handlers in swarms that are connected through memory: a peer sends a number, the other
//! sends it back.

#![expect(
    clippy::manual_async_fn,
    clippy::type_complexity,
    reason = "the traits ask for futures that are Send, and the type is that of the Swarm"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

use std::{
    collections::{HashMap, VecDeque},
    io,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_exchange::{
    inbound::{self, Ids, Responder},
    outbound::{self, Command, Failure, Limits, Requester},
    within,
};
use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, channel::oneshot, future::BoxFuture,
};
use libp2p_core::{Endpoint, Multiaddr, transport::PortUse};
use libp2p_swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerSelect, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, Swarm, SwarmEvent, ToSwarm,
    derive_prelude::{Either, PeerId},
    dummy,
};
use libp2p_swarm_test::SwarmExt as _;

const DEADLINE: Duration = Duration::from_secs(20);

/// A request that is answered on its own; others wait for the test.
const ANSWERED: u8 = 1;

#[derive(Debug)]
struct Echo {
    timeout: Duration,
    serves: usize,
}

impl Requester for Echo {
    type Request = u8;
    type Answer = u8;
    type Error = io::Error;

    fn protocol(&self) -> StreamProtocol {
        StreamProtocol::new("/echo/1")
    }

    fn limits(&self) -> Limits {
        Limits {
            max_running: 2,
            max_waiting: 1,
            timeout: self.timeout,
        }
    }

    fn run(
        &self,
        mut stream: Stream,
        request: u8,
    ) -> impl Future<Output = io::Result<u8>> + Send + 'static {
        async move {
            stream.write_all(&[request]).await?;
            stream.flush().await?;
            let mut answer = [0];
            stream.read_exact(&mut answer).await?;
            Ok(answer[0])
        }
    }
}

impl Responder for Echo {
    type Request = u8;
    type Answer = u8;
    type Permit = ();
    type Pending = Stream;
    type Failure = io::ErrorKind;

    fn protocol(&self) -> StreamProtocol {
        StreamProtocol::new("/echo/1")
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn admit(&mut self) -> Result<(), io::ErrorKind> {
        let serves = self.serves.checked_sub(1);
        self.serves = serves.ok_or(io::ErrorKind::ResourceBusy)?;
        Ok(())
    }

    fn refuse(&self, mut stream: Stream, _: &io::ErrorKind) -> Option<BoxFuture<'static, ()>> {
        let refuse = async move {
            let _ = stream.write_all(&[0]).await;
            let _ = stream.close().await;
        };
        Some(refuse.boxed())
    }

    fn receive(
        &self,
        mut stream: Stream,
        (): (),
    ) -> impl Future<Output = Result<(u8, Stream), io::ErrorKind>> + Send + 'static {
        async move {
            let mut request = [0];
            let read = stream.read_exact(&mut request).await;
            read.map_err(|error| error.kind())?;
            Ok((request[0], stream))
        }
    }

    fn respond(
        &self,
        mut stream: Stream,
        answer: oneshot::Receiver<u8>,
    ) -> impl Future<Output = Result<(), io::ErrorKind>> + Send + 'static {
        async move {
            let answer = answer.await.map_err(|_| io::ErrorKind::Other)?;
            stream.write_all(&[answer]).await.map_err(|e| e.kind())?;
            stream.close().await.map_err(|e| e.kind())
        }
    }
}

type Handler = ConnectionHandlerSelect<outbound::Handler<Echo>, inbound::Handler<Echo>>;

/// Passes commands to the one connection, and answers [`ANSWERED`].
struct Peer {
    timeout: Duration,
    serves: usize,
    ids: Ids,
    waiting: VecDeque<ToSwarm<outbound::Event<u8>, Either<Command<u8>, std::convert::Infallible>>>,
    held: HashMap<u8, oneshot::Sender<u8>>,
    connection: Option<(PeerId, ConnectionId)>,
}

impl Peer {
    fn new(timeout: Duration, serves: usize) -> Self {
        Self {
            timeout,
            serves,
            ids: Ids::default(),
            waiting: VecDeque::new(),
            held: HashMap::new(),
            connection: None,
        }
    }

    fn command(&mut self, command: Command<u8>) {
        let (peer_id, connection) = self.connection.unwrap();
        self.waiting.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: Either::Left(command),
        });
    }

    fn handler(&mut self, peer: PeerId, connection: ConnectionId) -> Handler {
        self.connection = Some((peer, connection));
        let echo = || Echo {
            timeout: self.timeout,
            serves: self.serves,
        };
        let inbound = inbound::Handler::new(echo(), self.ids.clone());
        outbound::Handler::new(echo()).select(inbound)
    }
}

impl NetworkBehaviour for Peer {
    type ConnectionHandler = Handler;
    type ToSwarm = outbound::Event<u8>;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer, connection))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer, connection))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: Either<outbound::Event<u8>, inbound::Event<Echo>>,
    ) {
        match event {
            Either::Left(event) => self.waiting.push_back(ToSwarm::GenerateEvent(event)),
            Either::Right(inbound::Event::Request {
                request, answer, ..
            }) if request == ANSWERED => answer.send(request).unwrap(),
            Either::Right(inbound::Event::Request {
                request, answer, ..
            }) => {
                self.held.insert(request, answer);
            }
            Either::Right(inbound::Event::Ended { .. }) => {}
        }
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ToSwarm<outbound::Event<u8>, Either<Command<u8>, std::convert::Infallible>>> {
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A peer that asks, connected to one that serves `serves` requests.
async fn connected(timeout: Duration, serves: usize) -> Swarm<Peer> {
    let (asking, serving) = pair(timeout, serves).await;
    tokio::spawn(serving.loop_on_next());
    asking
}

async fn pair(timeout: Duration, serves: usize) -> (Swarm<Peer>, Swarm<Peer>) {
    let mut asking = Swarm::new_ephemeral_tokio(|_| Peer::new(timeout, 0));
    let mut serving = Swarm::new_ephemeral_tokio(|_| Peer::new(DEADLINE, serves));
    serving.listen().with_memory_addr_external().await;
    asking.connect(&mut serving).await;
    (asking, serving)
}

/// The next request that ended.
async fn ended(swarm: &mut Swarm<Peer>) -> (u64, Result<u8, Failure>) {
    let ended = async {
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(outbound::Event::Ended(id, result)) = event {
                return (id, result);
            }
        }
    };
    within(DEADLINE, ended)
        .await
        .expect("a request ends in time")
}

fn send(swarm: &mut Swarm<Peer>, id: u64, request: u8) {
    swarm.behaviour_mut().command(Command::Send(id, request));
}

#[tokio::test]
async fn each_request_has_its_answer() {
    let mut swarm = connected(DEADLINE, usize::MAX).await;
    for id in 0..20 {
        send(&mut swarm, id, ANSWERED);
        let (ended, answer) = ended(&mut swarm).await;
        assert_eq!((ended, answer.unwrap()), (id, ANSWERED));
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_cancelled_request_makes_room() {
    let (mut swarm, mut serving) = pair(DEADLINE, usize::MAX).await;
    // Two run without an answer; each has arrived before the next is sent.
    for id in 0..2_u8 {
        send(&mut swarm, id.into(), 7 + id);
        while !serving.behaviour().held.contains_key(&(7 + id)) {
            let event = async {
                tokio::select! {
                    _ = swarm.next() => {}
                    _ = serving.next_swarm_event() => {}
                    // The serving behaviour reports nothing to its swarm.
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            };
            within(DEADLINE, event).await.expect("the request arrives");
        }
    }
    tokio::spawn(serving.loop_on_next());
    send(&mut swarm, 2, ANSWERED);
    send(&mut swarm, 3, ANSWERED);
    let (id, result) = ended(&mut swarm).await;
    assert!(
        matches!(result, Err(Failure::TooMany { limit: 1 })),
        "{result:?}"
    );
    assert_eq!(id, 3);
    swarm.behaviour_mut().command(Command::Cancel(0));
    let (id, result) = ended(&mut swarm).await;
    assert_eq!((id, result.unwrap()), (2, ANSWERED));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout() {
    let after = Duration::from_millis(50);
    let mut swarm = connected(after, usize::MAX).await;
    send(&mut swarm, 0, 7);
    let (_, result) = ended(&mut swarm).await;
    assert!(matches!(result, Err(Failure::TimedOut { after: at }) if at == after));
}

#[tokio::test]
async fn a_stream_without_a_permit_is_refused_before_it_is_read() {
    let mut swarm = connected(DEADLINE, 1).await;
    for (id, expected) in [(0, ANSWERED), (1, 0)] {
        send(&mut swarm, id, ANSWERED);
        let (_, answer) = ended(&mut swarm).await;
        assert_eq!(answer.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_peer_without_the_protocol_is_unsupported() {
    let mut asking = Swarm::new_ephemeral_tokio(|_| Peer::new(DEADLINE, 0));
    let mut other = Swarm::new_ephemeral_tokio(|_| dummy::Behaviour);
    other.listen().with_memory_addr_external().await;
    asking.connect(&mut other).await;
    tokio::spawn(other.loop_on_next());
    send(&mut asking, 0, ANSWERED);
    let (_, result) = ended(&mut asking).await;
    assert!(matches!(result, Err(Failure::Unsupported)), "{result:?}");
}
