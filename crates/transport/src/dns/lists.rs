//! Lists of addresses in DNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use futures::future::join_all;
use multiaddr::{Multiaddr, Protocol};

use super::{MAX_DEPTH, MAX_LOOKUPS, Resolver};
use crate::AddressError;

/// Largest number of addresses of one list, 256: 64 peers with four addresses each.
const MAX_LISTED: usize = 256;

/// Largest number of records of one name of a list, 64: as many peers with one address each. With
/// about 90 bytes each they fit into one DNS message over TCP.
const MAX_RECORDS: usize = 64;

/// Time for the lookup of one name, 10 s: two attempts of 5 s, the default of the resolver.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Resolves a `/dnsaddr` name to the addresses in its TXT records, with the name servers of the
/// system.
///
/// A record of `_dnsaddr.NAME` is `dnsaddr=` and a multiaddress ([specification]). Records in another
/// format are skipped. One that is a `/dnsaddr` name is resolved in turn, to a depth of 4, with at
/// most 64 records of each name, 32 lookups and 256 addresses. Other names stay as they are: they
/// are resolved when they are dialled.
///
/// [specification]: https://github.com/multiformats/multiaddr/blob/master/protocols/DNSADDR.md
#[derive(Debug)]
pub struct AddressList {
    list: Multiaddr,
    resolver: Resolver,
    /// The records of the latest answer for each name, so that a lookup without an answer changes
    /// nothing.
    known: BTreeMap<String, Vec<Multiaddr>>,
}

/// What the lookups of a list found.
#[derive(Clone, Debug)]
pub struct ResolvedList {
    /// The addresses, each once, in an order that does not depend on that of the answers. Those of a
    /// name whose lookup had no answer are the ones of its latest answer.
    pub addresses: Vec<Multiaddr>,
    /// The last lookup that failed: [`AddressError::NoSuchName`] for a name without records.
    pub failure: Option<AddressError>,
}

impl AddressList {
    /// Creates a resolver of `list` with the system configuration, which is read again when it
    /// changes.
    #[must_use]
    pub fn system(list: Multiaddr) -> Self {
        Self::new(list, Resolver::system())
    }

    pub(super) fn new(list: Multiaddr, resolver: Resolver) -> Self {
        Self {
            list,
            resolver,
            known: BTreeMap::new(),
        }
    }

    /// Returns the list itself.
    #[must_use]
    pub fn address(&self) -> &Multiaddr {
        &self.list
    }

    /// Looks up the addresses. The names at one depth are looked up at the same time, each for at
    /// most 10 s.
    ///
    /// Cancel safe: records that were found before are kept.
    pub async fn resolve(&mut self) -> ResolvedList {
        let mut level = vec![self.list.clone()];
        let (mut addresses, mut failure) = (Vec::new(), None);
        let mut names = BTreeSet::new();
        for _ in 0..MAX_DEPTH {
            let mut wanted = Vec::new();
            for address in level {
                match split(&address) {
                    None => addresses.push(address),
                    Some((name, rest)) if names.len() < MAX_LOOKUPS => {
                        if names.insert(name.clone()) {
                            wanted.push((name, rest));
                        }
                    }
                    Some(_) => {}
                }
            }
            let lookups = wanted.iter().map(|(name, _)| self.records(name));
            let answers = join_all(lookups).await;
            level = Vec::new();
            for ((name, rest), answer) in wanted.into_iter().zip(answers) {
                let records = match answer {
                    Ok(records) => records,
                    // An answer too: the name has no records any longer.
                    Err(error @ AddressError::NoSuchName) => {
                        failure = Some(error);
                        Vec::new()
                    }
                    Err(error) => {
                        failure = Some(error);
                        self.known.remove(&name).unwrap_or_default()
                    }
                };
                level.extend(records.iter().filter(|one| one.ends_with(&rest)).cloned());
                self.known.insert(name, records);
            }
        }
        addresses.extend(level.into_iter().filter(|one| split(one).is_none()));
        self.known.retain(|name, _| names.contains(name));
        addresses.sort_unstable_by_key(Multiaddr::to_vec);
        addresses.dedup();
        addresses.truncate(MAX_LISTED);
        ResolvedList { addresses, failure }
    }

    /// The records of a name, in an order of their own: servers rotate them.
    async fn records(&self, name: &str) -> Result<Vec<Multiaddr>, AddressError> {
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, self.resolver.records(name)).await;
        let mut records = found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        records.sort_unstable_by_key(Multiaddr::to_vec);
        records.dedup();
        records.truncate(MAX_RECORDS);
        Ok(records)
    }
}

