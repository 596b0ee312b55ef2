//! Peers that violate TLS, and connections that fail.

use futures::{AsyncReadExt, AsyncWriteExt, executor::block_on, future::join};
use rustls::{
    AlertDescription,
    unbuffered::{ConnectionState, UnbufferedStatus},
};

use super::*;
use crate::crypto::CertificateError;

#[test]
fn a_truncation_is_distinguished_from_an_end() {
    for own in [true, false] {
        block_on(async {
            let (a, b) = pipe(100_000, &[100_000]);
            let (mut a, b) = join(own_client(a), own_server(b)).await;
            let a = a.as_mut().unwrap();
            let mut b = b.unwrap();
            b.write_all(b"last words").await.unwrap();
            b.flush().await.unwrap();
            if own {
                b.close().await.unwrap();
            }
            drop(b);
            let mut words = [0; 10];
            a.read_exact(&mut words).await.unwrap();
            match a.read(&mut words).await {
                Ok(0) => assert!(own, "a truncation looked like an end"),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                    assert!(!own, "an end looked like a truncation");
                }
                Ok(_) => panic!("more than was sent"),
            }
        });
    }
}

#[test]
fn invalid_handshake_bytes_end_the_handshake() {
    block_on(async {
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0x16, 3, 1, 0, 4, 1, 2, 3, 4],
            &[0; 64],
        ] {
            let (a, mut b) = pipe(100_000, &[100_000]);
            b.write_all(garbage).await.unwrap();
            assert!(matches!(own_server(a).await, Err(HandshakeError::Tls(_))));
            let (a, mut b) = pipe(100_000, &[100_000]);
            b.write_all(garbage).await.unwrap();
            assert!(matches!(own_client(a).await, Err(HandshakeError::Tls(_))));
        }
    });
}

#[test]
fn a_broken_record_is_refused_with_an_alert() {
    block_on(async {
        let (a, b) = pipe(100_000, &[100_000]);
        let (a, b) = join(own_client(a), library_server(b)).await;
        let (mut a, b) = (a.unwrap(), b.unwrap());
        let (mut below, mut session) = b.into_inner();
        below.write_all(&[0x17, 3, 3, 0, 32]).await.unwrap();
        below.write_all(&[7; 32]).await.unwrap();
        let mut byte = [0];
        let error = a.read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        // Later reads return the error as well.
        assert!(a.read(&mut byte).await.is_err());
        assert!(a.write(&byte).await.is_err());
        let mut received = vec![0; 1000];
        let count = below.read(&mut received).await.unwrap();
        session.read_tls(&mut &received[..count]).unwrap();
        let told = session.process_new_packets().unwrap_err();
        assert_eq!(
            told,
            rustls::Error::AlertReceived(AlertDescription::BadRecordMac)
        );
    });
}

