use calimero_network_primitives::{ContextId, Keypair, Topic};

use super::*;
use crate::{Config, topic_hash};

#[test]
fn back_offs_are_bounded_and_known_ones_are_extended() {
    let now = Now {
        at: Instant::now(),
        unix: Duration::from_secs(1_800_000_000),
    };
    let keypair = Keypair::generate_ed25519();
    let mut machine = Machine::new(keypair, &Config::small(), [1; 32], now);
    let topic = Topic::context(ContextId::new([1; 32]));
    machine.subscribe(&topic, now).unwrap();
    let (hash, first) = (topic_hash(&topic), PeerId::random());
    machine.on_prune(first, hash.clone(), Some(60), now);
    for _ in 0..MAX_BACKOFFS + 9 {
        machine.on_prune(PeerId::random(), hash.clone(), Some(60), now);
    }
    assert_eq!(machine.backoffs.len(), MAX_BACKOFFS);
    machine.on_prune(first, hash.clone(), Some(600), now);
    let later = now.at + Duration::from_secs(500);
    assert!(machine.is_backed_off(&first, &hash, later));
}
