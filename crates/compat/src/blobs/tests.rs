use super::*;

#[test]
fn a_transfer_goes_on_as_long_as_it_is_fast_enough() {
    let seconds = Duration::from_secs;
    // One byte every 29 s: each of them is in time.
    assert_eq!(
        time_left(seconds(58), 2).map(|left| left.as_secs()),
        Some(2)
    );
    assert_eq!(time_left(seconds(87), 3), None);
    // A blob of 1 GiB at 1 MiB per second takes 1,024 s.
    for elapsed_s in 0..1024 {
        let received = elapsed_s as usize * 1024 * 1024;
        assert!(time_left(seconds(elapsed_s), received) >= Some(TRANSFER_TIMEOUT));
    }
}
