//! Time is measured, so tasks of these tests use the processor for a time that they measure.

use std::{
    future::poll_fn,
    net::Ipv4Addr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use futures::{StreamExt as _, channel::mpsc};
use proptest::prelude::*;

use super::*;

fn origin(last: u8) -> Origin {
    Origin::of_ip(Ipv4Addr::new(192, 0, 2, last).into())
}

/// Uses the processor.
fn work(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Is ready at the next poll, for which it wakes its task at once.
async fn yield_now() {
    let mut is_ready = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_ready, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Counts polls, each of which takes `poll`, until it is stopped. Their time is not counted: it
/// includes that in which the host runs other processes.
async fn busy(origin: Origin, polls: Arc<AtomicU64>, poll: Duration) {
    charge_to(origin);
    loop {
        work(poll);
        polls.fetch_add(1, Ordering::Relaxed);
        yield_now().await;
    }
}

/// Polls the driver and `until` by turns until `until` is ready.
async fn drive(driver: FairDriver, until: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = driver => unreachable!("a driver does not end"),
        () = until => {}
    }
}

/// The polls of twelve tasks of `many` and one of another origin, that all have always work.
async fn polls_of_twelve_and_one(many: Origin) -> [u64; 2] {
    let (executor, driver) = FairExecutor::new();
    let totals = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let poll = Duration::from_micros(100);
    for _ in 0..12 {
        executor.spawn(busy(many, totals[0].clone(), poll));
    }
    executor.spawn(busy(origin(2), totals[1].clone(), poll));
    let one = totals[1].clone();
    let enough = async {
        while one.load(Ordering::Relaxed) < 400 {
            yield_now().await;
        }
    };
    drive(driver, enough).await;
    totals.map(|total| total.load(Ordering::Relaxed))
}

#[tokio::test]
async fn twelve_tasks_of_an_origin_get_the_time_of_one() {
    let [many, one] = polls_of_twelve_and_one(origin(1)).await;
    // The share is that of one task, within the first poll of each, and not a thirteenth.
    assert!(many < one * 2, "{many} polls of twelve, {one} of one");
}

#[tokio::test]
async fn a_task_that_wakes_is_next_if_its_origin_used_less() {
    let (executor, driver) = FairExecutor::new();
    let polls = Arc::new(AtomicUsize::new(0));
    for _ in 0..12 {
        let polls = polls.clone();
        executor.spawn(async move {
            charge_to(origin(1));
            loop {
                polls.fetch_add(1, Ordering::Relaxed);
                work(Duration::from_micros(100));
                yield_now().await;
            }
        });
    }
    let (mut ask, mut asked) = mpsc::channel::<()>(1);
    let (mut reply, mut replies) = mpsc::channel(1);
    let seen = polls.clone();
    executor.spawn(async move {
        charge_to(origin(2));
        while asked.next().await.is_some() {
            reply.try_send(seen.load(Ordering::Relaxed)).unwrap();
        }
    });
    let asking = async {
        let mut waited = Vec::new();
        for _ in 0..50 {
            let before = polls.load(Ordering::Relaxed);
            ask.try_send(()).unwrap();
            waited.push(replies.next().await.unwrap() - before);
        }
        waited.sort_unstable();
        // In the order of waking it would be all twelve.
        assert!(waited[25] <= 1, "{waited:?}");
    };
    drive(driver, asking).await;
}

#[tokio::test]
async fn the_other_tasks_of_the_thread_have_turns() {
    let (executor, driver) = FairExecutor::new();
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = polls.clone();
    executor.spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            work(TURN / 4);
            yield_now().await;
        }
    });
    let others = async {
        yield_now().await;
        for _ in 0..20 {
            let before = polls.load(Ordering::Relaxed);
            yield_now().await;
            let between = polls.load(Ordering::Relaxed) - before;
            assert!((1..=4).contains(&between), "{between} polls in a turn");
        }
    };
    drive(driver, others).await;
}

