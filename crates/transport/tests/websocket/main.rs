//! WebSocket on real sockets: plain and inside of TLS, names, certificates, and peers that violate the
//! protocol.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod proxy;

use std::{
    fs,
    future::poll_fn,
    path::Path,
    time::{Duration, SystemTime},
};

use self::common::{
    accept, any_address, connect, dial, dial_opts, dialled, exchange, listen, offering, with_peer,
    within,
};
use calimero_network_primitives::{
    addr::DialPolicy,
    config::{
        Security::{Noise, Tls},
        TransportConfig,
    },
};
use calimero_network_transport::{
    AddressError, BuildError, CertificateFileError, SecurityKind, Transport, TransportKind, build,
    classify,
};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{Either, select},
};
use libp2p_core::Transport as _;
use libp2p_identity::Keypair;
use multiaddr::{Multiaddr, Protocol};

const PLAIN: &str = "/ip4/127.0.0.1/tcp/0/ws";

/// A folder with a certificate for 127.0.0.1 and localhost, and its key.
struct Files(std::path::PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("websocket-{name}"));
        fs::create_dir_all(&folder).unwrap();
        let files = Self(folder);
        files.renew(0);
        files
    }

    /// Replaces both files, as the renewal number `version` does.
    fn renew(&self, version: u64) {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        self.write("cert.pem", &made.cert.pem(), version);
        self.write("key.pem", &made.key_pair.serialize_pem(), version);
    }

    /// Writes a file whose modification time depends on `version` alone.
    fn write(&self, name: &str, text: &str, version: u64) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + version);
        file.set_modified(modified).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }

    /// A configuration that presents the certificate `cert` and trusts `trusted`.
    fn config(&self, trusted: &Self) -> TransportConfig {
        let mut config = TransportConfig::default();
        config.websocket.certificate = self.path("cert.pem");
        config.websocket.key = self.path("key.pem");
        config.websocket.tuning.trusted = Some(trusted.path("cert.pem"));
        config
    }
}

fn node(config: &TransportConfig) -> (Keypair, Transport) {
    let keypair = Keypair::generate_ed25519();
    let transport = build(&keypair, config, any_address()).unwrap();
    (keypair, transport)
}

fn short_timeout() -> TransportConfig {
    let mut config = TransportConfig::default();
    config.tuning.handshake_timeout = Duration::from_millis(500);
    config
}

fn port_of(address: &Multiaddr) -> u16 {
    let mut ports = address.iter().filter_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    ports.next().unwrap()
}

#[tokio::test]
async fn nodes_connect_with_each_security_protocol() {
    for names in [&[Tls, Noise][..], &[Noise, Tls], &[Noise]] {
        let (_, mut dialler) = node(&offering(names));
        let (key, mut listener) = node(&offering(&[Tls, Noise]));
        let address = listen(&mut listener.boxed, PLAIN).await;
        assert!(address.to_string().ends_with("/ws"), "{address}");
        let address = with_peer(address, key.public().to_peer_id());
        let ((peer, mut out), ((other, mut inn), endpoint)) = within(connect(
            &mut dialler.boxed,
            &mut listener.boxed,
            address.clone(),
        ))
        .await;
        exchange(&mut out, &mut inn, 700_000).await;
        let near = dialler.links.claim(&peer, &dialled(address)).unwrap();
        let far = listener.links.claim(&other, &endpoint).unwrap();
        let from = endpoint.get_remote_address().to_string();
        assert!(from.ends_with("/ws"), "{from}");
        for link in [&near, &far] {
            assert_eq!(link.transport(), TransportKind::WebSocket);
            assert!(link.bytes_in() > 700_000 && link.bytes_out() > 700_000);
            let is_noise = matches!(link.security(), SecurityKind::Noise);
            assert_eq!(is_noise, names[0] == Noise);
        }
        assert_eq!(near.bytes_out(), dialler.links.totals().websocket.sent);
    }
}

