//! The target of a request: its path and parameters, percent-encoded (RFC 3986).

use std::fmt::{self, Write as _};

use crate::error::CommandError;

/// Builder of a request target.
#[derive(Debug)]
pub(crate) struct Query(String);

impl Query {
    /// The target `path` without parameters, which needs no encoding.
    pub(crate) fn to(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// Adds a parameter with percent-encoding.
    pub(crate) fn with(mut self, key: &str, value: &impl fmt::Display) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(key);
        self.0.push('=');
        for byte in value.to_string().bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    self.0.push(char::from(byte));
                }
                // Writing to a string does not fail.
                _ => drop(write!(self.0, "%{byte:02X}")),
            }
        }
        self
    }

    /// Returns the encoded target.
    pub(crate) fn build(self) -> String {
        self.0
    }
}

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, CommandError> {
        let parts = query.unwrap_or_default().split('&');
        let parsed = parts.filter(|part| !part.is_empty()).map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(key)?, decode(value)?))
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// All values of a parameter, each parsed.
    pub(super) fn all<T>(&self, key: &str) -> Result<Vec<T>, CommandError>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        let values = self.0.iter().filter(|(name, _)| name == key);
        values
            .map(|(_, value)| parse(key, value))
            .collect::<Result<_, _>>()
    }

    /// The last value of a parameter, parsed.
    pub(super) fn last<T>(&self, key: &str) -> Result<Option<T>, CommandError>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        Ok(self.all(key)?.pop())
    }

    /// The value of a parameter that must be there.
    pub(super) fn required<T>(&self, key: &str) -> Result<T, CommandError>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        let value = self.last(key)?;
        value.ok_or_else(|| CommandError::Usage(format!("the parameter {key} is missing")))
    }
}

/// Parses a value, and names it in the error.
pub(super) fn parse<T>(what: &str, value: &str) -> Result<T, CommandError>
where
    T: std::str::FromStr<Err: fmt::Display>,
{
    let parsed = value.parse();
    parsed.map_err(|error| CommandError::Usage(format!("{what} {value}: {error}")))
}

fn decode(text: &str) -> Result<String, CommandError> {
    let wrong = || CommandError::Usage(format!("a parameter is not percent-encoded: {text}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = tail.get(..2).ok_or_else(wrong)?;
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).map_err(|_| wrong())?;
                bytes.extend(byte);
                rest = &tail[2..];
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_value_comes_back(values in prop::collection::vec(".*", 0..4)) {
            let query = values.iter().fold(Query::to("/path"), |query, value| {
                query.with("topic", value)
            });
            let target = query.build();
            let query = target.split_once('?').map(|(_, query)| query);
            let read: Vec<String> = Parameters::parse(query).unwrap().all("topic").unwrap();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn any_query_is_read_or_refused(query in ".*") {
            let _ = Parameters::parse(Some(&query));
        }
    }
}
