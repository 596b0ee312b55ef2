//! Lists of addresses in DNS.

use std::collections::VecDeque;

use multiaddr::{Multiaddr, Protocol};

use super::{MAX_DEPTH, MAX_LOOKUPS, MAX_RECORDS, Resolver};
use crate::AddressError;

/// Largest number of addresses of one list, 64: 16 peers with four addresses each.
const MAX_LISTED: usize = 64;

/// Resolves `/dnsaddr` names to the addresses in their TXT records, with the name servers of the
/// system.
///
/// A record of `_dnsaddr.NAME` is `dnsaddr=` and a multiaddress ([specification]). Records in another
/// format are skipped. One that is a `/dnsaddr` name is resolved in turn, to a depth of 4, with at
/// most 16 records of each name, 32 lookups and 64 addresses. Other names stay as they are: they are
/// resolved when they are dialled.
///
/// [specification]: https://github.com/multiformats/multiaddr/blob/master/protocols/DNSADDR.md
#[derive(Debug)]
pub struct AddressLists(Resolver);

impl AddressLists {
    /// Creates a resolver with the system configuration, which is read again when it changes.
    #[must_use]
    pub fn system() -> Self {
        Self(Resolver::system())
    }

    /// Returns the addresses of a list, each once.
    ///
    /// # Errors
    ///
    /// [`AddressError`] of the last lookup that failed, if no address was found.
    /// [`AddressError::NoSuchName`] if there is none.
    pub async fn resolve(&self, list: &Multiaddr) -> Result<Vec<Multiaddr>, AddressError> {
        let mut names = VecDeque::from([(list.clone(), 0)]);
        let mut addresses = Vec::new();
        let mut failure = AddressError::NoSuchName;
        let mut lookups = 0;
        while let Some((address, depth)) = names.pop_front() {
            let mut parts = address.iter();
            let Some(Protocol::Dnsaddr(name)) = parts.next() else {
                if addresses.len() < MAX_LISTED && !addresses.contains(&address) {
                    addresses.push(address);
                }
                continue;
            };
            if depth >= MAX_DEPTH || lookups >= MAX_LOOKUPS {
                continue;
            }
            lookups += 1;
            let rest: Multiaddr = parts.collect();
            match self.0.records(&name).await {
                Ok(records) => {
                    let fitting = records.into_iter().filter(|one| one.ends_with(&rest));
                    let fitting = fitting.take(MAX_RECORDS);
                    names.extend(fitting.map(|record| (record, depth + 1)));
                }
                Err(error) => failure = error,
            }
        }
        match addresses.is_empty() {
            true => Err(failure),
            false => Ok(addresses),
        }
    }
}