/// The swarm starts the dials of one peer in an order of its own.
#[tokio::test]
async fn a_dial_over_tcp_that_begins_later_connects_before_one_over_websocket() {
    let (_, mut dialler) = node(&TransportConfig::default());
    let (key, mut listener) = node(&TransportConfig::default());
    let addresses = [
        listen(&mut listener.boxed, PLAIN).await,
        listen(&mut listener.boxed, "/ip4/127.0.0.1/tcp/0").await,
    ];
    let [websocket, tcp] = addresses.map(|one| with_peer(one, key.public().to_peer_id()));
    let websocket = dialler.boxed.dial(websocket, dial_opts()).unwrap();
    let tcp = dialler.boxed.dial(tcp, dial_opts()).unwrap();
    let mut both = select(websocket, tcp);
    let connecting = poll_fn(|cx| {
        let _ = dialler.boxed.poll_next_unpin(cx);
        both.poll_unpin(cx)
    });
    let accepting = Box::pin(async {
        loop {
            let _ = accept(&mut listener.boxed).await;
        }
    });
    match within(select(connecting, accepting)).await {
        Either::Left((Either::Right((tcp, _)), _)) => drop(tcp.unwrap()),
        _ => panic!("the connection over WebSocket came first"),
    }
}

#[tokio::test]
async fn nodes_connect_inside_of_tls_by_address_and_by_name() {
    let files = Files::new("tls");
    for suffix in ["/wss", "/tls/ws"] {
        let (_, mut dialler) = node(&files.config(&files));
        let (key, mut listener) = node(&files.config(&files));
        let text = format!("/ip4/127.0.0.1/tcp/0{suffix}");
        let address = listen(&mut listener.boxed, &text).await;
        assert!(address.to_string().ends_with(suffix), "{address}");
        let port = port_of(&address);
        for address in [
            address,
            format!("/dns4/localhost/tcp/{port}{suffix}")
                .parse()
                .unwrap(),
            format!("/ip4/127.0.0.1/tcp/{port}/tls/sni/localhost/ws")
                .parse()
                .unwrap(),
        ] {
            let address = with_peer(address, key.public().to_peer_id());
            let ((peer, mut out), ((_, mut inn), _)) =
                within(connect(&mut dialler.boxed, &mut listener.boxed, address)).await;
            assert_eq!(peer, key.public().to_peer_id());
            exchange(&mut out, &mut inn, 300_000).await;
        }
    }
}

