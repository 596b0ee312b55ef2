//! Which connections count as busy.

use super::*;

const MIB: u64 = 1024 * 1024;

fn carried(received: u64, sent: u64) -> Carried {
    Carried { received, sent }
}

#[test]
fn a_connection_that_receives_is_busy() {
    for sent in [Sent::Explain, Sent::DoNotExplain] {
        let mut traffic = Traffic::default();
        traffic.on_probe(carried(1000, 10), sent);
        assert!(traffic.on_late(carried(1001, 10)));
        // What arrived before the probe proves nothing.
        traffic.on_probe(carried(1001, 10), sent);
        assert!(!traffic.on_late(carried(1001, 10)));
    }
}

#[test]
fn a_connection_whose_peer_takes_long_to_receive_is_busy() {
    let busy = |sent| {
        let mut traffic = Traffic::default();
        traffic.on_answer(carried(0, 0));
        traffic.on_answer(carried(0, 0));
        // One MiB waits in the system, and nothing more is sent.
        traffic.on_probe(carried(100, MIB), sent);
        traffic.on_late(carried(100, MIB))
    };
    assert!(busy(Sent::Explain));
    assert!(!busy(Sent::DoNotExplain));
}

#[test]
fn bytes_that_arrived_do_not_make_a_connection_busy() {
    let mut traffic = Traffic::default();
    // They may have been sent after the ping that was answered.
    traffic.on_answer(carried(0, MIB));
    traffic.on_probe(carried(0, MIB), Sent::Explain);
    assert!(traffic.on_late(carried(0, MIB)));
    traffic.on_answer(carried(0, MIB + 100));
    traffic.on_probe(carried(0, MIB + 200), Sent::Explain);
    assert!(!traffic.on_late(carried(0, MIB + 200)));
}

#[test]
fn a_second_probe_does_not_hide_what_the_first_one_saw() {
    let mut traffic = Traffic::default();
    traffic.on_probe(carried(1, 0), Sent::DoNotExplain);
    traffic.on_probe(carried(2, 0), Sent::DoNotExplain);
    assert!(traffic.on_late(carried(2, 0)));
    assert!(!traffic.on_late(carried(3, 0)));
}
