//! Certificates that are renewed, broken or expired while a listener presents them.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicU64, Ordering},
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::*;

/// Texts of the warnings that are logged on a thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Visit for Warnings {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// A folder with a certificate and its key.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("calimero-certificate-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    /// Writes a file with a modification time that no file had before.
    fn write(path: &Path, text: &str) {
        static SECONDS: AtomicU64 = AtomicU64::new(1_000_000_000);
        fs::write(path, text).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        let seconds = SECONDS.fetch_add(1, Ordering::Relaxed);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_modified(modified).unwrap();
        // A key that others can read is another warning.
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
    }

    /// Writes a new certificate that is valid until the beginning of `year`, and its key. Returns
    /// the certificate.
    fn renew(&self, year: i32) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let made = params.self_signed(&key).unwrap();
        Self::write(&self.certificate(), &made.pem());
        Self::write(&self.key(), &key.serialize_pem());
        made.der().clone()
    }

    fn open(&self) -> CertificateFiles {
        CertificateFiles::open(self.certificate(), self.key()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The beginning of 2050.
fn end() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_524_608_000)
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn renewed_files_are_read_and_broken_ones_change_nothing() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let folder = Folder::new("renewed");
    let first = folder.renew(2050);
    let files = folder.open();
    let presented = || files.current(end() - 30 * DAY).cert[0].clone();
    assert_eq!(presented(), first);
    let second = folder.renew(2050);
    assert_ne!(first, second);
    assert_eq!(presented(), second);
    assert_eq!(warnings.take(), [""; 0]);

    // Half of a renewal: the certificate, and not yet its key.
    let key = fs::read_to_string(folder.key()).unwrap();
    let third = folder.renew(2050);
    let new_key = fs::read_to_string(folder.key()).unwrap();
    Folder::write(&folder.key(), &key);
    assert_eq!(presented(), second);
    assert_eq!(warnings.take().len(), 1);
    // One warning for each change.
    assert_eq!(presented(), second);
    assert_eq!(warnings.take(), [""; 0]);
    Folder::write(&folder.key(), &new_key);
    assert_eq!(presented(), third);
    for text in ["", "-----BEGIN CERTIFICATE-----\n!\n"] {
        Folder::write(&folder.certificate(), text);
        assert_eq!(presented(), third);
        assert_eq!(warnings.take().len(), 1);
    }
    fs::remove_file(folder.certificate()).unwrap();
    assert_eq!(presented(), third);
    assert_eq!(warnings.take().len(), 1);
}

#[test]
fn the_end_of_a_certificate_is_announced_once_a_day() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let folder = Folder::new("expires");
    folder.renew(2020);
    folder.open();
    let expired = "the certificate of WebSocket has expired";
    assert_eq!(warnings.take(), [expired]);

    folder.renew(2050);
    let files = folder.open();
    files.current(end() - 8 * DAY);
    assert_eq!(warnings.take(), [""; 0]);
    let soon = "the certificate of WebSocket expires soon";
    for (before, logged) in [(168, 1), (167, 0), (145, 0), (144, 1), (2, 1)] {
        files.current(end() - before * DAY / 24);
        assert_eq!(warnings.take(), vec![soon; logged], "{before} hours before");
    }
    files.current(end() + DAY);
    assert_eq!(warnings.take(), [expired]);
    // The renewed certificate is valid for long.
    folder.renew(2060);
    files.current(end() + DAY);
    assert_eq!(warnings.take(), [""; 0]);
}
