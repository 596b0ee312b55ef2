//! Peers remembered over a restart: the text, whatever it holds, and the file it is kept in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use calimero_network_discovery::{
    cache::{
        CacheError, FileCache, FormatError, LineError, MAX_CACHE_BYTES,
        MAX_CACHED_ADDRESSES_PER_PEER, MAX_CACHED_PEERS, PeerCache, decode, encode,
    },
    machine::CacheEntry,
};
use calimero_network_primitives::{
    Multiaddr, PeerId, addr::MAX_ADDRESS_BYTES, multiaddr::Protocol,
};
use proptest::prelude::*;

/// 2025, as the tests go.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_750_000_000)
}

fn entry(address: &str, age_s: u64) -> CacheEntry {
    CacheEntry {
        peer: PeerId::random(),
        addresses: vec![address.parse().unwrap()],
        age: Duration::from_secs(age_s),
    }
}

const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

#[test]
fn the_format_is_pinned() {
    let entry = CacheEntry {
        peer: PEER.parse().unwrap(),
        addresses: vec![
            "/ip4/192.0.2.1/tcp/2428".parse().unwrap(),
            "/dns4/a.example/udp/2428/quic-v1".parse().unwrap(),
        ],
        age: Duration::from_secs(60),
    };
    let text = format!(
        "calimero-peers 1\n1749999940 {PEER} /ip4/192.0.2.1/tcp/2428 \
         /dns4/a.example/udp/2428/quic-v1\nend 1\n"
    );
    assert_eq!(encode(std::slice::from_ref(&entry), now()), text);
    assert_eq!(decode(text.as_bytes(), now()), Ok(vec![entry]));
}

#[test]
fn what_is_no_cache_is_named() {
    let line = |line, reason| FormatError::Line { line, reason };
    let long = format!("/dns4/{}/tcp/1", "x".repeat(MAX_ADDRESS_BYTES));
    let many = " /ip4/192.0.2.1/tcp/1".repeat(MAX_CACHED_ADDRESSES_PER_PEER + 1);
    for (text, error) in [
        (String::new(), FormatError::Torn { peers: 0 }),
        ("calimero-pe".to_owned(), FormatError::Torn { peers: 0 }),
        ("{\"peers\": []}".to_owned(), FormatError::Foreign),
        ("calimero-peersX1\nend 0\n".to_owned(), FormatError::Foreign),
        (
            "calimero-peers one\nend 0\n".to_owned(),
            FormatError::Foreign,
        ),
        (
            "calimero-peers 01\nend 0\n".to_owned(),
            FormatError::Foreign,
        ),
        (
            "calimero-peers 2\nend 0\n".to_owned(),
            FormatError::Version { found: 2 },
        ),
        (
            "calimero-peers 1\n".to_owned(),
            FormatError::Torn { peers: 0 },
        ),
        (
            "calimero-peers 1\nend 0".to_owned(),
            FormatError::Torn { peers: 0 },
        ),
        (
            "calimero-peers 1\nend 1\n".to_owned(),
            FormatError::Torn { peers: 0 },
        ),
        (
            "calimero-peers 1\nend 0\nend 0\n".to_owned(),
            FormatError::Torn { peers: 0 },
        ),
        (
            "calimero-peers 1\n\nend 0\n".to_owned(),
            line(2, LineError::Time),
        ),
        (
            format!("calimero-peers 1\n-1 {PEER} /ip4/192.0.2.1/tcp/1\nend 1\n"),
            line(2, LineError::Time),
        ),
        (
            "calimero-peers 1\n1 nobody /ip4/192.0.2.1/tcp/1\nend 1\n".to_owned(),
            line(2, LineError::Peer),
        ),
        (
            format!("calimero-peers 1\n1 {PEER}\nend 1\n"),
            line(2, LineError::Addresses { found: 0 }),
        ),
        (
            format!("calimero-peers 1\n1 {PEER}{many}\nend 1\n"),
            line(2, LineError::Addresses { found: 17 }),
        ),
        (
            format!("calimero-peers 1\n1 {PEER} /ip4/192.0.2.1/tcp/1 nowhere\nend 1\n"),
            line(2, LineError::Address { field: 4 }),
        ),
        (
            format!("calimero-peers 1\n1 {PEER} {long}\nend 1\n"),
            line(2, LineError::Address { field: 3 }),
        ),
        (
            format!(
                "calimero-peers 1\n1 {PEER} /ip4/192.0.2.1/tcp/1\n1 {PEER} \
                 /ip4/192.0.2.1/tcp/1\nend 2\n"
            ),
            line(3, LineError::Twice),
        ),
    ] {
        assert_eq!(decode(text.as_bytes(), now()), Err(error), "{text}");
    }
    let binary = decode(b"calimero-peers 1\n\xff\nend 0\n", now());
    assert_eq!(binary, Err(FormatError::NotText { valid_up_to: 17 }));
}

