//! Parameters of requests. What is wrong with them is an answer with the name of the parameter.

use std::{fmt::Display, str::FromStr};

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::answer::Refusal;

/// The parameter of a path, parsed.
pub(super) struct Segment<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Segment<T>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let parameters = parameters
            .map_err(|error| Refusal::of_parameter("path", format!("the path: {error}")))?;
        let Some((name, text)) = parameters.iter().next() else {
            return Err(Refusal::of_parameter(
                "path",
                "the path names nothing".to_owned(),
            ));
        };
        match text.parse() {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(Refusal::of_parameter(
                name,
                format!("{name} {text}: {error}"),
            )),
        }
    }
}

/// The parameters after `?`, deserialized. A parameter may be repeated where its field is a list.
pub(super) struct Query<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Refusal> {
    // The parser replaces what is not UTF-8, so that another topic than the client's would be meant.
    if percent_encoding::percent_decode_str(query)
        .decode_utf8()
        .is_err()
    {
        let message = "the parameters are not UTF-8 in percent-encoding".to_owned();
        return Err(Refusal::of_parameter("query", message));
    }
    let parser = serde_html_form::Deserializer::from_bytes(query.as_bytes());
    serde_path_to_error::deserialize(parser).map_err(
        |error: serde_path_to_error::Error<serde_html_form::de::Error>| {
            let path = error.path().to_string();
            match path.as_str() {
                "." => Refusal::of_parameter("query", error.into_inner().to_string()),
                _ => {
                    let name = path.split(['.', '[']).next().unwrap_or_default().to_owned();
                    let message = format!("{name}: {}", error.into_inner());
                    Refusal::of_parameter(&name, message)
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use calimero_network::{Multiaddr, Topic};
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        #[serde(default)]
        topic: Vec<String>,
        #[serde(default, rename = "dial")]
        _dial: Vec<Multiaddr>,
        #[serde(rename = "name")]
        _name: Option<Topic>,
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        let cases = [
            ("topic=a&topic=b&name=c", None),
            ("", None),
            ("dial=nothing", Some("dial")),
            ("dial=/ip4/127.0.0.1/tcp/1&dial=nothing", Some("dial")),
            ("other=1", Some("other")),
            ("topic=%ff", Some("query")),
            ("name=a&name=b", Some("name")),
        ];
        for (query, field) in cases {
            let parsed: Result<Parameters, _> = parse(query);
            let refused = parsed.err().map(|refusal| format!("{refusal:?}"));
            match field {
                None => assert!(refused.is_none(), "{query}: {refused:?}"),
                Some(field) => {
                    let fields = format!("fields: [{field:?}]");
                    assert!(
                        refused.as_ref().is_some_and(|text| text.contains(&fields)),
                        "{query}: {refused:?}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(query in ".*") {
            let _ = parse::<Parameters>(&query);
        }

        #[test]
        fn any_value_arrives(values in prop::collection::vec(".*", 0..4)) {
            let query = values.iter().fold(super::super::Query::to("/path"), |query, value| {
                query.with("topic", value)
            });
            let target = query.build();
            let query = target.split_once('?').map_or("", |(_, query)| query);
            let read: Parameters = parse(query).unwrap();
            prop_assert_eq!(read.topic, values);
        }
    }
}
