//! An executor that shares the time of one thread between origins.
//!
//! A swarm has a task for each connection. If all of them take turns on one thread, the share of a
//! host grows with its connections, and a task that is polled for long delays all others. This
//! executor measures the time of each poll, charges it to the [`Origin`] of the connection, and polls
//! a task of the origin that has used least. An origin that was idle gets no credit for that time, and
//! one that used too much has to wait for it: start-time fair queueing, of Goyal, Vin and Cheng (1996),
//! with the measured time in place of the length of a packet.
//!
//! As long as the thread is not saturated, tasks are polled in the order in which they wake.

mod caused;
#[cfg(test)]
mod tests;
mod times;

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use calimero_network_primitives::resources::Origin;
use futures::task::AtomicWaker;

pub use self::caused::Caused;
use self::times::Times;

/// Time after which a connection reads no more in the same poll, and the driver yields to the other
/// tasks of its thread: 250 µs. A poll is not interrupted, so a turn can be longer. Shorter turns cost
/// more: between two turns the runtime polls its sockets, which takes about 1 µs.
const TURN: Duration = Duration::from_micros(250);

/// The same for a connection while another account uses the thread: 50 µs. A task cannot be
/// interrupted, and in a poll it handles all that it has read, which takes several times as long as
/// reading it. What the other account waits for is therefore bounded by how much is read.
const SHARED_TURN: Duration = Duration::from_micros(50);

/// Time after its last poll for which an account counts as using the thread: 10 ms, many round trips
/// within one host or one site.
const IN_USE: Duration = Duration::from_millis(10);

/// Most time that one poll is charged, 20 ms. More is not processor time: the process was stopped, or
/// other processes had the core.
const MAX_CHARGE: Duration = Duration::from_millis(20);

/// Largest number of accounts to which one poll of a [`Caused`] future is charged. A turn of 250 µs
/// has few polls.
const MAX_RECENT: usize = 64;

/// What the time of tasks is charged to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Account {
    /// Tasks without a known origin.
    #[default]
    Unknown,
    /// The connections of one origin.
    Origin(Origin),
    /// One task.
    Task(u64),
}

/// A task that is polled. Its account changes once, from unknown.
#[derive(Debug, Default)]
struct Polled {
    id: u64,
    account: OnceLock<Account>,
}

impl Polled {
    fn account(&self) -> Account {
        self.account.get().copied().unwrap_or_default()
    }
}

type Task = async_task::Task<(), Arc<Polled>>;
type Runnable = async_task::Runnable<Arc<Polled>>;