/// The name of a `/dnsaddr` address and what follows it.
fn split(address: &Multiaddr) -> Option<(String, Multiaddr)> {
    let mut parts = address.iter();
    match parts.next()? {
        Protocol::Dnsaddr(name) => Some((name.into_owned(), parts.collect())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{Arc, Mutex},
        time::SystemTime,
    };

    use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
    use tokio::net::UdpSocket;

    use super::{
        super::resolver::{Source, Stamp},
        *,
    };

    /// What the name server says of a name.
    #[derive(Clone, Debug)]
    enum Zone {
        Records(Vec<String>),
        /// The response code 2.
        ServerFailure,
    }

    type Zones = Arc<Mutex<BTreeMap<String, Zone>>>;

    /// Starts a name server for TXT queries. A name that is not in `zones` does not exist.
    async fn name_server(zones: Zones) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answer = answer(&buffer[..length], &zones);
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        address
    }

    fn answer(question: &[u8], zones: &Zones) -> Vec<u8> {
        let (mut name, mut at) = (Vec::new(), 12);
        while question[at] != 0 {
            let label = &question[at + 1..=at + usize::from(question[at])];
            name.push(String::from_utf8(label.to_vec()).unwrap());
            at += 1 + label.len();
        }
        let name = name.join(".").to_lowercase();
        let (code, records) = match zones.lock().unwrap().get(&name) {
            Some(Zone::Records(records)) => (0, records.clone()),
            Some(Zone::ServerFailure) => (2, Vec::new()),
            None => (3, Vec::new()),
        };
        let mut answer = question[..2].to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1, 0]);
        answer.push(u8::try_from(records.len()).unwrap());
        answer.extend([0; 4]);
        answer.extend(&question[12..at + 5]);
        for record in records {
            let length = u8::try_from(record.len()).unwrap();
            // Pointer to the name in the question, type TXT, class IN, TTL 0.
            answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, length + 1, length]);
            answer.extend(record.as_bytes());
        }
        answer
    }

    struct Server(SocketAddr);

    impl Source for Server {
        fn stamp(&self) -> Stamp {
            [Some((SystemTime::UNIX_EPOCH, 1)), None]
        }

        fn read(&self) -> (ResolverConfig, ResolverOpts) {
            let mut server = NameServerConfig::udp(self.0.ip());
            server.connections[0].port = self.0.port();
            let mut options = ResolverOpts::default();
            options.attempts = 1;
            // Every lookup is a query.
            options.cache_size = 0;
            (ResolverConfig::from_name_servers(vec![server]), options)
        }
    }

    struct Rig {
        zones: Zones,
        list: AddressList,
    }

    impl Rig {
        async fn new() -> Self {
            let zones = Zones::default();
            let resolver = Resolver::new(Server(name_server(zones.clone()).await));
            let list = AddressList::new("/dnsaddr/all.example".parse().unwrap(), resolver);
            Self { zones, list }
        }

        fn set(&self, name: &str, zone: Option<Zone>) {
            let name = format!("_dnsaddr.{name}");
            let mut zones = self.zones.lock().unwrap();
            match zone {
                Some(zone) => zones.insert(name, zone),
                None => zones.remove(&name),
            };
        }

        fn records(&self, name: &str, addresses: &[&str]) {
            let records = addresses.iter().map(|one| format!("dnsaddr={one}"));
            self.set(name, Some(Zone::Records(records.collect())));
        }

        async fn resolve(&mut self) -> (Vec<String>, Option<AddressError>) {
            let resolved = self.list.resolve().await;
            let addresses = resolved.addresses.iter().map(ToString::to_string);
            (addresses.collect(), resolved.failure)
        }
    }

    const A: &str = "/ip4/192.0.2.1/tcp/1";
    const B: &str = "/ip4/192.0.2.2/tcp/1";
    const C: &str = "/dns4/c.example/tcp/1";

    #[tokio::test]
    async fn a_part_that_cannot_be_resolved_keeps_what_it_held() {
        let mut rig = Rig::new().await;
        rig.records("all.example", &[C, "/dnsaddr/asia.example", "junk"]);
        rig.records("asia.example", &[B, A]);
        let (addresses, failure) = rig.resolve().await;
        assert_eq!(addresses, [A, B, C]);
        assert!(failure.is_none(), "{failure:?}");

        rig.set("asia.example", Some(Zone::ServerFailure));
        let (addresses, failure) = rig.resolve().await;
        assert_eq!(addresses, [A, B, C]);
        assert!(
            matches!(failure, Some(AddressError::Resolve(_))),
            "{failure:?}"
        );
        rig.set("all.example", Some(Zone::ServerFailure));
        assert_eq!(rig.resolve().await.0, [A, B, C]);

        // A part that its owner removes is removed.
        rig.records("all.example", &[C, "/dnsaddr/asia.example"]);
        rig.set("asia.example", None);
        let (addresses, failure) = rig.resolve().await;
        assert_eq!(addresses, [C]);
        assert!(
            matches!(failure, Some(AddressError::NoSuchName)),
            "{failure:?}"
        );
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_bounded() {
        let mut rig = Rig::new().await;
        rig.records(
            "all.example",
            &["/dnsaddr/all.example", "/dnsaddr/one.example", A],
        );
        rig.records("one.example", &["/dnsaddr/two.example", B]);
        rig.records("two.example", &["/dnsaddr/three.example"]);
        rig.records("three.example", &["/dnsaddr/four.example", C]);
        rig.records("four.example", &["/ip4/192.0.2.9/tcp/1"]);
        let (addresses, failure) = rig.resolve().await;
        assert_eq!(addresses, [A, B, C]);
        assert!(failure.is_none(), "{failure:?}");

        let names: Vec<_> = (0..20)
            .map(|nth| format!("/dnsaddr/n{nth}.example"))
            .collect();
        rig.records(
            "all.example",
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        for outer in 0..20 {
            let names: Vec<_> = (0..20)
                .map(|nth| format!("/ip4/10.0.{outer}.{nth}/tcp/1"))
                .collect();
            let name = format!("n{outer}.example");
            rig.records(&name, &names.iter().map(String::as_str).collect::<Vec<_>>());
        }
        assert_eq!(rig.resolve().await.0.len(), MAX_LISTED);
    }
}
