//! DNS lookups with the system configuration, which is reloaded when it
//! changes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
    system_conf,
};
use multiaddr::Multiaddr;

use crate::AddressError;

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
    /// `true` if the last lookup had no response.
    failed: bool,
}

/// Source of the resolver configuration.
pub(super) trait Source: Send + Sync + 'static {
    /// Returns a value that changes whenever [`read`](Self::read) may return a
    /// different result.
    fn stamp(&self) -> Stamp;

    fn read(&self) -> (ResolverConfig, ResolverOpts);
}

/// Modification time and length of each file; `None` if the file is missing.
pub(super) type Stamp = [Option<(SystemTime, u64)>; 2];

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
        [&self.resolver, &self.hosts].map(|path| stamp_of(path))
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

fn stamp_of(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
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

    /// Resolves the addresses of `name` that `wanted` accepts.
    pub(super) async fn ips(
        &self,
        name: &str,
        wanted: fn(&IpAddr) -> bool,
    ) -> Result<Vec<IpAddr>, AddressError> {
        let found = self.current()?.lookup_ip(name).await;
        let found = self.answered(found)?;
        let ips: Vec<_> = found.iter().filter(wanted).collect();
        if ips.is_empty() {
            return Err(AddressError::NoSuchName);
        }
        Ok(ips)
    }

    /// Resolves the TXT records of a `/dnsaddr` name. Records in another format
    /// are skipped.
    pub(super) async fn records(&self, name: &str) -> Result<Vec<Multiaddr>, AddressError> {
        let name = [DNSADDR_PREFIX, name].concat();
        let found = self.current()?.txt_lookup(name).await;
        let found = self.answered(found)?;
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
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()?;
        state.current = Some((stamp, resolver.clone()));
        Ok(resolver)
    }

    /// Records whether the lookup had a response. A negative response counts as
    /// one.
    fn answered<T>(&self, result: Result<T, NetError>) -> Result<T, AddressError> {
        let no_answer = result
            .as_ref()
            .is_err_and(|error| !error.is_no_records_found());
        if no_answer {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.failed = true;
        }
        Ok(result?)
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