#[tokio::test]
async fn a_future_is_charged_to_the_origin_that_was_polled_before_it() {
    let (executor, driver) = FairExecutor::new();
    let totals = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let (mut reports, mut reported) = mpsc::channel(1);
    let total = totals[0].clone();
    executor.spawn(async move {
        charge_to(origin(1));
        loop {
            let _ = reports.try_send(());
            work(TURN);
            total.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    });
    let one = totals[1].clone();
    executor.spawn(async move {
        charge_to(origin(2));
        loop {
            work(TURN);
            one.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    });
    let one = totals[1].clone();
    // A report takes four times as long as the poll that makes it.
    let handling = executor.caused(async move {
        while one.load(Ordering::Relaxed) < 200 {
            if reported.next().await.is_some() {
                work(TURN * 4);
            }
        }
    });
    drive(driver, handling).await;
    let [reporting, other] = totals.map(|total| total.load(Ordering::Relaxed));
    assert!(
        reporting < other / 2,
        "{reporting} polls, and {other} without reports"
    );
}

#[tokio::test]
async fn local_connections_have_accounts_of_their_own() {
    let local = Origin::of_ip(Ipv4Addr::LOCALHOST.into());
    let [many, one] = polls_of_twelve_and_one(local).await;
    // With one account it would be as many; a task that the host suspends has fewer.
    assert!(many > one * 3, "{many} polls of twelve, {one} of one");
}

#[test]
fn a_poll_is_charged_no_more_than_a_limit() {
    let shared = Shared::default();
    let now = Instant::now();
    let account = Account::Origin(origin(1));
    shared.polled(account, now, now + Duration::from_secs(20));
    shared.polled(Account::Origin(origin(2)), now, now + MAX_CHARGE);
    let recent = std::mem::take(&mut shared.lock().recent);
    assert!(recent.iter().all(|(_, time)| *time == MAX_CHARGE));
    for id in 0..1000 {
        shared.polled(Account::Task(id), now, now + TURN);
    }
    assert_eq!(shared.lock().recent.len(), MAX_RECENT);
}

#[tokio::test]
async fn a_turn_ends_for_the_task_as_well() {
    assert!(!is_turn_over());
    let (executor, driver) = FairExecutor::new();
    let (sender, receiver) = futures::channel::oneshot::channel();
    executor.spawn(async move {
        work(TURN);
        let _ = sender.send(is_turn_over());
    });
    drive(driver, async { assert!(receiver.await.unwrap()) }).await;
}

#[tokio::test]
async fn a_budget_of_tokio_ends_a_turn() {
    let (executor, driver) = FairExecutor::new();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1000);
    let (done, ended) = futures::channel::oneshot::channel();
    // More items than the budget of one poll, all ready.
    for item in 0..1000 {
        sender.try_send(item).unwrap();
    }
    executor.spawn(async move {
        for item in 0..1000 {
            assert_eq!(receiver.recv().await, Some(item));
        }
        let _ = done.send(());
    });
    drive(driver, async { ended.await.unwrap() }).await;
}

#[tokio::test]
async fn a_panic_ends_one_task() {
    let (executor, driver) = FairExecutor::new();
    let (sender, receiver) = futures::channel::oneshot::channel();
    executor.spawn(async { panic!("of a test") });
    executor.spawn(async move {
        yield_now().await;
        let _ = sender.send(());
    });
    drive(driver, async { receiver.await.unwrap() }).await;
    assert!(executor.0.lock().tasks.is_empty());
}

#[tokio::test]
async fn all_tasks_are_dropped_with_the_driver() {
    let (executor, driver) = FairExecutor::new();
    let held = Arc::new(());
    let (open, mut never) = mpsc::channel::<()>(1);
    let waiting = held.clone();
    executor.spawn(async move {
        never.next().await;
        drop(waiting);
    });
    let ready = held.clone();
    executor.spawn(async move {
        loop {
            yield_now().await;
            std::hint::black_box(&ready);
        }
    });
    drive(driver, async {
        for _ in 0..3 {
            yield_now().await;
        }
    })
    .await;
    assert_eq!(Arc::strong_count(&held), 1);
    let late = held.clone();
    executor.spawn(async move { drop(late) });
    assert_eq!(Arc::strong_count(&held), 1);
    // A waker keeps the memory of its task.
    drop(open);
    assert_eq!(Arc::strong_count(&executor.0), 1);
}

fn account(last: u8) -> Account {
    Account::Origin(origin(last))
}

fn numbered(address: u32) -> Account {
    Account::Origin(Origin::of_ip(Ipv4Addr::from(0x0a00_0000 + address).into()))
}

proptest! {
    /// Origins that always have work differ by one poll at most, whatever their number of items, and
    /// an origin that comes back gets no credit.
    #[test]
    fn origins_that_wait_get_equal_times(
        items in proptest::collection::vec(1_usize..20, 2..6),
        costs in proptest::collection::vec(1_u64..1000, 400),
        late_by in 1_usize..200,
    ) {
        let mut times = Times::default();
        let late = items.len();
        for (at, count) in items.iter().enumerate() {
            for _ in 0..*count {
                times.push(account(at as u8), at);
            }
        }
        let mut used = vec![0_u64; late + 1];
        for (turn, cost) in costs.iter().enumerate() {
            if turn == late_by {
                times.push(account(late as u8), late);
                used = vec![0; late + 1];
            }
            let at = times.pop().unwrap();
            times.push(account(at as u8), at);
            times.charge(account(at as u8), Duration::from_nanos(*cost));
            used[at] += cost;
            let others = if turn < late_by { &used[..late] } else { &used[..] };
            let (least, most) = (others.iter().min().unwrap(), others.iter().max().unwrap());
            prop_assert!(most - least <= 2000, "{others:?}");
        }
    }
}

/// Takes the items of `origins`, each of which uses `used`.
fn use_once(times: &mut Times<u32>, origins: std::ops::Range<u32>, used: Duration) {
    for address in origins {
        let origin = numbered(address);
        times.push(origin, address);
        assert_eq!(times.pop(), Some(address));
        times.charge(origin, used);
        assert_eq!(times.pop(), None);
        times.idle(used);
    }
}

#[test]
fn idle_origins_are_forgotten() {
    let mut times = Times::default();
    use_once(&mut times, 0..10_000, Duration::from_millis(1));
    assert!(times.accounts() <= 128, "{}", times.accounts());
}

#[test]
fn origins_that_used_too_much_are_kept_up_to_a_limit_while_others_wait() {
    let mut times = Times::default();
    let (busy, waiting) = (account(1), account(2));
    times.push(busy, 1);
    times.push(waiting, 2);
    assert_eq!(times.pop(), Some(1));
    times.charge(busy, Duration::from_secs(1));
    for address in 0..20_000 {
        let once = numbered(address);
        times.push(once, 3);
        assert_eq!(times.pop(), Some(if address == 0 { 2 } else { 3 }));
        times.charge(once, Duration::from_millis(1));
        assert!(times.accounts() <= 8200, "{}", times.accounts());
        if address == 0 {
            // It comes back, and has to wait for its second.
            times.push(busy, 1);
        }
    }
}

#[test]
fn idle_time_is_time_that_an_account_has_waited() {
    let mut times = Times::default();
    let (busy, other) = (account(1), account(2));
    times.push(busy, 1);
    assert_eq!(times.pop(), Some(1));
    times.charge(busy, Duration::from_millis(10));
    times.idle(Duration::from_millis(4));
    // The other one begins at 4 ms, and is served until it has used as much.
    let mut served = Vec::new();
    times.push(busy, 1);
    times.push(other, 2);
    for _ in 0..8 {
        let next = times.pop().unwrap();
        served.push(next);
        let account = if next == 1 { busy } else { other };
        times.push(account, next);
        times.charge(account, Duration::from_millis(2));
    }
    assert_eq!(served, [2, 2, 2, 1, 2, 1, 2, 1]);
}

/// A task of this account whose polls report the length of their turns.
async fn report_turns(origin: Origin, mut turns: mpsc::Sender<Duration>) {
    charge_to(origin);
    loop {
        yield_now().await;
        let length = CURRENT.with_borrow(|current| current.as_ref().unwrap().length);
        if turns.try_send(length).is_err() && turns.is_closed() {
            return;
        }
    }
}

#[tokio::test]
async fn a_connection_reads_for_a_shorter_time_while_another_account_uses_the_thread() {
    let (executor, driver) = FairExecutor::new();
    let (turns, mut lengths) = mpsc::channel(0);
    executor.spawn(report_turns(origin(1), turns));
    let (mut ask, mut asked) = mpsc::channel::<()>(1);
    executor.spawn(async move {
        charge_to(origin(2));
        while asked.next().await.is_some() {}
    });
    let observing = async {
        // The other account is polled once, at its start.
        while lengths.next().await != Some(TURN) {}
        ask.try_send(()).unwrap();
        while lengths.next().await != Some(SHARED_TURN) {}
        while lengths.next().await != Some(TURN) {}
    };
    let limit = Duration::from_secs(60);
    drive(driver, async {
        tokio::time::timeout(limit, observing).await.unwrap();
    })
    .await;
}
