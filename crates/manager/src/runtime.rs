//! The runtime of the swarm.
//!
//! A connection is a task, and so is the user of one of its streams: each frame wakes one from the
//! other. On a runtime of several threads the two run on different cores and every wake-up crosses
//! between them. The default is therefore a thread of its own for the network,
//! whose runtime has that one thread: the swarm and its connections wake each other for the price
//! of a queue, and the caller's runtime stays free for the caller. On it connections share the time
//! of the thread by origin, with [`FairExecutor`](calimero_network_transport::FairExecutor).

use std::{future::Future, io};

use calimero_network_primitives::config::RuntimeKind;
use tokio::runtime::Handle;

/// Number of tasks that a thread of its own runs before it polls its sockets and the task of the
/// swarm: one, because one of its tasks polls all connections, for 250 µs at a time. By default tokio
/// polls sockets after 61 tasks.
const EVENT_INTERVAL: u32 = 1;

/// Runs `task` to its end on a runtime of this kind, and drops `guard` when the task has ended, even
/// by a panic. Returns the handle of the runtime.
pub(crate) fn spawn(
    kind: RuntimeKind,
    guard: impl Send + 'static,
    task: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Handle> {
    // The node is built inside the task, so its future is as large as the node, and without
    // optimisation is copied by every call that hands it on: more than a thread's stack.
    let guarded = Box::pin(async move {
        let _guard = guard;
        task.await;
    });
    match kind {
        RuntimeKind::Dedicated => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .event_interval(EVENT_INTERVAL)
                .global_queue_interval(EVENT_INTERVAL)
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            std::thread::Builder::new()
                .name("calimero-network".to_owned())
                .spawn(move || runtime.block_on(guarded))?;
            Ok(handle)
        }
        RuntimeKind::Shared => {
            let runtime = Handle::try_current()
                .map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))?;
            runtime.spawn(guarded);
            Ok(runtime)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_task_does_not_fill_the_stack_of_its_thread() {
        let (done, ended) = tokio::sync::oneshot::channel();
        let task = async move {
            let large = [1u8; 256 * 1024];
            tokio::task::yield_now().await;
            let _ = done.send(large.iter().map(|&byte| usize::from(byte)).sum::<usize>());
        };
        spawn(RuntimeKind::Dedicated, (), task).unwrap();
        assert_eq!(ended.await, Ok(256 * 1024));
    }
}
