//! The external addresses of this node, which it announces to other peers.

use std::collections::{BTreeMap, VecDeque};

use calimero_network_primitives::{Multiaddr, PeerId};

use super::effect::Effect;

/// The reason why an address is an external address of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSource {
    /// The operator configured the address.
    Configured,
    /// This node listens on the address, and the network is local.
    Local,
    /// A peer reached this node there by a probe.
    Probed,
    /// A relay holds a reservation for this node.
    Relay(PeerId),
}

/// External addresses with their sources. An address with two sources stays until both are removed.
/// Bounded by the candidates under test, the reservations and the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Externals {
    addresses: BTreeMap<Multiaddr, Vec<AddressSource>>,
}

impl Externals {
    /// Adds a source of an address. Returns whether the address is new.
    pub(super) fn add(
        &mut self,
        address: &Multiaddr,
        source: AddressSource,
        out: &mut VecDeque<Effect>,
    ) -> bool {
        let sources = self.addresses.entry(address.clone()).or_default();
        let new = sources.is_empty();
        if !sources.contains(&source) {
            sources.push(source);
        }
        if new {
            let address = address.clone();
            out.push_back(Effect::AddExternalAddress { address });
        }
        new
    }

    /// Removes a source of an address. Returns whether the address was removed with it.
    pub(super) fn remove(
        &mut self,
        address: &Multiaddr,
        source: AddressSource,
        out: &mut VecDeque<Effect>,
    ) -> bool {
        let Some(sources) = self.addresses.get_mut(address) else {
            return false;
        };
        sources.retain(|other| *other != source);
        if !sources.is_empty() {
            return false;
        }
        self.addresses.remove(address);
        let address = address.clone();
        out.push_back(Effect::RemoveExternalAddress { address });
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Multiaddr, &[AddressSource])> {
        self.addresses
            .iter()
            .map(|(address, sources)| (address, sources.as_slice()))
    }
}
