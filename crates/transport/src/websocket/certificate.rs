//! Certificates of WebSocket inside of TLS: those that a listener presents, and those that a dial
//! trusts.

#[cfg(test)]
mod tests;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use calimero_network_primitives::config::WebSocketConfig;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{
    crypto::provider,
    stamp::{Stamp, stamp_of},
};

/// The ALPN protocol of HTTP/1.1, which opens a WebSocket.
const ALPN: &[u8] = b"http/1.1";

/// The TLS versions. All browsers that run libp2p support TLS 1.3.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// Time before the end of a certificate from which on a warning is logged, 7 days: tools renew
/// certificates of 90 days after 60.
const WARNING_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Shortest interval between two of these warnings, 1 day.
const WARNING_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

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
    let files = CertificateFiles::open(config.certificate.clone(), config.key.clone())?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(VERSIONS)
        .map_err(|source| unsupported(&config.certificate, &config.key, source))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(files));
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;
    Ok(Some(Arc::new(server)))
}

/// The certificate and the key of a listener. The files are read again when they change.
pub(super) struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// Of the files that were read last, whether or not they can be used.
    stamps: [Stamp; 2],
    loaded: Loaded,
    /// When the next warning about the end of the certificate is due.
    warn_at: SystemTime,
}

/// A certificate with its key.
struct Loaded {
    key: Arc<CertifiedKey>,
    /// End of the validity of the certificate; `None` if it cannot be parsed.
    ends: Option<SystemTime>,
}

impl CertificateFiles {
    /// Reads both files, and logs a warning if the certificate has expired or expires soon.
    pub(super) fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateFileError> {
        // Before the files are read, so that a change in between is a change.
        let stamps = [&certificate, &key].map(|path| stamp_of(path));
        let loaded = load(&certificate, &key)?;
        let state = State {
            stamps,
            loaded,
            warn_at: SystemTime::UNIX_EPOCH,
        };
        let files = Self {
            certificate,
            key,
            state: Mutex::new(state),
        };
        files.current(SystemTime::now());
        Ok(files)
    }

    /// Returns the certificate to present at `now`.
    ///
    /// Files that cannot be used, such as half of a renewal, leave the certificate as it was, with
    /// a warning. They are read again after their next change. The files have some KiB, so they are
    /// read in the task of the handshake.
    pub(super) fn current(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let stamps = [&self.certificate, &self.key].map(|path| stamp_of(path));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.certificate.display();
        if stamps != state.stamps {
            state.stamps = stamps;
            match load(&self.certificate, &self.key) {
                Ok(loaded) => {
                    tracing::info!(certificate = %path, "certificate of WebSocket reloaded");
                    state.loaded = loaded;
                    state.warn_at = SystemTime::UNIX_EPOCH;
                }
                Err(error) => tracing::warn!(
                    %error,
                    "cannot reload the certificate of WebSocket; presenting the previous one"
                ),
            }
        }
        if let Some(ends) = state.loaded.ends
            && now >= state.warn_at
        {
            let left = ends.duration_since(now).unwrap_or_default();
            if left.is_zero() {
                tracing::warn!(certificate = %path, "the certificate of WebSocket has expired");
                state.warn_at = now + WARNING_INTERVAL;
            } else if left <= WARNING_TIME {
                let hours = left.as_secs() / 3600;
                tracing::warn!(
                    certificate = %path,
                    hours,
                    "the certificate of WebSocket expires soon"
                );
                state.warn_at = now + WARNING_INTERVAL;
            }
        }
        Arc::clone(&state.loaded.key)
    }
}

impl fmt::Debug for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateFiles")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current(SystemTime::now()))
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Loaded, CertificateFileError> {
    let chain = certificates(certificate)?;
    let private = private_key(key)?;
    let ends = chain.first().and_then(|first| end_of(first));
    let loaded = CertifiedKey::from_der(chain, private, &provider());
    let loaded = loaded.map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => CertificateFileError::Mismatch {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        },
        source => unsupported(certificate, key, source),
    })?;
    Ok(Loaded {
        key: Arc::new(loaded),
        ends,
    })
}

fn unsupported(certificate: &Path, key: &Path, source: rustls::Error) -> CertificateFileError {
    CertificateFileError::Unsupported {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    }
}

/// Returns the end of the validity of a certificate.
fn end_of(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    let since_epoch = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

/// The configuration of dials.
pub(super) struct Trust {
    pub(super) config: Arc<ClientConfig>,
    /// Whether no certificate is trusted, so that each dial fails.
    pub(super) is_empty: bool,
}

/// Creates the configuration of dials, which trust the certificates in the file `trusted`, or those
/// of the system. It reads files and may take some milliseconds.
pub(super) fn client(trusted: Option<&Path>) -> Result<Trust, CertificateFileError> {
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
    let is_empty = roots.is_empty();
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(VERSIONS)
        .map_err(|source| unsupported(trusted.unwrap_or(Path::new("")), Path::new(""), source))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Trust {
        config: Arc::new(client),
        is_empty,
    })
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
