//! Every case that the libp2p TLS specification requires an endpoint to refuse,
//! in both roles.

use libp2p_identity::Keypair;
use rustls::{AlertDescription, CertificateError as Invalid, Error, version::TLS12};

use super::{forge::Peer, handshake};
use crate::crypto::{CertificateError, Crypto};

fn ours() -> Crypto {
    Crypto::new(&Keypair::generate_ed25519()).expect("builds")
}

/// Connects to `peer` as dialler and as listener. Both must fail with the same
/// error.
fn refusal(peer: &Peer) -> Error {
    let ours = ours();
    let dialling = handshake(ours.client(None), peer.server()).refused_by_client();
    let listening = handshake(peer.client(), ours.server()).refused_by_server();
    assert_eq!(
        std::mem::discriminant(&dialling),
        std::mem::discriminant(&listening),
        "dialling: {dialling}, listening: {listening}"
    );
    listening
}

/// Returns the reason for which a certificate is invalid. `libp2p-tls`
/// distinguishes the reasons only in its text.
fn invalid_certificate(peer: &Peer) -> String {
    match refusal(peer) {
        Error::InvalidCertificate(Invalid::Other(other)) => other.0.to_string(),
        Error::InvalidCertificate(kind) => format!("{kind:?}"),
        other => panic!("refused for another reason: {other}"),
    }
}

#[test]
fn the_forged_peer_is_accepted_without_a_defect() {
    let (peer, ours) = (Peer::default(), ours());
    let (client, _) = handshake(ours.client(None), peer.server()).completed();
    let found = Crypto::peer_id(client.peer_certificates().expect("presented"));
    assert_eq!(found, Ok(peer.host_key.public().to_peer_id()));
    let (_, server) = handshake(peer.client(), ours.server()).completed();
    let found = Crypto::peer_id(server.peer_certificates().expect("presented"));
    assert_eq!(found, Ok(peer.host_key.public().to_peer_id()));
}

#[test]
fn a_chain_of_two() {
    let peer = Peer {
        chain: 2,
        ..Peer::default()
    };
    let refused = CertificateError::of(&refusal(&peer));
    assert_eq!(refused, Some(CertificateError::Chain { found: 2 }));
}

#[test]
fn no_libp2p_extension() {
    let peer = Peer {
        extension: false,
        ..Peer::default()
    };
    assert_eq!(invalid_certificate(&peer), "BadEncoding");
}

#[test]
fn an_unknown_critical_extension() {
    let peer = Peer {
        unknown: Some(true),
        ..Peer::default()
    };
    assert_eq!(invalid_certificate(&peer), "UnsupportedCriticalExtension");
}

#[test]
fn an_unknown_extension_that_is_not_critical_is_ignored() {
    let (ours, peer) = (
        ours(),
        Peer {
            unknown: Some(false),
            ..Peer::default()
        },
    );
    handshake(ours.client(None), peer.server()).completed();
    handshake(peer.client(), ours.server()).completed();
}

#[test]
fn a_wrong_signature_in_the_extension() {
    let peer = Peer {
        signing_prefix: b"libp2p-tls-handshake;",
        ..Peer::default()
    };
    assert_eq!(invalid_certificate(&peer), "UnknownIssuer");
}

#[test]
fn a_damaged_signature_of_the_certificate() {
    let peer = Peer {
        damaged: true,
        ..Peer::default()
    };
    assert_eq!(invalid_certificate(&peer), "SignatureAlgorithmMismatch");
}

#[test]
fn expired() {
    let peer = Peer {
        valid_years: (1975, 2000),
        ..Peer::default()
    };
    assert_eq!(invalid_certificate(&peer), "InvalidCertValidity");
}

#[test]
fn not_yet_valid() {
    let peer = Peer {
        valid_years: (4000, 4096),
        ..Peer::default()
    };
    assert_eq!(invalid_certificate(&peer), "InvalidCertValidity");
}

#[test]
fn another_peer_than_dialled() {
    let (ours, peer) = (ours(), Peer::default());
    let expected = Keypair::generate_ed25519().public().to_peer_id();
    let found = peer.host_key.public().to_peer_id();

    let error = handshake(ours.client(Some(expected)), peer.server()).refused_by_client();
    let wrong = CertificateError::WrongPeer { expected, found };
    assert_eq!(CertificateError::of(&error), Some(wrong));

    let (client, found_peer) = ours.client_reporting(expected);
    handshake(client, peer.server()).refused_by_client();
    assert_eq!(found_peer.get(), Some(&found));

    handshake(ours.client(Some(found)), peer.server()).completed();
}

#[test]
fn only_tls_1_2() {
    let peer = Peer {
        version: &TLS12,
        ..Peer::default()
    };
    let ours = ours();
    let outcome = handshake(ours.client(None), peer.server());
    assert!(outcome.client.is_err() && outcome.server.is_err());
    let error = handshake(peer.client(), ours.server()).refused_by_server();
    assert!(matches!(error, Error::PeerIncompatible(_)), "{error}");
}

#[test]
fn another_application_protocol() {
    let peer = Peer {
        alpn: vec![b"h3".to_vec()],
        ..Peer::default()
    };
    let ours = ours();
    // In ALPN, the listener refuses.
    let heard = handshake(ours.client(None), peer.server()).refused_by_client();
    assert_eq!(
        heard,
        Error::AlertReceived(AlertDescription::NoApplicationProtocol)
    );
    let error = handshake(peer.client(), ours.server()).refused_by_server();
    assert_eq!(error, Error::NoApplicationProtocol);
}

#[test]
fn no_application_protocol_passes_as_with_libp2p_tls() {
    // TLS over TCP accepts this. QUIC requires ALPN and refuses it.
    let peer = Peer {
        alpn: Vec::new(),
        ..Peer::default()
    };
    let ours = ours();
    handshake(ours.client(None), peer.server()).completed();
    handshake(peer.client(), ours.server()).completed();
}

#[test]
fn a_client_without_a_certificate() {
    let ours = ours();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut anonymous = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions fit")
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(
            crate::crypto::verifier::Verifier::default(),
        ))
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![b"libp2p".to_vec()];
    let error = handshake(anonymous.into(), ours.server()).refused_by_server();
    assert_eq!(error, Error::NoCertificatesPresented);
    let empty = Crypto::peer_id(&[]).expect_err("no certificate, no peer");
    let chain = CertificateError::Chain { found: 0 };
    assert_eq!(CertificateError::of(&empty), Some(chain));
}
