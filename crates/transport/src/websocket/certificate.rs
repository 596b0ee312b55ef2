//! Certificates of WebSocket inside of TLS: those that a listener presents, and those that a dial
//! trusts.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use calimero_network_primitives::config::WebSocketConfig;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};

use crate::crypto::provider;

/// The ALPN protocol of HTTP/1.1, which opens a WebSocket.
const ALPN: &[u8] = b"http/1.1";

/// The TLS versions. All browsers that run libp2p support TLS 1.3.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// An error of a file with a certificate or key for WebSocket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFileError {
    /// The file is missing, or the process may not read it.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file is not valid PEM.
    #[error("{} is not a PEM file: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Reason that the parser reports.
        reason: String,
    },
    /// The file contains no certificate.
    #[error("{} contains no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file contains no private key.
    #[error("{} contains no private key", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is not that of the certificate.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// The certificate or the key is not supported.
    #[error("cannot use the certificate in {} with the key in {}: {source}", certificate.display(), key.display())]
    Unsupported {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// Reason that the TLS library reports.
        source: rustls::Error,
    },
}

/// Reads the certificate and the key that `config` names. Returns `None` if it names none.
pub(super) fn server(
    config: &WebSocketConfig,
) -> Result<Option<Arc<ServerConfig>>, CertificateFileError> {
    if !config.has_certificate() {
        return Ok(None);
    }
    let (certificate, key) = (&config.certificate, &config.key);
    let chain = certificates(certificate)?;
    let private = private_key(key)?;
    let refused = |source: rustls::Error| match source {
        rustls::Error::InconsistentKeys(_) => CertificateFileError::Mismatch {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        source => CertificateFileError::Unsupported {
            certificate: certificate.clone(),
            key: key.clone(),
            source,
        },
    };
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(VERSIONS)
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, private)
        })
        .map_err(refused)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;
    Ok(Some(Arc::new(server)))
}

/// Creates the configuration of dials, which trust the certificates in the file `trusted`, or those
/// of the system. It reads files and may take some milliseconds.
pub(super) fn client(trusted: Option<&Path>) -> Result<Arc<ClientConfig>, CertificateFileError> {
    let mut roots = RootCertStore::empty();
    match trusted {
        Some(path) => {
            let _ = roots.add_parsable_certificates(certificates(path)?);
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::debug!(%error, "a trusted certificate of the system cannot be read");
            }
            let _ = roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        tracing::warn!(
            "the system has no trusted certificates; no address with /wss can be dialled \
             (install ca-certificates or set SSL_CERT_FILE)"
        );
    }
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(VERSIONS)
        .map_err(|source| CertificateFileError::Unsupported {
            certificate: trusted.map(Path::to_path_buf).unwrap_or_default(),
            key: PathBuf::new(),
            source,
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(client))
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateFileError> {
    fs::read(path).map_err(|source| CertificateFileError::Read {
        path: path.to_owned(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateFileError> {
    let bytes = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| CertificateFileError::Pem {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    if chain.is_empty() {
        let path = path.to_owned();
        return Err(CertificateFileError::NoCertificate { path });
    }
    Ok(chain)
}

/// Warns if users other than the owner can read a key. It is not refused, because tools that renew
/// certificates share keys with a group.
#[cfg(unix)]
fn warn_if_readable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        let (path, mode) = (path.display(), format_args!("{:o}", mode & 0o777));
        tracing::warn!(%path, %mode, "other users can access the key of the certificate");
    }
}

#[cfg(not(unix))]
fn warn_if_readable(_: &Path) {}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateFileError> {
    use rustls::pki_types::pem::Error;
    warn_if_readable(path);
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        Error::NoItemsFound => CertificateFileError::NoKey {
            path: path.to_owned(),
        },
        error => CertificateFileError::Pem {
            path: path.to_owned(),
            reason: error.to_string(),
        },
    })
}