thread_local! {
    /// The poll that this thread executes.
    static CURRENT: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// A poll of one task.
struct Turn {
    task: Arc<Polled>,
    started: Instant,
    /// Time after which the task reads no more.
    length: Duration,
}

/// Charges the task that is being polled to `origin`, from this poll on, if a [`FairExecutor`] polls
/// it. A task has one account: later calls have no effect.
///
/// Local origins, such as that of a reverse proxy on the same host, can have many honest peers, so
/// their tasks have accounts of their own.
pub(crate) fn charge_to(origin: Origin) {
    let _ = CURRENT.try_with(|current| {
        if let Some(Turn { task, .. }) = &*current.borrow() {
            let account = match origin.is_local() {
                true => Account::Task(task.id),
                false => Account::Origin(origin),
            };
            let _ = task.account.set(account);
        }
    });
}

/// Returns `true` if a [`FairExecutor`] polls the current task and the poll has taken 250 µs, or 50 µs
/// while another account uses the thread. The caller continues at the next poll.
pub(crate) fn is_turn_over() -> bool {
    let is_over = CURRENT.try_with(|current| {
        let current = current.borrow();
        let turn = current.as_ref();
        turn.is_some_and(|turn| turn.started.elapsed() >= turn.length)
    });
    // A thread that is ending polls no tasks.
    is_over.unwrap_or(false)
}

/// Spawns tasks that share one thread fairly. It is cheap to clone.
///
/// The connections of the transports of this crate charge their tasks to the origin of their remote
/// address, or to an account of their own if it is local. All other tasks, and connections without a
/// known origin, share one account.
///
/// ```
/// use calimero_network_transport::FairExecutor;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (executor, driver) = FairExecutor::new();
/// let driver = tokio::spawn(driver);
/// let (sender, receiver) = futures::channel::oneshot::channel();
/// executor.spawn(async move {
///     let _ = sender.send(7);
/// });
/// assert_eq!(receiver.await, Ok(7));
/// driver.abort();
/// # }
/// ```
///
/// For a swarm, a closure is an executor:
/// `libp2p_swarm::Config::with_executor(move |task| executor.spawn(task))`.
#[derive(Clone, Debug)]
pub struct FairExecutor(Arc<Shared>);

impl FairExecutor {
    /// Creates an executor, and the future that polls its tasks. The future belongs on the thread that
    /// is to be shared, whose runtime should poll its sockets after a turn, that is after 250 µs.
    pub fn new() -> (Self, FairDriver) {
        let shared = Arc::new(Shared::default());
        (Self(Arc::clone(&shared)), FairDriver(shared))
    }

    /// Wraps a future of the same thread, such as the one that polls the swarm, so that its time is
    /// charged to the origins whose tasks were polled before it. Dropping it drops the future.
    pub fn caused<F: Future>(&self, future: F) -> Caused<F> {
        Caused::new(Arc::clone(&self.0), future)
    }

    /// Spawns a task. It is dropped with the driver, and at once if the driver was dropped.
    /// A panic ends this task alone.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let id = {
            let mut state = self.0.lock();
            if state.stopped {
                return;
            }
            state.next_id += 1;
            state.next_id
        };
        let ended = Ended {
            shared: Arc::clone(&self.0),
            id,
        };
        let future = async move {
            let _ended = ended;
            future.await;
        };
        let shared = Arc::clone(&self.0);
        let (runnable, task) = async_task::Builder::new()
            .metadata(Arc::new(Polled {
                id,
                account: OnceLock::new(),
            }))
            .spawn(|_| future, move |runnable| shared.schedule(runnable));
        let late = {
            let mut state = self.0.lock();
            match state.stopped {
                true => Some(task),
                false => state.tasks.insert(id, task),
            }
        };
        drop(late);
        runnable.schedule();
    }
}

/// Polls the tasks of a [`FairExecutor`]. It never ends. All tasks are dropped with it.
/// No wake-up is lost between two polls.
#[derive(Debug)]
#[must_use = "tasks run only while the driver is polled"]
pub struct FairDriver(Arc<Shared>);

impl Future for FairDriver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &self.0;
        shared.driver.register(cx.waker());
        let started = Instant::now();
        let mut now = started;
        while let Some((runnable, length)) = shared.next(now) {
            let task = run(runnable, now, length);
            let ended = Instant::now();
            shared.polled(task.account(), now, ended);
            now = ended;
            // Resources of tokio are not ready for a task that has used its budget up.
            if now - started >= TURN || !tokio::task::coop::has_budget_remaining() {
                shared.lock().is_polled = false;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Pending
    }
}

impl Drop for FairDriver {
    fn drop(&mut self) {
        let (tasks, ready) = {
            let mut state = self.0.lock();
            state.stopped = true;
            (
                std::mem::take(&mut state.tasks),
                std::mem::take(&mut state.ready),
            )
        };
        // A task is dropped by the thread that cancels it, and may wake others.
        drop(ready);
        drop(tasks);
    }
}

