//! Where an IP address reaches, by the IANA special-purpose registries.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Where packets to an IP address can go. Every address has exactly one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IpScope {
    /// No address: `0.0.0.0` (RFC 1122), `::` (RFC 4291). Listened on, never dialled.
    Unspecified,
    /// This host: `127.0.0.0/8` (RFC 1122), `::1` (RFC 4291).
    Loopback,
    /// This link: `169.254.0.0/16` (RFC 3927), `fe80::/10` (RFC 4291).
    LinkLocal,
    /// A private network: `10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16` (RFC 1918), carrier
    /// NAT `100.64.0.0/10` (RFC 6598), unique local `fc00::/7` (RFC 4193).
    Private,
    /// Set aside for examples and laboratories: documentation `192.0.2.0/24`, `198.51.100.0/24`,
    /// `203.0.113.0/24` (RFC 5737), `2001:db8::/32` (RFC 3849), `3fff::/20` (RFC 9637);
    /// benchmarking `198.18.0.0/15` (RFC 2544), `2001:2::/48` (RFC 5180).
    Testing,
    /// Many hosts at once: `224.0.0.0/4` (RFC 5771), `ff00::/8` (RFC 4291), and the broadcast
    /// address `255.255.255.255` (RFC 919).
    Multicast,
    /// Set aside for something that no peer listens on, or not handed out at all.
    Reserved,
    /// An address of the public internet.
    Global,
}

impl fmt::Display for IpScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Private => "private",
            Self::Testing => "testing",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::Global => "global",
        })
    }
}

/// Returns the scope of `ip`.
///
/// A mapped IPv6 address (`::ffff:0:0/96`, RFC 4291) has the scope of its IPv4
/// address, because packets are sent to that address. An address that needs a
/// translator (NAT64 `64:ff9b::/96`, RFC 6052; 6to4 `2002::/16`, RFC 3056) is
/// global if its IPv4 address is global, and otherwise reserved: these RFCs
/// forbid other addresses, which would lead into the translator's own network.
#[must_use]
pub const fn ip_scope(ip: IpAddr) -> IpScope {
    match ip {
        IpAddr::V4(ip) => v4_scope(ip),
        IpAddr::V6(ip) => v6_scope(ip),
    }
}

const fn v4_scope(ip: Ipv4Addr) -> IpScope {
    match ip.octets() {
        [0, 0, 0, 0] => IpScope::Unspecified,
        // "This network", RFC 791.
        [0, ..] => IpScope::Reserved,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => IpScope::Private,
        [127, ..] => IpScope::Loopback,
        [169, 254, ..] => IpScope::LinkLocal,
        // IETF protocol assignments, RFC 6890; the retired 6to4 relay anycast, RFC 7526.
        [192, 0, 0, _] | [192, 88, 99, _] => IpScope::Reserved,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18..=19, ..] => {
            IpScope::Testing
        }
        [224..=239, ..] | [255, 255, 255, 255] => IpScope::Multicast,
        // For future use, RFC 1112.
        [240..=255, ..] => IpScope::Reserved,
        _ => IpScope::Global,
    }
}

const fn v6_scope(ip: Ipv6Addr) -> IpScope {
    if let Some(v4) = ip.to_ipv4_mapped() {
        return v4_scope(v4);
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => IpScope::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => IpScope::Loopback,
        [0xfe80..=0xfebf, ..] => IpScope::LinkLocal,
        [0xfc00..=0xfdff, ..] => IpScope::Private,
        [0xff00..=0xffff, ..] => IpScope::Multicast,
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            translated_scope(high, low)
        }
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] | [0x2001, 2, 0, ..] => IpScope::Testing,
        // IETF protocol assignments, RFC 2928: Teredo, ORCHID, anycast services.
        [0x2001, 0..=0x01ff, ..] => IpScope::Reserved,
        // Global unicast as IANA hands it out, RFC 4291.
        [0x2000..=0x3fff, ..] => IpScope::Global,
        // Not handed out, or of local use by the network: discard (RFC 6666), local NAT64
        // (RFC 8215), segment routing (RFC 9602), site-local (retired by RFC 3879).
        _ => IpScope::Reserved,
    }
}

const fn translated_scope(high: u16, low: u16) -> IpScope {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    match v4_scope(Ipv4Addr::new(a, b, c, d)) {
        IpScope::Global => IpScope::Global,
        _ => IpScope::Reserved,
    }
}
