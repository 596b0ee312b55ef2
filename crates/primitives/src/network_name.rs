//! Names of networks, and the rendezvous namespace that all nodes of a network share.

use std::{fmt, str::FromStr};

use crate::topic::GLOBAL_RENDEZVOUS_NAMESPACE;

/// Longest name of a network, 63 bytes: a label of DNS (RFC 1035, section 2.3.4), so that a name can
/// be part of a host name.
pub const MAX_NETWORK_NAME_BYTES: usize = 63;

/// The name of the network that the published defaults belong to.
const PUBLISHED: &str = "calimero-devnet";

/// Prefix of the namespaces of all other names. No published node uses it.
const PREFIX: &str = "/calimero/net/";

/// The error for a text that is not the name of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseNetworkNameError {
    /// The text is empty or too long.
    #[error("a network name has 1 to {MAX_NETWORK_NAME_BYTES} characters, not {len}")]
    Length {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// The text has a character that names do not have, or a hyphen at an end.
    #[error(
        "a network name has lower-case letters, digits and hyphens, and no hyphen at its start or \
         end: character {at} is not allowed"
    )]
    Character {
        /// Position of the first such character, in bytes, from 1.
        at: usize,
    },
}

/// The name of a network: lower-case letters, digits and inner hyphens.
///
/// ```
/// use calimero_network_primitives::NetworkName;
///
/// let name: NetworkName = "office-7".parse()?;
/// assert_eq!(name.global_namespace(), "/calimero/net/office-7");
/// assert_eq!(NetworkName::published().global_namespace(), "/calimero/devnet/global");
/// # Ok::<(), calimero_network_primitives::ParseNetworkNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkName(Box<str>);

impl NetworkName {
    /// Returns `calimero-devnet`, the network of nodes that have the default namespace of published
    /// 0.11.
    #[must_use]
    pub fn published() -> Self {
        Self(PUBLISHED.into())
    }

    /// Makes a name from random bits. Of a million networks, two have the same name with a
    /// probability of 3 × 10⁻⁸.
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        Self(format!("net-{random:016x}").into())
    }

    /// Returns the rendezvous namespace that all nodes of the network share.
    #[must_use]
    pub fn global_namespace(&self) -> String {
        match &*self.0 {
            PUBLISHED => GLOBAL_RENDEZVOUS_NAMESPACE.to_owned(),
            name => format!("{PREFIX}{name}"),
        }
    }

    /// Returns the text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NetworkName {
    type Err = ParseNetworkNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let len = text.len();
        if !(1..=MAX_NETWORK_NAME_BYTES).contains(&len) {
            return Err(ParseNetworkNameError::Length { len });
        }
        let is_allowed = |at: usize, byte: u8| match byte {
            b'a'..=b'z' | b'0'..=b'9' => true,
            b'-' => at > 0 && at + 1 < len,
            _ => false,
        };
        match text
            .bytes()
            .enumerate()
            .find(|(at, byte)| !is_allowed(*at, *byte))
        {
            Some((at, _)) => Err(ParseNetworkNameError::Character { at: at + 1 }),
            None => Ok(Self(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_RENDEZVOUS_NAMESPACE_BYTES;

    #[test]
    fn names_are_checked() {
        let longest = "a".repeat(MAX_NETWORK_NAME_BYTES);
        for accepted in ["a", "office-7", "calimero-devnet", "0", &longest] {
            let name: NetworkName = accepted.parse().unwrap();
            assert_eq!(name.as_str(), accepted);
            let namespace = name.global_namespace();
            assert!(namespace.len() <= MAX_RENDEZVOUS_NAMESPACE_BYTES);
        }
        let length = |len| ParseNetworkNameError::Length { len };
        let character = |at| ParseNetworkNameError::Character { at };
        for (refused, error) in [
            ("", length(0)),
            (&"a".repeat(64), length(64)),
            ("Office", character(1)),
            ("-a", character(1)),
            ("a-", character(2)),
            ("a/b", character(2)),
            ("a b", character(2)),
            ("añ", character(2)),
        ] {
            assert_eq!(refused.parse::<NetworkName>(), Err(error), "{refused}");
        }
    }

    #[test]
    fn two_names_have_two_namespaces() {
        let names = ["devnet", "calimero-devnet", "global", "ctx"];
        let mut namespaces: Vec<_> = names
            .iter()
            .map(|name| name.parse::<NetworkName>().unwrap().global_namespace())
            .collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        assert_eq!(namespaces.len(), names.len());
        let made = NetworkName::from_random(u64::MAX);
        assert_eq!(made.as_str().parse(), Ok(made));
    }
}
