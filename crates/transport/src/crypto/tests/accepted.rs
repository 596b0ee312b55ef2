//! Accepted peers and the negotiated ciphers.

use aws_lc_rs::{encoding::AsDer, rsa};
use libp2p_identity::{KeyType, Keypair};
use rustls::{
    CipherSuite, NamedGroup, SupportedCipherSuite,
    crypto::{CryptoProvider, GetRandomFailed, SecureRandom},
};

use super::{forge::Peer, handshake};
use crate::crypto::{
    Crypto,
    provider::{cipher_order, provider},
};

fn with_ciphers(ciphers: &[SupportedCipherSuite]) -> Crypto {
    let provider = CryptoProvider {
        cipher_suites: ciphers.to_vec(),
        ..provider()
    };
    Crypto::with_provider(&Keypair::generate_ed25519(), provider).expect("builds")
}

fn first(ciphers: &[SupportedCipherSuite]) -> Option<CipherSuite> {
    ciphers.first().map(SupportedCipherSuite::suite)
}

#[test]
fn stock_peers_connect_in_both_roles_and_the_listener_decides() {
    for aes in [true, false] {
        let ours = with_ciphers(&cipher_order(aes));
        let stock_key = Keypair::generate_ed25519();

        // A libp2p-tls dialler prefers ChaCha20 and still gets the cipher that
        // is fastest here.
        let stock = libp2p_tls::make_client_config(&stock_key, None).expect("builds");
        let (client, server) = handshake(stock.into(), ours.server()).completed();
        let negotiated = client.negotiated_cipher_suite().map(|suite| suite.suite());
        assert_eq!(negotiated, first(&cipher_order(aes)));
        let found = Crypto::peer_id(server.peer_certificates().expect("presented"));
        assert_eq!(found, Ok(stock_key.public().to_peer_id()));

        // A libp2p-tls listener selects the dialler's first cipher.
        let stock = libp2p_tls::make_server_config(&stock_key).expect("builds");
        let expected = stock_key.public().to_peer_id();
        let (client, server) = handshake(ours.client(Some(expected)), stock.into()).completed();
        let negotiated = server.negotiated_cipher_suite().map(|suite| suite.suite());
        assert_eq!(negotiated, first(&cipher_order(aes)));
        let found = Crypto::peer_id(client.peer_certificates().expect("presented"));
        assert_eq!(found, Ok(expected));
    }
}

#[test]
fn a_stock_dialler_of_the_other_order_connects() {
    let ours = with_ciphers(&cipher_order(true));
    for reversed in [false, true] {
        let key = Keypair::generate_ed25519();
        let mut ciphers = cipher_order(true);
        if reversed {
            ciphers.reverse();
        }
        let provider = CryptoProvider {
            cipher_suites: ciphers.to_vec(),
            ..provider()
        };
        let other = Crypto::with_provider(&key, provider).expect("builds");
        let (client, _) = handshake(other.client(None), ours.server()).completed();
        let negotiated = client.negotiated_cipher_suite().map(|suite| suite.suite());
        assert_eq!(negotiated, first(&cipher_order(true)));
    }
}

#[test]
fn every_single_cipher_suffices() {
    let ours = with_ciphers(&cipher_order(true));
    for cipher in cipher_order(true) {
        let other = with_ciphers(&[cipher]);
        handshake(ours.client(None), other.server()).completed();
        handshake(other.client(None), ours.server()).completed();
    }
}

#[test]
fn the_key_exchange_is_post_quantum_between_nodes_of_this_crate() {
    let ours = Crypto::new(&Keypair::generate_ed25519()).expect("builds");
    let stock = libp2p_tls::make_server_config(&Keypair::generate_ed25519()).expect("builds");
    for server in [ours.server(), stock.into()] {
        let (client, _) = handshake(ours.client(None), server).completed();
        let group = client.negotiated_key_exchange_group().expect("negotiated");
        assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
        assert_eq!(client.alpn_protocol(), Some(b"libp2p".as_slice()));
    }
}

#[test]
fn no_server_name_is_sent_and_no_session_is_resumed() {
    let ours = Crypto::new(&Keypair::generate_ed25519()).expect("builds");
    let peer = Peer::default();
    for _ in 0..2 {
        let (client, server) = handshake(ours.client(None), ours.server()).completed();
        assert_eq!(server.server_name(), None);
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let (client, _) = handshake(ours.client(None), peer.server()).completed();
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

/// A library whose entropy is not collected yet.
#[derive(Debug)]
struct NoEntropy;

impl SecureRandom for NoEntropy {
    fn fill(&self, _: &mut [u8]) -> Result<(), GetRandomFailed> {
        Err(GetRandomFailed)
    }
}

#[test]
fn a_node_starts_without_the_entropy_of_the_library() {
    let provider = CryptoProvider {
        secure_random: &NoEntropy,
        ..provider()
    };
    let crypto = Crypto::with_provider(&Keypair::generate_ed25519(), provider).expect("builds");
    let name = std::net::Ipv4Addr::UNSPECIFIED;
    let name = rustls::pki_types::ServerName::IpAddress(name.into());
    // The provider is the one of the handshakes.
    let handshake = rustls::ClientConnection::new(crypto.client(None), name);
    assert!(matches!(
        handshake,
        Err(rustls::Error::FailedToGetRandomBytes)
    ));
}

#[test]
fn host_keys_of_every_kind_are_accepted() {
    let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'static> = rsa.as_der().expect("encodes");
    let mut pkcs8 = pkcs8.as_ref().to_vec();
    let keys = [
        (
            KeyType::RSA,
            Keypair::rsa_from_pkcs8(&mut pkcs8).expect("an RSA key"),
        ),
        (KeyType::Ecdsa, Keypair::generate_ecdsa()),
        (KeyType::Secp256k1, Keypair::generate_secp256k1()),
        (KeyType::Ed25519, Keypair::generate_ed25519()),
    ];
    let ours = Crypto::new(&Keypair::generate_ed25519()).expect("builds");
    for (kind, host_key) in keys {
        assert_eq!(host_key.key_type(), kind);
        let id = host_key.public().to_peer_id();
        let peer = Peer {
            host_key,
            ..Peer::default()
        };
        let (client, _) = handshake(ours.client(Some(id)), peer.server()).completed();
        let found = Crypto::peer_id(client.peer_certificates().expect("presented"));
        assert_eq!(found, Ok(id));
        let (_, server) = handshake(peer.client(), ours.server()).completed();
        let found = Crypto::peer_id(server.peer_certificates().expect("presented"));
        assert_eq!(found, Ok(id));
    }
}