/// Polls a task once. As on the runtimes of tokio, a panic ends that task alone; the panic hook has
/// reported it.
fn run(runnable: Runnable, started: Instant, length: Duration) -> Arc<Polled> {
    let task = Arc::clone(runnable.metadata());
    CURRENT.set(Some(Turn {
        task: Arc::clone(&task),
        started,
        length,
    }));
    let _ = catch_unwind(AssertUnwindSafe(|| runnable.run()));
    CURRENT.set(None);
    task
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    driver: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    /// Tasks to poll, by account.
    ready: Times<Runnable>,
    /// The two accounts that were polled last, and when.
    last: [Option<(Account, Instant)>; 2],
    /// Time of each account since the last poll of a [`Caused`] future.
    recent: Vec<(Account, Duration)>,
    /// When the driver found no task, until one is scheduled.
    empty_since: Option<Instant>,
    /// Time of [`Caused`] futures since then.
    caused: Duration,
    /// When the poll of a [`Caused`] future began that has not ended.
    causing_since: Option<Instant>,
    /// All tasks that have not ended.
    tasks: HashMap<u64, Task>,
    next_id: u64,
    /// `true` while the driver takes tasks, so that it does not need to be woken.
    is_polled: bool,
    stopped: bool,
}

impl State {
    /// The time after which a task of this account reads no more.
    fn turn(&self, account: Account, now: Instant) -> Duration {
        let is_shared = self.last.iter().flatten().any(|&(other, polled)| {
            other != account && now.saturating_duration_since(polled) < IN_USE
        });
        if is_shared { SHARED_TURN } else { TURN }
    }

    fn on_polled(&mut self, account: Account, now: Instant) {
        if self.last[0].is_none_or(|(last, _)| last != account) {
            self.last[1] = self.last[0];
        }
        self.last[0] = Some((account, now));
    }

    /// A task is scheduled. If there was none, accounts that used more than others waited for as long
    /// as the thread had nothing to do.
    fn end_idle(&mut self) {
        let Some(since) = self.empty_since.take() else {
            return;
        };
        let now = Instant::now();
        let causing = self.causing_since.map(|since| now - since);
        let busy = self.caused + causing.unwrap_or_default();
        self.ready.idle((now - since).saturating_sub(busy));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so a poisoned lock has consistent data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schedule(&self, runnable: Runnable) {
        let account = runnable.metadata().account();
        let wake = {
            let mut state = self.lock();
            if state.stopped {
                return;
            }
            state.end_idle();
            state.ready.push(account, runnable);
            !state.is_polled
        };
        if wake {
            self.driver.wake();
        }
    }

    /// The next task to poll, and the time after which it reads no more.
    fn next(&self, now: Instant) -> Option<(Runnable, Duration)> {
        let mut state = self.lock();
        let next = state.ready.pop();
        state.is_polled = next.is_some();
        if next.is_none() && state.empty_since.is_none() {
            state.empty_since = Some(Instant::now());
            state.caused = Duration::ZERO;
        }
        let runnable = next?;
        let length = state.turn(runnable.metadata().account(), now);
        Some((runnable, length))
    }

    /// Charges a poll of a task.
    fn polled(&self, account: Account, started: Instant, ended: Instant) {
        let used = (ended - started).min(MAX_CHARGE);
        let mut state = self.lock();
        state.on_polled(account, ended);
        state.ready.charge(account, used);
        let has_room = state.recent.len() < MAX_RECENT;
        match state.recent.iter_mut().find(|(known, _)| *known == account) {
            Some((_, time)) => *time += used,
            None if has_room => state.recent.push((account, used)),
            None => {}
        }
    }

    /// A poll of a [`Caused`] future begins.
    fn begin_caused(&self, now: Instant) {
        self.lock().causing_since = Some(now);
    }

    /// Charges a poll of a [`Caused`] future to the accounts of the polls since the last one, in
    /// proportion to their time.
    fn end_caused(&self, used: Duration) {
        let mut state = self.lock();
        state.causing_since = None;
        state.caused += used;
        let used = used.min(MAX_CHARGE);
        let recent = std::mem::take(&mut state.recent);
        let total: Duration = recent.iter().map(|(_, time)| *time).sum();
        for (account, time) in recent {
            if !total.is_zero() {
                let part = used.mul_f64(time.as_secs_f64() / total.as_secs_f64());
                state.ready.charge(account, part);
            }
        }
    }
}

/// Removes a task that has ended.
struct Ended {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let task = self.shared.lock().tasks.remove(&self.id);
        // Outside of the lock: a task that was cancelled is scheduled.
        drop(task);
    }
}
