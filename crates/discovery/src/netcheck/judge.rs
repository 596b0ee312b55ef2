//! The rules by which observations become a verdict.

use std::collections::BTreeMap;

use calimero_network_primitives::addr::{IpScope, ip_scope};

use super::{
    Advice, Direct, Family, Filtering, MAX_PUBLIC_ADDRESSES, Mapping, Observations,
    ObservedAddress, PortMapping, ProtocolVerdict, Transport, Verdict,
};

/// Judges a network by what is observed of it.
#[must_use]
pub fn judge(observations: &Observations) -> Verdict {
    let protocols: Vec<_> = [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| [Transport::Udp, Transport::Tcp].map(|transport| (transport, family)))
        .map(|(transport, family)| protocol(observations, transport, family))
        .filter(is_known)
        .collect();
    let direct = match observations.configured {
        true => Direct::Reachable,
        false => {
            let reach = |protocol| reach(protocol, observations.port_mapping);
            protocols.iter().map(reach).max().unwrap_or_default()
        }
    };
    Verdict {
        udp: usable(&protocols, |protocol| protocol.transport == Transport::Udp),
        ipv6: usable(&protocols, |protocol| protocol.family == Family::V6),
        advice: advice(observations, &protocols, direct),
        direct,
        protocols,
    }
}

fn protocol(observations: &Observations, transport: Transport, family: Family) -> ProtocolVerdict {
    let observed: Vec<_> = observations
        .observed
        .iter()
        .filter(|one| one.transport == transport && Family::of(one.observed.ip()) == family)
        .filter(|one| one.is_plausible(&observations.own))
        .collect();
    let attempts = observations.attempts.iter();
    let mut attempts = attempts
        .filter(|one| one.transport == transport && one.family == family)
        .map(|one| one.connected)
        .peekable();
    let usable = match attempts.peek() {
        Some(_) => Some(attempts.any(|connected| connected)),
        None => (!observed.is_empty()).then_some(true),
    };
    let mut public_addresses: Vec<_> = observed.iter().map(|one| one.observed).collect();
    public_addresses.sort_unstable();
    public_addresses.dedup();
    public_addresses.truncate(MAX_PUBLIC_ADDRESSES);
    ProtocolVerdict {
        transport,
        family,
        usable,
        mapping: mapping(observations, &observed),
        filtering: filtering(observations, transport, family),
        public_addresses,
    }
}

fn is_known(protocol: &ProtocolVerdict) -> bool {
    protocol.usable.is_some() || protocol.filtering != Filtering::Unknown
}

fn mapping(observations: &Observations, observed: &[&ObservedAddress]) -> Mapping {
    // A peer of the same site sees no NAT. It counts only if there is no other peer.
    let is_across = |one: &&&ObservedAddress| ip_scope(one.server) != IpScope::Private;
    let mut counted: Vec<_> = observed.iter().filter(is_across).collect();
    if counted.is_empty() {
        counted = observed.iter().collect();
    }
    if counted.is_empty() {
        return Mapping::Unknown;
    }
    counted.retain(|one| !one.is_of(&observations.own));
    if counted.is_empty() {
        return Mapping::None;
    }
    // Two addresses that one server observed prove nothing: a symmetric NAT has one mapping for it,
    // and an older connection may have another one.
    let by_server: BTreeMap<_, _> = counted
        .iter()
        .map(|one| (one.server, one.observed))
        .collect();
    let mut servers: BTreeMap<_, usize> = BTreeMap::new();
    for observed in by_server.values() {
        *servers.entry(observed).or_default() += 1;
    }
    // One server of several that reports another address may be wrong.
    let most = servers.values().max().copied().unwrap_or_default();
    match by_server.len() {
        0 | 1 => Mapping::Unknown,
        all if most > all / 2 => Mapping::EndpointIndependent,
        _ => Mapping::EndpointDependent,
    }
}

fn filtering(observations: &Observations, transport: Transport, family: Family) -> Filtering {
    let dial_backs: Vec<_> = observations
        .dial_backs
        .iter()
        .filter(|one| one.transport == transport && one.family == family)
        .collect();
    let any = |reached: bool, contacted: bool| {
        let mut all = dial_backs.iter();
        all.any(|one| one.reached == reached && one.contacted == contacted)
    };
    if any(true, false) {
        Filtering::EndpointIndependent
    } else if any(true, true) {
        match (any(false, false), observations.admits_uncontacted_peers) {
            (true, _) => Filtering::AddressDependent,
            (false, true) => Filtering::EndpointIndependent,
            (false, false) => Filtering::AddressDependentAtMost,
        }
    } else if any(false, true) {
        Filtering::AddressAndPortDependent
    } else {
        // A peer without permission that is not let in says nothing about peers with one.
        Filtering::Unknown
    }
}

/// The peers that one protocol reaches directly.
fn reach(protocol: &ProtocolVerdict, port_mapping: PortMapping) -> Direct {
    use Filtering::{
        AddressAndPortDependent, AddressDependent, AddressDependentAtMost, EndpointIndependent,
    };
    if protocol.usable == Some(false) {
        return Direct::NoPeers;
    }
    let mapped = port_mapping == PortMapping::Mapped;
    match (protocol.mapping, protocol.filtering) {
        // Also behind a symmetric NAT: the peer dialled an address that others can dial as well.
        (_, EndpointIndependent) => Direct::Reachable,
        (_, AddressDependentAtMost) if mapped => Direct::Reachable,
        (Mapping::EndpointDependent, _) => Direct::Few,
        (Mapping::Unknown, _) => Direct::Unknown,
        (_, AddressDependent | AddressDependentAtMost) => Direct::All,
        (_, AddressAndPortDependent | Filtering::Unknown) => Direct::Most,
    }
}

fn usable(protocols: &[ProtocolVerdict], of: impl Fn(&ProtocolVerdict) -> bool) -> Option<bool> {
    let protocols = protocols.iter().filter(|protocol| of(protocol));
    protocols.filter_map(|protocol| protocol.usable).max()
}

fn advice(
    observations: &Observations,
    protocols: &[ProtocolVerdict],
    direct: Direct,
) -> Vec<Advice> {
    let mut advice = Vec::new();
    match direct {
        Direct::Reachable => return advice,
        Direct::NoPeers => return vec![Advice::CheckBootNodes],
        _ => {}
    }
    let is_translated = protocols.iter().any(|protocol| {
        matches!(
            protocol.mapping,
            Mapping::EndpointIndependent | Mapping::EndpointDependent
        )
    });
    let udp = usable(protocols, |protocol| protocol.transport == Transport::Udp);
    if udp == Some(false) {
        advice.push(Advice::AllowUdp);
    }
    if is_translated {
        advice.push(match observations.port_mapping {
            PortMapping::Off => Advice::PortMapping,
            PortMapping::Mapped | PortMapping::NotMapped => Advice::ForwardPort,
        });
    } else if protocols
        .iter()
        .any(|protocol| protocol.mapping == Mapping::None)
    {
        advice.push(Advice::OpenFirewall);
    }
    if direct == Direct::Few {
        advice.push(Advice::Relay);
    }
    let is_unclear = |protocol: &ProtocolVerdict| {
        protocol.usable == Some(true) && protocol.mapping == Mapping::Unknown
    };
    if protocols.is_empty() || protocols.iter().any(is_unclear) {
        advice.push(Advice::SecondBootNode);
    }
    advice
}