#[test]
fn a_whole_cache_is_read_and_nothing_longer() {
    let entries: Vec<_> = (0..MAX_CACHED_PEERS + 10)
        .map(|index| entry("/ip4/192.0.2.1/tcp/2428", index as u64))
        .collect();
    let text = encode(&entries, now());
    let read = decode(text.as_bytes(), now()).unwrap();
    assert_eq!(read, entries[..MAX_CACHED_PEERS]);

    let mut more = text.replace(&format!("end {MAX_CACHED_PEERS}\n"), "");
    more.push_str(&format!("1 {PEER} /ip4/192.0.2.1/tcp/1\nend 4097\n"));
    let reason = LineError::TooMany;
    let line = MAX_CACHED_PEERS + 2;
    assert_eq!(
        decode(more.as_bytes(), now()),
        Err(FormatError::Line { line, reason })
    );
    let endless = vec![b' '; MAX_CACHE_BYTES + 1];
    assert_eq!(decode(&endless, now()), Err(FormatError::TooLong));
}

#[test]
fn the_longest_entries_are_written_within_the_bound() {
    let name = "x".repeat(MAX_ADDRESS_BYTES - 10);
    let long: Multiaddr = format!("/dns4/{name}/tcp/1").parse().unwrap();
    let entries: Vec<_> = (0..MAX_CACHED_PEERS)
        .map(|_| CacheEntry {
            peer: PeerId::random(),
            addresses: vec![long.clone(); MAX_CACHED_ADDRESSES_PER_PEER],
            age: Duration::ZERO,
        })
        .collect();
    let text = encode(&entries, now());
    assert!(text.len() <= MAX_CACHE_BYTES);
    let read = decode(text.as_bytes(), now()).unwrap();
    assert!(read.len() > 400, "{}", read.len());
    assert_eq!(read, entries[..read.len()]);
}

#[test]
fn an_address_that_would_not_read_as_itself_is_left_out() {
    let good: Multiaddr = "/ip4/192.0.2.1/tcp/2428".parse().unwrap();
    let bad = ["a b", "a\nend 1", "a/tcp/1", "a\tb"]
        .map(|name| Multiaddr::empty().with(Protocol::Dns4(name.into())));
    let mut mixed = CacheEntry {
        peer: PeerId::random(),
        addresses: bad.to_vec(),
        age: Duration::ZERO,
    };
    let alone = encode(std::slice::from_ref(&mixed), now());
    assert_eq!(decode(alone.as_bytes(), now()), Ok(Vec::new()));
    mixed.addresses.push(good.clone());
    let text = encode(std::slice::from_ref(&mixed), now());
    mixed.addresses = vec![good];
    assert_eq!(decode(text.as_bytes(), now()), Ok(vec![mixed]));
}

#[test]
fn the_same_peer_is_written_once() {
    let entry = entry("/ip4/192.0.2.1/tcp/2428", 1);
    let text = encode(&[entry.clone(), entry.clone()], now());
    assert_eq!(decode(text.as_bytes(), now()), Ok(vec![entry]));
}

#[test]
fn ages_follow_the_wall_clock_and_never_turn_negative() {
    let text = encode(&[entry("/ip4/192.0.2.1/tcp/1", 60)], now());
    let age_at = |now| decode(text.as_bytes(), now).unwrap()[0].age.as_secs();
    assert_eq!(age_at(now()), 60);
    assert_eq!(age_at(now() + Duration::from_secs(3600)), 3660);
    assert_eq!(age_at(now() - Duration::from_secs(3600)), 0);
    assert_eq!(age_at(UNIX_EPOCH - Duration::from_secs(1)), 0);
    let before_time = encode(&[entry("/ip4/192.0.2.1/tcp/1", u64::MAX)], now());
    assert_eq!(
        decode(before_time.as_bytes(), now()).unwrap()[0].age,
        Duration::from_secs(1_750_000_000)
    );
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_holds_what_was_saved_last() {
    let folder = tempfile::tempdir().unwrap();
    let cache = FileCache::new(folder.path().join("peers"));
    assert!(cache.load(now()).unwrap().entries.is_empty());
    for peers in [3, 1, 0, 2] {
        let entries: Vec<_> = (0..peers)
            .map(|age| entry("/ip6/2001:db8::1/tcp/2428", age))
            .collect();
        cache.save(&entries, now()).unwrap();
        let loaded = cache.load(now()).unwrap();
        assert_eq!(loaded.entries, entries);
        assert!(loaded.damage.is_none());
        assert_eq!(names(folder.path()), ["peers"]);
    }
}

#[test]
fn what_a_crash_left_of_a_save_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let cache = FileCache::new(folder.path().join("peers"));
    let before = [entry("/ip4/192.0.2.1/tcp/1", 0)];
    cache.save(&before, now()).unwrap();
    fs::write(folder.path().join("peers.new"), "calimero-pe").unwrap();
    assert_eq!(cache.load(now()).unwrap().entries, before);
    let after = [entry("/ip4/192.0.2.2/tcp/1", 0)];
    cache.save(&after, now()).unwrap();
    assert_eq!(cache.load(now()).unwrap().entries, after);
    assert_eq!(names(folder.path()), ["peers"]);
}