#[test]
fn the_wrong_peer_gets_an_alert() {
    block_on(async {
        let (server, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let expected = other.public().to_peer_id();
        let (a, b) = pipe(100_000, &[100_000]);
        let (a, b) = join(
            TlsStream::client(a, crypto().client(Some(expected)), name()),
            TlsStream::server(b, Crypto::new(&server).unwrap().server()),
        )
        .await;
        let Err(HandshakeError::Tls(refused)) = a else {
            panic!("accepted the wrong peer");
        };
        let found = server.public().to_peer_id();
        assert_eq!(
            CertificateError::of(&refused),
            Some(CertificateError::WrongPeer { expected, found })
        );
        let Err(HandshakeError::Tls(rustls::Error::AlertReceived(_))) = b else {
            panic!("the refused side has an established connection, or no reason");
        };
    });
}

/// A client session of the library with records that the test creates and
/// sends.
struct Raw {
    session: rustls::client::UnbufferedClientConnection,
    below: Pipe,
    received: Vec<u8>,
}

impl Raw {
    /// Performs a handshake with a server of this crate.
    async fn connected() -> (Self, TlsStream<Pipe>) {
        let (a, b) = pipe(1_000_000, &[1_000_000]);
        let config = crypto().client(None);
        let mut raw = Self {
            session: rustls::client::UnbufferedClientConnection::new(config, name()).unwrap(),
            below: a,
            received: Vec::new(),
        };
        let (_, b) = join(raw.handshake(), own_server(b)).await;
        (raw, b.unwrap())
    }

    async fn handshake(&mut self) {
        let mut out = vec![0; 20_000];
        let mut ready = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.session.process_tls_records(&mut self.received);
            let blocked = match state.unwrap() {
                ConnectionState::EncodeTlsData(mut data) => {
                    ready += data.encode(&mut out[ready..]).unwrap();
                    false
                }
                ConnectionState::TransmitTlsData(data) => {
                    self.below.write_all(&out[..ready]).await.unwrap();
                    ready = 0;
                    data.done();
                    false
                }
                ConnectionState::BlockedHandshake => true,
                ConnectionState::WriteTraffic(_) => return,
                other => panic!("{other:?}"),
            };
            self.received.drain(..discard);
            if blocked {
                let mut more = [0; 10_000];
                let count = self.below.read(&mut more).await.unwrap();
                assert!(count > 0);
                self.received.extend(&more[..count]);
            }
        }
    }

    /// Returns one record of application data, or a key update if `data` is
    /// `None`.
    fn record(&mut self, data: Option<&[u8]>) -> Vec<u8> {
        let mut out = vec![0; 20_000];
        let mut ready = 0;
        if data.is_none() {
            let status = self.session.process_tls_records(&mut []);
            let Ok(ConnectionState::WriteTraffic(writer)) = status.state else {
                panic!("not open");
            };
            writer.refresh_traffic_keys().unwrap();
        }
        loop {
            let status = self.session.process_tls_records(&mut []);
            match status.state.unwrap() {
                ConnectionState::EncodeTlsData(mut encode) => {
                    ready += encode.encode(&mut out[ready..]).unwrap();
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::WriteTraffic(mut writer) => {
                    if let Some(data) = data {
                        ready += writer.encrypt(data, &mut out[ready..]).unwrap();
                    }
                    out.truncate(ready);
                    return out;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.below.write_all(bytes).await.unwrap();
    }
}

#[test]
fn keys_are_updated_during_a_transfer() {
    block_on(async {
        let (mut raw, mut own) = Raw::connected().await;
        let (first, update, second) = (
            raw.record(Some(b"before ")),
            raw.record(None),
            raw.record(Some(b"after")),
        );
        raw.send(&[first, update, second].concat()).await;
        let mut words = [0; 12];
        own.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"before after");
        // The library accepts the response, which is encrypted with new keys.
        own.write_all(b"answer").await.unwrap();
        own.flush().await.unwrap();
        let mut received = vec![0; 10_000];
        let count = raw.below.read(&mut received).await.unwrap();
        let mut received = &mut received[..count];
        let mut seen: Vec<u8> = Vec::new();
        while seen.len() < 6 {
            let status = raw.session.process_tls_records(received);
            let mut discard = status.discard;
            match status.state.unwrap() {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.unwrap();
                        discard += record.discard;
                        seen.extend(record.payload);
                    }
                }
                ConnectionState::WriteTraffic(_) => panic!("nothing to read"),
                _ => {}
            }
            received = &mut received[discard..];
        }
        assert_eq!(seen, b"answer");
    });
}

#[test]
fn too_many_key_updates_are_refused() {
    block_on(async {
        let (mut raw, mut own) = Raw::connected().await;
        for _ in 0..100 {
            let update = raw.record(None);
            raw.send(&update).await;
        }
        let mut byte = [0];
        let error = own.read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn writing_continues_while_records_wait_to_be_read() {
    block_on(async {
        let (mut raw, mut own) = Raw::connected().await;
        let mut wire = Vec::new();
        for _ in 0..20 {
            wire.extend(raw.record(Some(&[5; 10_000])));
        }
        // The last record is truncated, so that a part of it stays in the
        // buffer.
        raw.send(&wire[..wire.len() - 100]).await;
        let mut seen = 0;
        let mut piece = [0; 3000];
        for _ in 0..60 {
            own.write_all(&[1; 100]).await.unwrap();
            seen += own.read(&mut piece).await.unwrap();
        }
        own.flush().await.unwrap();
        raw.send(&wire[wire.len() - 100..]).await;
        while seen < 200_000 {
            let count = own.read(&mut piece).await.unwrap();
            assert!(count > 0 && piece[..count].iter().all(|byte| *byte == 5));
            seen += count;
        }
    });
}

#[test]
fn writing_continues_while_half_a_handshake_message_waits() {
    block_on(async {
        // Session tickets follow the handshake, here in fragments of 27 bytes.
        let mut config = rustls::ServerConfig::clone(&crypto().server());
        config.send_tls13_tickets = 8;
        config.max_fragment_size = Some(32);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        for step in 1..80 {
            let (a, b) = pipe(1_000_000, &[step]);
            let (a, b) = join(own_client(a), acceptor.accept(b)).await;
            let (a, mut b) = (a.unwrap(), b.unwrap());
            b.write_all(b"data").await.unwrap();
            b.flush().await.unwrap();
            let mut words = [0; 4];
            let (mut from_b, mut to_b) = a.split();
            let reading = async { from_b.read_exact(&mut words).await.unwrap() };
            let writing = async {
                // A write is attempted between any two fragments.
                for _ in 0..40 {
                    to_b.write_all(b"ping").await.unwrap();
                    to_b.flush().await.unwrap();
                    let mut echo = [0; 4];
                    b.read_exact(&mut echo).await.unwrap();
                    assert_eq!(&echo, b"ping");
                }
            };
            join(reading, writing).await;
            assert_eq!(&words, b"data");
        }
    });
}
