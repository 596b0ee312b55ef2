//! DNS lookups with the system configuration, which is reloaded when it
//! changes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, RecordType},
    system_conf,
};
use multiaddr::Multiaddr;

use crate::{AddressError, stamp};

/// Path of the name server configuration.
const RESOLVER_CONFIG: &str = "/etc/resolv.conf";

/// Path of the local table of host names.
const HOSTS: &str = "/etc/hosts";

/// Longest time for which a negative response is cached, 10 s. A zone may
/// request hours. A node that starts shortly before its name is published would
/// then not resolve it for that time.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// Prefix of the TXT records of a `/dnsaddr` name.
const DNSADDR_PREFIX: &str = "_dnsaddr.";

/// Resolves names with the name servers of the system.
///
/// Before each lookup it checks the configuration files. It reloads them if
/// they changed or if the previous lookup had no response. A missing, empty or
/// invalid file is not an error: the resolver then uses a name server on the
/// loopback address, as the C library does.
pub(crate) struct Resolver {
    source: Box<dyn Source>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<(Stamp, TokioResolver)>,
    /// `true` if the last lookup had no response, and no other one had a response since its start.
    /// Some servers never respond to lookups of IPv6 addresses.
    failed: bool,
    /// Time of the last response.
    responded: Option<Instant>,
}

/// IP version of the addresses to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Four,
    Six,
}

/// Source of the resolver configuration.
pub(super) trait Source: Send + Sync + 'static {
    /// Returns a value that changes whenever [`read`](Self::read) may return a
    /// different result.
    fn stamp(&self) -> Stamp;

    fn read(&self) -> (ResolverConfig, ResolverOpts);
}

/// The stamp of each file.
pub(super) type Stamp = [stamp::Stamp; 2];

/// The configuration files of the system.
pub(super) struct Files {
    resolver: PathBuf,
    hosts: PathBuf,
}

impl Files {
    pub(super) fn new(resolver: impl Into<PathBuf>, hosts: impl Into<PathBuf>) -> Self {
        Self {
            resolver: resolver.into(),
            hosts: hosts.into(),
        }
    }
}

impl Source for Files {
    fn stamp(&self) -> Stamp {
        [&self.resolver, &self.hosts].map(|path| stamp::stamp_of(path))
    }

    fn read(&self) -> (ResolverConfig, ResolverOpts) {
        read(&self.resolver).unwrap_or_else(|error| {
            let path = self.resolver.display();
            tracing::warn!(%path, error, "no usable name server; using 127.0.0.1");
            let server = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            let config = ResolverConfig::from_name_servers(vec![server]);
            (config, ResolverOpts::default())
        })
    }
}

#[cfg(unix)]
fn read(path: &Path) -> Result<(ResolverConfig, ResolverOpts), String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    system_conf::parse_resolv_conf(text).map_err(|error| error.to_string())
}

#[cfg(not(unix))]
fn read(_: &Path) -> Result<(ResolverConfig, ResolverOpts), String> {
    system_conf::read_system_conf().map_err(|error| error.to_string())
}

impl Resolver {
    /// Creates a resolver with the system configuration. It reads no file
    /// before the first lookup.
    pub(crate) fn system() -> Self {
        Self::new(Files::new(RESOLVER_CONFIG, HOSTS))
    }

    pub(super) fn new(source: impl Source) -> Self {
        Self {
            source: Box::new(source),
            state: Mutex::default(),
        }
    }

    /// Resolves the addresses of `name` of one IP version. The name server is asked for those
    /// alone.
    pub(super) async fn ips(
        &self,
        name: &str,
        version: Version,
    ) -> Result<Vec<IpAddr>, AddressError> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            let wanted = ip.is_ipv4() == (version == Version::Four);
            return wanted.then(|| vec![ip]).ok_or(AddressError::NoSuchName);
        }
        let records = match version {
            Version::Four => RecordType::A,
            Version::Six => RecordType::AAAA,
        };
        let found = self.look_up(name, records).await?;
        let found = found.answers().iter();
        let ips: Vec<_> = found.filter_map(|record| record.data.ip_addr()).collect();
        if ips.is_empty() {
            return Err(AddressError::NoSuchName);
        }
        Ok(ips)
    }

    /// Resolves the TXT records of a `/dnsaddr` name. Records in another format
    /// are skipped.
    pub(super) async fn records(&self, name: &str) -> Result<Vec<Multiaddr>, AddressError> {
        let name = [DNSADDR_PREFIX, name].concat();
        let found = self.look_up(&name, RecordType::TXT).await?;
        let texts = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::TXT(text) => text.txt_data.first(),
                _ => None,
            });
        Ok(texts.filter_map(|text| parse_record(text)).collect())
    }

    fn current(&self) -> Result<TokioResolver, AddressError> {
        let stamp = self.source.stamp();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = std::mem::take(&mut state.failed);
        if let Some((read, resolver)) = &state.current
            && *read == stamp
            && !failed
        {
            return Ok(resolver.clone());
        }
        let (config, mut options) = self.source.read();
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()?;
        state.current = Some((stamp, resolver.clone()));
        Ok(resolver)
    }

    /// Looks up one type of records, and notes whether there was a response. A negative response
    /// counts as one.
    async fn look_up(&self, name: &str, records: RecordType) -> Result<Lookup, AddressError> {
        let resolver = self.current()?;
        let started = Instant::now();
        let found = resolver.lookup(name, records).await;
        let silent = found.as_ref().is_err_and(|e| !e.is_no_records_found());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !silent {
            state.responded = Some(Instant::now());
        } else if state.responded.is_none_or(|at| at < started) {
            state.failed = true;
        }
        drop(state);
        Ok(found?)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// Parses a TXT record of the form `dnsaddr=<address>`.
fn parse_record(text: &[u8]) -> Option<Multiaddr> {
    let text = std::str::from_utf8(text).ok()?;
    text.strip_prefix("dnsaddr=")?.parse().ok()
}
