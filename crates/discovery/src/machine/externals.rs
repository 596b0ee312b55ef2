//! Our external addresses: what others are told. Its one writer is this file.

use std::collections::{BTreeMap, VecDeque};

use calimero_network_primitives::{Multiaddr, PeerId};

use super::effect::Effect;

/// Why an address counts as ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSource {
    /// The operator vouches for it.
    Configured,
    /// We listen there, and the network is as local as the address.
    Local,
    /// A peer reached us there.
    Probed,
    /// A relay holds a slot for us.
    Relay(PeerId),
}

/// External addresses and why they are ours. An address two sources vouch for stays until both
/// have withdrawn it. Bounded by the candidates under test, the slots and the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Externals {
    addresses: BTreeMap<Multiaddr, Vec<AddressSource>>,
}

impl Externals {
    /// Returns whether the set has changed.
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

    /// Returns whether the set has changed.
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
