use std::{collections::VecDeque, task::Waker};

use calimero_network_primitives::{
    Keypair,
    resources::{Limit, Limits, Resources},
};

use super::*;
use crate::{config::Config, machine::Machine};

/// Bytes that have arrived, after which the peer says nothing.
struct Feed(VecDeque<u8>);

impl AsyncRead for Feed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        space: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        io::Read::read(&mut self.0, space).into()
    }
}

fn reader() -> Reader {
    let machine = Machine::new(
        Keypair::generate_ed25519(),
        &Config::small(),
        [7; 32],
        now(),
    );
    Reader {
        peer: PeerId::random(),
        validator: machine.validator().clone(),
        max_rpc_bytes: 1 << 20,
    }
}

/// An RPC with one field that is ignored, of `size` bytes in all.
fn rpc(size: usize) -> Vec<u8> {
    let mut lengths = (1..=4).map(|width| (size - 1 - width, width));
    let fitting = |&(length, width): &(usize, usize)| prost::length_delimiter_len(length) == width;
    let (length, _) = lengths.find(fitting).unwrap();
    let mut field = vec![0x7a];
    prost::encode_length_delimiter(length, &mut field).unwrap();
    field.resize(size, 0);
    let mut whole = Vec::new();
    prost::encode_length_delimiter(size, &mut whole).unwrap();
    whole.extend(field);
    whole
}

/// Polls a stream and returns the number of RPCs.
fn poll(inbound: &mut Inbound<Feed>) -> Poll<(usize, Option<io::ErrorKind>)> {
    let polled = inbound.poll(&reader(), &mut Context::from_waker(Waker::noop()));
    polled.map(|(rpcs, end)| (rpcs.len(), end.err().map(|error| error.kind())))
}

#[test]
fn rpcs_that_have_not_arrived_in_full_share_a_budget() {
    const SIZE: usize = 600_000;
    let mut limits = Limits::default();
    limits.set(
        Resource::FrameBytes,
        Limit {
            node: 1_000_000,
            reserve: 0,
            origin: 1_000_000,
            peer: 700_000,
        },
    );
    let resources = Resources::new(limits);
    let inbound = |sent: &[u8]| {
        let holder = resources.holder(Some(PeerId::random()), None);
        Inbound::new(Feed(sent.iter().copied().collect()), holder)
    };
    let used = || resources.used(Resource::FrameBytes);
    let whole = rpc(SIZE);
    let mut stalled = inbound(&whole[..whole.len() - 1]);
    assert!(poll(&mut stalled).is_pending());
    assert_eq!(used(), whole.len() as u64);
    // Small RPCs need no permit. The large one behind it waits for the memory.
    let mut honest = inbound(&[rpc(1_000), whole.clone()].concat());
    assert_eq!(poll(&mut honest), Poll::Ready((1, None)));
    assert!(poll(&mut honest).is_pending());
    assert!(honest.arrived.capacity() <= 2 * CHUNK_BYTES);
    drop(stalled);
    assert_eq!(poll(&mut honest), Poll::Ready((1, None)));
    assert_eq!(honest.arrived.capacity(), 0);
    assert_eq!(used(), 0);
    // More than one peer may hold.
    let mut large = inbound(&rpc(800_000));
    let refused = Poll::Ready((0, Some(io::ErrorKind::OutOfMemory)));
    assert_eq!(poll(&mut large), refused);
}

/// How the stream ends when nothing has arrived for that long.
fn end_after(stalled: &mut Inbound<Feed>, time: Duration) -> Poll<(usize, Option<io::ErrorKind>)> {
    stalled.memory.since = now().at.checked_sub(time);
    poll(stalled)
}

#[test]
fn an_rpc_that_does_not_arrive_ends_its_stream() {
    const SIZE: usize = 400_000;
    let timed_out = Poll::Ready((0, Some(io::ErrorKind::TimedOut)));
    let mut limits = Limits::default();
    let limit = Limit {
        node: 600_000,
        reserve: 0,
        origin: 600_000,
        peer: 600_000,
    };
    limits.set(Resource::FrameBytes, limit);
    let resources = Resources::new(limits);
    let stalled = |size: usize| {
        let holder = resources.holder(Some(PeerId::random()), None);
        let sent = rpc(size);
        Inbound::new(Feed(sent[..900].iter().copied().collect()), holder)
    };
    let mut small = stalled(1_000);
    assert!(end_after(&mut small, Duration::from_secs(59)).is_pending());
    assert_eq!(end_after(&mut small, Duration::from_secs(61)), timed_out);
    let mut large = stalled(SIZE);
    assert!(end_after(&mut large, Duration::from_secs(150)).is_pending());
    // Another peer waits for the memory. Its wait is not a stall.
    let mut waiting = stalled(SIZE);
    assert!(poll(&mut waiting).is_pending());
    assert!(end_after(&mut waiting, Duration::from_secs(500)).is_pending());
    assert!(end_after(&mut large, Duration::from_secs(9)).is_pending());
    assert_eq!(end_after(&mut large, Duration::from_secs(12)), timed_out);
}