#[tokio::test]
async fn a_node_without_a_certificate_is_reached_through_a_reverse_proxy() {
    let files = Files::new("proxy");
    let (key, mut listener) = node(&TransportConfig::default());
    let address = listen(&mut listener.boxed, PLAIN).await;
    let behind = ([127, 0, 0, 1], port_of(&address)).into();
    let port = proxy::start(&files.path("cert.pem"), &files.path("key.pem"), behind).await;
    let (_, mut dialler) = node(&files.config(&files));
    let announced = format!("/dns4/localhost/tcp/{port}/wss").parse().unwrap();
    let announced = with_peer(announced, key.public().to_peer_id());
    let ((peer, mut out), ((_, mut inn), _)) =
        within(connect(&mut dialler.boxed, &mut listener.boxed, announced)).await;
    assert_eq!(peer, key.public().to_peer_id());
    exchange(&mut out, &mut inn, 300_000).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_or_of_another_name_is_refused() {
    let (files, others) = (Files::new("trusted"), Files::new("untrusted"));
    let (_, mut listener) = node(&files.config(&files));
    let address = listen(&mut listener.boxed, "/ip4/127.0.0.1/tcp/0/wss").await;
    let port = port_of(&address);
    let other_name = format!("/ip4/127.0.0.1/tcp/{port}/tls/sni/example.org/ws");
    for (trusted, address) in [(&others, address), (&files, other_name.parse().unwrap())] {
        let (_, mut dialler) = node(&files.config(trusted));
        let (out, inn) = within(futures::future::join(
            dial(&mut dialler.boxed, address),
            accept(&mut listener.boxed),
        ))
        .await;
        let error = classify(&out.unwrap_err());
        assert!(matches!(error, AddressError::Security(_)), "{error:?}");
        assert!(inn.is_err());
    }
}

#[tokio::test]
async fn renewed_certificates_are_presented_and_trusted_without_a_restart() {
    let files = Files::new("renewed");
    let (_, mut dialler) = node(&files.config(&files));
    let (_, mut listener) = node(&files.config(&files));
    let address = listen(&mut listener.boxed, "/ip4/127.0.0.1/tcp/0/wss").await;
    for version in 1..4 {
        let dialled = connect(&mut dialler.boxed, &mut listener.boxed, address.clone());
        within(dialled).await;
        files.renew(version);
    }
}

#[tokio::test]
async fn certificates_that_are_installed_later_are_trusted() {
    let (files, later) = (Files::new("presented"), Files::new("later"));
    let (_, mut listener) = node(&files.config(&files));
    let address = listen(&mut listener.boxed, "/ip4/127.0.0.1/tcp/0/wss").await;
    // A file of the same length whose certificate cannot be parsed: none is trusted.
    let good = fs::read_to_string(files.path("cert.pem")).unwrap();
    let unusable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let unusable = format!("{unusable:\n<length$}", length = good.len());
    later.write("cert.pem", &unusable, 0);
    let mut config = TransportConfig::default();
    config.websocket.tuning.trusted = Some(later.path("cert.pem"));
    let (_, mut dialler) = node(&config);
    let (out, inn) = within(futures::future::join(
        dial(&mut dialler.boxed, address.clone()),
        accept(&mut listener.boxed),
    ))
    .await;
    let error = classify(&out.unwrap_err());
    assert!(matches!(error, AddressError::Security(_)), "{error:?}");
    assert!(inn.is_err());
    later.write("cert.pem", &good, 0);
    within(connect(&mut dialler.boxed, &mut listener.boxed, address)).await;
}

#[test]
fn certificate_files_that_cannot_be_used_are_refused_at_the_start() {
    let (files, others) = (Files::new("files"), Files::new("mismatch"));
    let refusal = |cert: std::path::PathBuf, key: std::path::PathBuf| {
        let mut config = TransportConfig::default();
        config.websocket.certificate = cert;
        config.websocket.key = key;
        let built = build(&Keypair::generate_ed25519(), &config, any_address());
        match built.unwrap_err() {
            BuildError::WebSocket(error) => error,
            other => panic!("{other:?}"),
        }
    };
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let error = refusal(files.path("missing.pem"), key.clone());
    assert!(
        matches!(&error, CertificateFileError::Read { path, source }
            if path.ends_with("missing.pem") && source.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
    // A folder cannot be read as a file.
    let error = refusal(cert.clone(), files.path(""));
    assert!(
        matches!(error, CertificateFileError::Read { .. }),
        "{error}"
    );
    let error = refusal(cert.clone(), others.path("key.pem"));
    assert!(
        matches!(error, CertificateFileError::Mismatch { .. }),
        "{error}"
    );
    let error = refusal(cert.clone(), cert.clone());
    assert!(
        matches!(error, CertificateFileError::NoKey { .. }),
        "{error}"
    );
    let error = refusal(key.clone(), key);
    assert!(
        matches!(error, CertificateFileError::NoCertificate { .. }),
        "{error}"
    );
    fs::write(files.path("broken.pem"), "-----BEGIN CERTIFICATE-----\n!\n").unwrap();
    let error = refusal(files.path("broken.pem"), files.path("key.pem"));
    assert!(matches!(error, CertificateFileError::Pem { .. }), "{error}");
}

#[tokio::test]
async fn loopback_addresses_of_peers_are_not_dialled() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let key = Keypair::generate_ed25519();
    let mut net = build(&key, &short_timeout(), DialPolicy::Private.into()).unwrap();
    for form in ["/ip4/127.0.0.1/tcp/{}/ws", "/dns4/localhost/tcp/{}/wss"] {
        let address = form.replace("{}", &port.to_string()).parse().unwrap();
        let error = classify(&within(dial(&mut net.boxed, address)).await.unwrap_err());
        assert!(matches!(error, AddressError::NotAllowed(_)), "{error:?}");
    }
    let listener = listener.into_std().unwrap();
    assert!(listener.accept().is_err(), "a connection was made");
}
