//! Every configuration that is accepted starts a node, which stops again.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use calimero_network::{Keypair, NetworkManager};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

#[path = "../shared/config.rs"]
mod shared;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

fuzz_target!(|bytes: &[u8]| {
    let Some(config) = shared::derive(bytes) else {
        return;
    };
    RUNTIME.block_on(async {
        let node = NetworkManager::builder(Keypair::generate_ed25519(), config).in_memory();
        let (client, _events) = node
            .start()
            .await
            .expect("an accepted configuration starts");
        let stopped = tokio::time::timeout(Duration::from_secs(5), client.shutdown());
        stopped
            .await
            .expect("the node stops")
            .expect("the node stops once");
    });
});
