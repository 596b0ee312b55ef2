//! The rules by which observations become a verdict.

use super::{
    Advice, Direct, Family, Filtering, Lane, MAX_SEEN, Mapping, Observations, PortMapping,
    Sighting, Transport, Verdict,
};

/// Judges a network by what is observed of it.
#[must_use]
pub fn judge(observations: &Observations) -> Verdict {
    let lanes: Vec<_> = [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| [Transport::Udp, Transport::Tcp].map(|transport| (transport, family)))
        .map(|(transport, family)| lane(observations, transport, family))
        .filter(is_known)
        .collect();
    let direct = match observations.configured {
        true => Direct::Reachable,
        false => {
            let reach = |lane| reach(lane, observations.port_mapping);
            lanes.iter().map(reach).max().unwrap_or_default()
        }
    };
    Verdict {
        udp: usable(&lanes, |lane| lane.transport == Transport::Udp),
        ipv6: usable(&lanes, |lane| lane.family == Family::V6),
        advice: advice(observations, &lanes, direct),
        direct,
        lanes,
    }
}

fn lane(observations: &Observations, transport: Transport, family: Family) -> Lane {
    let sightings: Vec<_> = observations
        .sightings
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
        None => (!sightings.is_empty()).then_some(true),
    };
    let mut seen_at: Vec<_> = sightings.iter().map(|one| one.observed).collect();
    seen_at.sort_unstable();
    seen_at.dedup();
    seen_at.truncate(MAX_SEEN);
    Lane {
        transport,
        family,
        usable,
        mapping: mapping(observations, &sightings),
        filtering: filtering(observations, transport, family),
        seen_at,
    }
}

fn is_known(lane: &Lane) -> bool {
    lane.usable.is_some() || lane.filtering != Filtering::Unknown
}

fn mapping(observations: &Observations, sightings: &[&Sighting]) -> Mapping {
    let Some(first) = sightings.first() else {
        return Mapping::Unknown;
    };
    let is_own = |one: &&Sighting| {
        let ip = one.observed.ip().to_canonical();
        observations.own.iter().any(|own| own.to_canonical() == ip)
    };
    if sightings.iter().all(is_own) {
        return Mapping::None;
    }
    if sightings.iter().any(|one| one.observed != first.observed) {
        return Mapping::EndpointDependent;
    }
    // Two sightings by one server prove nothing: a symmetric NAT has one mapping for it.
    match sightings.iter().any(|one| one.server != first.server) {
        true => Mapping::EndpointIndependent,
        false => Mapping::Unknown,
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
fn reach(lane: &Lane, port_mapping: PortMapping) -> Direct {
    use Filtering::{
        AddressAndPortDependent, AddressDependent, AddressDependentAtMost, EndpointIndependent,
    };
    if lane.usable == Some(false) {
        return Direct::NoPeers;
    }
    let mapped = port_mapping == PortMapping::Mapped;
    match (lane.mapping, lane.filtering) {
        // Also behind a symmetric NAT: the peer dialled an address that others can dial as well.
        (_, EndpointIndependent) => Direct::Reachable,
        (_, AddressDependentAtMost) if mapped => Direct::Reachable,
        (Mapping::EndpointDependent, _) => Direct::Few,
        (Mapping::Unknown, _) => Direct::Unknown,
        (_, AddressDependent | AddressDependentAtMost) => Direct::All,
        (_, AddressAndPortDependent | Filtering::Unknown) => Direct::Most,
    }
}

fn usable(lanes: &[Lane], of: impl Fn(&Lane) -> bool) -> Option<bool> {
    let lanes = lanes.iter().filter(|lane| of(lane));
    lanes.filter_map(|lane| lane.usable).max()
}

fn advice(observations: &Observations, lanes: &[Lane], direct: Direct) -> Vec<Advice> {
    let mut advice = Vec::new();
    match direct {
        Direct::Reachable => return advice,
        Direct::NoPeers => return vec![Advice::CheckBootNodes],
        _ => {}
    }
    let is_translated = lanes.iter().any(|lane| {
        matches!(
            lane.mapping,
            Mapping::EndpointIndependent | Mapping::EndpointDependent
        )
    });
    let udp = usable(lanes, |lane| lane.transport == Transport::Udp);
    if udp == Some(false) {
        advice.push(Advice::AllowUdp);
    }
    if is_translated {
        advice.push(match observations.port_mapping {
            PortMapping::Off => Advice::PortMapping,
            PortMapping::Mapped | PortMapping::NotMapped => Advice::ForwardPort,
        });
    } else if lanes.iter().any(|lane| lane.mapping == Mapping::None) {
        advice.push(Advice::OpenFirewall);
    }
    if direct == Direct::Few {
        advice.push(Advice::Relay);
    }
    let is_unclear = |lane: &Lane| lane.usable == Some(true) && lane.mapping == Mapping::Unknown;
    if lanes.is_empty() || lanes.iter().any(is_unclear) {
        advice.push(Advice::SecondBootNode);
    }
    advice
}
