//! Flushes reach the host. A device and a folder of the kernel are used, which refuse to be
//! flushed: a flush that does nothing returns no error.

use super::*;

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

#[test]
fn the_content_is_flushed() {
    let file = OpenOptions::new().write(true).open("/dev/null").unwrap();
    assert!(is_refused(&write_durable(file, b"peers").unwrap_err()));
}

#[test]
fn the_folder_is_flushed() {
    let flushed = flush_folder(Path::new("/proc/peers"));
    let Err(CacheError::Io {
        doing,
        path,
        source,
    }) = flushed
    else {
        panic!("{flushed:?}");
    };
    assert_eq!((doing, &*path), ("flushing", Path::new("/proc")));
    assert!(is_refused(&source));
    // The folder of a path of one component is the current one.
    flush_folder(Path::new("peers")).unwrap();
}
