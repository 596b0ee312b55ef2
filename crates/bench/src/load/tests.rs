//! A short run with the same checks.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_network_loses_nothing_under_churn() {
    let args = LoadArgs {
        nodes: 12,
        lasts: Duration::from_secs(15),
        churn_every: Some(Duration::from_secs(2)),
        settle: Duration::from_secs(3),
        sample_every: Duration::from_secs(1),
        messages: 10.0,
        streams: 5.0,
        fetches: 1.0,
        blob_bytes: 64 << 10,
        ..LoadArgs::default()
    };
    let outcome = run(args).await.unwrap();
    // Growth is not checked: the run is too short.
    let faults: Vec<_> = (outcome.faults().into_iter())
        .filter(|fault| !fault.contains("grew"))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(outcome.counts.delivered > 100, "{:?}", outcome.counts);
    assert!(outcome.streams > 0 && outcome.fetches > 0 && outcome.restarts > 0);
}
