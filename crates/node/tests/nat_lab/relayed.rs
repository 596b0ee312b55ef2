//! What a node says about a peer that it has no direct connection with.

use crate::{
    site::{Kind, Transport},
    support::{LIMIT, run_within},
    world::World,
};

/// Two nodes behind symmetric NATs stay relayed. The one that dialled says why, and when it dials
/// directly again.
pub(crate) fn between_symmetric_nats() {
    let world = World::new(2);
    let sites = [(); 2].map(|()| world.site(Kind::Symmetric));
    let over = [Transport::Quic];
    let a = world.node("a", &sites[0], &over);
    a.wait_until_registered();
    let b = world.node("b", &sites[1], &over);
    assert!(b.punched_in_vain(&a.peer, LIMIT).is_some(), "{}", b.story());
    let data = world.file("b");
    let arguments = ["peers", "--data", data.to_str().unwrap()].map(str::to_owned);
    let ended = run_within(LIMIT, world.command("peers", &sites[1], &arguments));
    let lines = ended.json_lines();
    let relayed = lines
        .iter()
        .find(|line| line["peer"] == a.peer && line["path"] == "relayed")
        .unwrap_or_else(|| panic!("not relayed: {lines:#?}\n{}", b.story()));
    let why = relayed["relayed_because"].as_str().unwrap();
    assert!(why.contains("failed"), "{relayed}");
    assert!(relayed["direct_retry_in_seconds"].is_u64(), "{relayed}");
}
