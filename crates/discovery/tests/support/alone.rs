//! Tests of the memory of a process, which counts that of every test in it.

/// Runs the test with this path again in a process of its own, unless this is that process. Returns
/// whether it did.
pub(crate) fn ran_alone(test: &str) -> bool {
    const ALONE: &str = "CALIMERO_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let done = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    true
}
