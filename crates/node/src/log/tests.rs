use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_peer_writes_no_control_character_into_a_log() {
    let written = Written::default();
    let sink = written.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .fmt_fields(Escaped)
        .with_writer(move || sink.clone());
    let subscriber = tracing_subscriber::registry().with(lines);
    let agent = "a\u{1b}[31m\u{9b}2J\nWARN forged";
    tracing::subscriber::with_default(subscriber, || {
        let _span = tracing::error_span!("connection", %agent).entered();
        tracing::warn!(agent, text = %agent, "a peer sent {agent}");
    });
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let escaped = r"a\u{1b}[31m\u{9b}2J\u{a}WARN forged";
    assert_eq!(text.matches(escaped).count(), 2, "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.trim_end().contains(char::is_control), "{text}");
}
