//! The TLS stream compared with the buffered interface of `rustls`.

mod broken;
mod hostile;
mod memory;

use std::{io, net::Ipv4Addr, sync::Arc};

use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, executor::block_on, future::join,
};
use futures_rustls::{TlsAcceptor, TlsConnector};
use libp2p_identity::Keypair;
use proptest::prelude::*;
use rustls::pki_types::{IpAddr, ServerName};

use super::{HandshakeError, TlsStream};
use crate::{
    crypto::Crypto,
    pipe::{Pipe, pipe},
};

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

fn crypto() -> Crypto {
    Crypto::new(&Keypair::generate_ed25519()).unwrap()
}

fn name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED)))
}

async fn own_client(io: Pipe) -> Result<TlsStream<Pipe>, HandshakeError> {
    TlsStream::client(io, crypto().client(None), name()).await
}

async fn own_server(io: Pipe) -> Result<TlsStream<Pipe>, HandshakeError> {
    TlsStream::server(io, crypto().server()).await
}

async fn library_client(io: Pipe) -> io::Result<futures_rustls::client::TlsStream<Pipe>> {
    let connector = TlsConnector::from(crypto().client(None));
    connector.connect(name(), io).await
}

async fn library_server(io: Pipe) -> io::Result<futures_rustls::server::TlsStream<Pipe>> {
    TlsAcceptor::from(crypto().server()).accept(io).await
}

/// The implementations on both sides: this crate on both, or the library on one
/// of them.
#[derive(Clone, Copy, Debug)]
enum Pairing {
    OwnOwn,
    OwnLibrary,
    LibraryOwn,
}

async fn pair(pairing: Pairing, a: Pipe, b: Pipe) -> (Box<dyn Stream>, Box<dyn Stream>) {
    match pairing {
        Pairing::OwnOwn => {
            let (a, b) = join(own_client(a), own_server(b)).await;
            (Box::new(a.unwrap()), Box::new(b.unwrap()))
        }
        Pairing::OwnLibrary => {
            let (a, b) = join(own_client(a), library_server(b)).await;
            (Box::new(a.unwrap()), Box::new(b.unwrap()))
        }
        Pairing::LibraryOwn => {
            let (a, b) = join(library_client(a), own_server(b)).await;
            (Box::new(a.unwrap()), Box::new(b.unwrap()))
        }
    }
}

fn pairing() -> impl Strategy<Value = Pairing> {
    prop_oneof![
        Just(Pairing::OwnOwn),
        Just(Pairing::OwnLibrary),
        Just(Pairing::LibraryOwn)
    ]
}

/// Writes of one side: their lengths, and whether a flush follows each.
fn writes() -> impl Strategy<Value = Vec<(usize, bool)>> {
    let length = prop_oneof![
        4 => 1usize..40,
        3 => 1000usize..40_000,
        1 => 250_000usize..600_000,
    ];
    proptest::collection::vec((length, any::<bool>()), 0..8)
}

fn byte(at: u64) -> u8 {
    (at % 251) as u8
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), writes: &[(usize, bool)]) {
    let mut at = 0;
    for (length, flush) in writes {
        let data: Vec<u8> = (at..at + *length as u64).map(byte).collect();
        stream.write_all(&data).await.unwrap();
        at += *length as u64;
        if *flush {
            stream.flush().await.unwrap();
        }
    }
    stream.close().await.unwrap();
}

/// Reads to the announced end in pieces of `step` bytes and returns the number
/// of bytes.
async fn read_all(stream: &mut (impl AsyncRead + Unpin), step: usize) -> u64 {
    let mut piece = vec![0; step];
    let mut at = 0;
    loop {
        let count = stream.read(&mut piece).await.unwrap();
        if count == 0 {
            return at;
        }
        for found in &piece[..count] {
            assert_eq!(*found, byte(at));
            at += 1;
        }
    }
}

fn total(writes: &[(usize, bool)]) -> u64 {
    writes.iter().map(|(length, _)| *length as u64).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For all writes, all splits of the byte stream and all pipe sizes, each
    /// side reads exactly what the other wrote, up to its announced end.
    #[test]
    fn carries_what_is_written(
        pairing in pairing(),
        left in writes(),
        right in writes(),
        steps in proptest::collection::vec(1usize..30_000, 1..8),
        capacity in 1usize..100_000,
        read_left in 1usize..300_000,
        read_right in 1usize..300_000,
    ) {
        block_on(async {
            let (a, b) = pipe(capacity, &steps);
            let (a, b) = pair(pairing, a, b).await;
            let ((mut a_read, mut a_write), (mut b_read, mut b_write)) = (a.split(), b.split());
            let (_, _, at_right, at_left) = futures::join!(
                write_all(&mut a_write, &left),
                write_all(&mut b_write, &right),
                read_all(&mut b_read, read_right),
                read_all(&mut a_read, read_left),
            );
            assert_eq!(at_right, total(&left));
            assert_eq!(at_left, total(&right));
        });
    }
}

#[test]
fn a_handshake_completes_with_reads_of_one_byte() {
    block_on(async {
        for pairing in [Pairing::OwnOwn, Pairing::OwnLibrary, Pairing::LibraryOwn] {
            let (a, b) = pipe(1, &[1]);
            let (mut a, mut b) = pair(pairing, a, b).await;
            let (_, count) = join(write_all(&mut a, &[(100, true)]), read_all(&mut b, 7)).await;
            assert_eq!(count, 100);
        }
    });
}

#[test]
fn the_writer_of_a_peer_that_does_not_read_is_stopped() {
    block_on(async {
        let (a, b) = pipe(10_000, &[10_000]);
        let (mut a, _b) = pair(Pairing::OwnOwn, a, b).await;
        let data = vec![0; 64 * 1024];
        let mut taken = 0;
        while let std::task::Poll::Ready(count) = futures::poll!(a.write(&data)) {
            taken += count.unwrap();
            assert!(
                taken < 1024 * 1024,
                "{taken} bytes taken for a peer that reads none"
            );
        }
    });
}

#[test]
fn configurations_are_shared_between_connections() {
    block_on(async {
        let (server, client) = (crypto(), crypto());
        assert!(Arc::ptr_eq(&server.server(), &server.server()));
        for _ in 0..3 {
            let (a, b) = pipe(10_000, &[10_000]);
            let (a, b) = join(
                TlsStream::client(a, client.client(None), name()),
                TlsStream::server(b, server.server()),
            )
            .await;
            let found = Crypto::peer_id(b.unwrap().common().peer_certificates().unwrap());
            assert!(found.is_ok() && a.is_ok());
        }
    });
}