#[test]
fn every_torn_file_is_put_aside_and_loading_starts_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers");
    let cache = FileCache::new(&path);
    let entries = [
        entry("/ip4/192.0.2.1/tcp/1", 0),
        entry("/ip4/192.0.2.2/tcp/1", 9),
    ];
    cache.save(&entries, now()).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let loaded = cache.load(now()).unwrap();
        assert!(loaded.entries.is_empty(), "{len}");
        let damage = loaded.damage.unwrap();
        assert_eq!(damage.path, path);
        assert!(damage.to_string().contains("peers"), "{damage}");
        let aside = damage.put_aside.unwrap();
        assert_eq!(fs::read(aside).unwrap(), &whole[..len]);
        assert!(cache.load(now()).unwrap().damage.is_none());
    }
    cache.save(&entries, now()).unwrap();
    assert_eq!(cache.load(now()).unwrap().entries, entries);
    assert_eq!(names(folder.path()), ["peers", "peers.broken"]);
}

#[test]
fn a_file_without_end_is_read_to_the_bound_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    let loaded = FileCache::new(&path).load(now()).unwrap();
    assert_eq!(loaded.damage.unwrap().reason, FormatError::TooLong);
}

#[test]
fn what_is_no_file_is_an_error_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers");
    fs::create_dir(&path).unwrap();
    let cache = FileCache::new(&path);
    for error in [
        cache.load(now()).unwrap_err(),
        cache.save(&[], now()).unwrap_err(),
    ] {
        assert!(matches!(error, CacheError::Io { .. }));
        assert!(error.to_string().contains("peers"), "{error}");
    }
    assert!(path.is_dir());
    let nowhere = FileCache::new(folder.path().join("missing/peers"));
    assert!(nowhere.save(&[], now()).is_err());
}

#[cfg(unix)]
#[test]
fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers");
    FileCache::new(&path).save(&[], now()).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn any_entry() -> impl Strategy<Value = CacheEntry> {
    let host = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| Protocol::Ip4(ip.into())),
        any::<[u8; 16]>().prop_map(|ip| Protocol::Ip6(ip.into())),
        "\\PC{0,20}".prop_map(|name| Protocol::Dns4(name.into())),
    ];
    let address = (host, any::<u16>())
        .prop_map(|(host, port)| Multiaddr::empty().with(host).with(Protocol::Tcp(port)));
    let addresses = prop::collection::vec(address, 0..20);
    (addresses, any::<u64>()).prop_map(|(addresses, age)| CacheEntry {
        peer: PeerId::random(),
        addresses,
        age: Duration::from_secs(age),
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(
        entries in prop::collection::vec(any_entry(), 0..20),
        written_s in 0..1u64 << 40,
        later_s in 0..1u64 << 40,
    ) {
        let written = UNIX_EPOCH + Duration::from_secs(written_s);
        let text = encode(&entries, written);
        let read = decode(text.as_bytes(), written + Duration::from_secs(later_s)).unwrap();
        let mut kept = read.iter();
        for entry in &entries {
            let age = entry.age.as_secs().min(written_s) + later_s;
            let Some(read) = kept.as_slice().first().filter(|read| read.peer == entry.peer) else {
                // Only what has no address that reads as itself is left out.
                let is_ip = |a: &Multiaddr| !a.to_string().starts_with("/dns4");
                prop_assert!(!entry.addresses.iter().any(is_ip));
                continue;
            };
            kept.next();
            prop_assert_eq!(read.age.as_secs(), age);
            prop_assert!(read.addresses.iter().all(|a| entry.addresses.contains(a)));
        }
        prop_assert_eq!(kept.len(), 0);
        prop_assert_eq!(encode(&read, written + Duration::from_secs(later_s)), text);
    }

    #[test]
    fn any_bytes_are_a_cache_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes, now());
        let mut ours = b"calimero-peers 1\n".to_vec();
        ours.extend(bytes);
        let _ = decode(&ours, now());
    }

    #[test]
    fn a_changed_byte_never_reads_as_more_peers(at in 0usize..200, byte in any::<u8>()) {
        let entries = [entry("/ip4/192.0.2.1/tcp/1", 0), entry("/ip4/192.0.2.2/tcp/1", 9)];
        let mut text = encode(&entries, now()).into_bytes();
        let at = at % text.len();
        text[at] = byte;
        if let Ok(read) = decode(&text, now()) {
            prop_assert_eq!(read.len(), 2);
        }
    }
}
