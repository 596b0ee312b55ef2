//! What a rendezvous server reads, and the registry behind it: a run of messages, each after its
//! length in one byte, from three peers. Nothing grows beyond its bounds, and every answer is
//! within those of a page.
#![no_main]

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network_discovery::server::rendezvous::{
    registry::Registry,
    wire::{Request, decode, encode_discovered},
};
use calimero_network_primitives::{
    Keypair, PeerId,
    config::{RendezvousServerConfig, RendezvousServerTuning},
};
use libfuzzer_sys::fuzz_target;

/// A generator whose numbers are far apart and the same in every run.
struct Numbers(u64);

impl rand::TryRng for Numbers {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|number| number as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for byte in to {
            *byte = self.try_next_u64()? as u8;
        }
        Ok(())
    }
}

fn peer(seed: u8) -> PeerId {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a key");
    keypair.public().to_peer_id()
}

fuzz_target!(|input: &[u8]| {
    let config = RendezvousServerConfig {
        max_registrations: 8,
        tuning: RendezvousServerTuning {
            max_registrations_per_peer: 3,
            max_registrations_per_namespace: 5,
            max_answer: 4,
            max_record_bytes: 300,
            ..RendezvousServerTuning::default()
        },
        ..RendezvousServerConfig::default()
    };
    let peers = [peer(1), peer(2), peer(3)];
    let mut numbers = Numbers(7);
    let mut registry = Registry::new(config, 0);
    let mut now = Instant::now();
    let mut last_cookie: Option<Bytes> = None;
    let whole = Bytes::copy_from_slice(input);
    let mut rest = &whole[..];
    while let [head, behind @ ..] = rest {
        let len = usize::from(*head).min(behind.len());
        let message = whole.slice_ref(&behind[..len]);
        rest = &behind[len..];
        let peer = peers[usize::from(*head) % 3];
        match decode(&message) {
            Err(_) => now += Duration::from_secs(u64::from(*head) * 60),
            Ok(Request::Register {
                namespace,
                record,
                ttl_s,
            }) => {
                let result = registry.register(peer, &namespace, &record, ttl_s, now, &mut numbers);
                if let Ok(registered) = result {
                    assert!((7200..=259_200).contains(&registered.ttl_s));
                    assert!(record.len() <= 300);
                }
            }
            Ok(Request::Unregister { namespace }) => {
                registry.unregister(&peer, &namespace, now);
                assert!(!registry.unregister(&peer, &namespace, now));
            }
            Ok(Request::Discover {
                namespace,
                cookie,
                limit,
            }) => {
                let Some(namespace) = namespace else { continue };
                for cookie in [cookie, last_cookie.take()] {
                    let answer =
                        registry.discover(&namespace, cookie.as_deref(), limit, now, &mut numbers);
                    if let Ok((found, cookie)) = answer {
                        assert!(found.len() as u64 <= limit.unwrap_or(4).min(4));
                        assert!(encode_discovered(&namespace, &found, &cookie).len() < 4096);
                        last_cookie = Some(cookie);
                    }
                }
            }
        }
        let held = registry.held();
        assert!(held.registrations <= 8 && held.peers <= 3);
        assert!(registry.next_expiry().is_none_or(|at| at > now) || registry.expire(now) > 0);
    }
});
