use std::sync::atomic::AtomicUsize;

use futures::task::{ArcWake, waker};

use super::*;

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn readers_and_writers_are_woken_at_the_end() {
    let woken = Arc::new(Woken::default());
    let waker = waker(Arc::clone(&woken));
    let cx = Context::from_waker(&waker);
    let mut end = End::default();
    let listener = end.register();
    let pending = || Poll::<io::Result<()>>::Pending;
    assert!(listener.read(pending(), &cx).is_pending());
    assert!(listener.write(pending(), &cx).is_pending());
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    drop(end);
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    for ended in [
        listener.read(pending(), &cx),
        listener.write(pending(), &cx),
    ] {
        let Poll::Ready(Err(error)) = ended else {
            panic!("{ended:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
    // What was received before is returned.
    assert!(matches!(
        listener.read(Poll::Ready(Ok(7)), &cx),
        Poll::Ready(Ok(7))
    ));
}

#[test]
fn streams_that_were_dropped_are_forgotten() {
    let mut end = End::default();
    for _ in 0..10 * SWEEP_FROM {
        drop(end.register());
        assert!(end.streams.len() <= SWEEP_FROM);
    }
    let held: Vec<_> = (0..4 * SWEEP_FROM).map(|_| end.register()).collect();
    for _ in 0..20 * SWEEP_FROM {
        drop(end.register());
        assert!(end.streams.len() <= 2 * held.len() + SWEEP_FROM);
    }
    let living = end.streams.iter().filter_map(Weak::upgrade);
    assert_eq!(living.count(), held.len());
}
