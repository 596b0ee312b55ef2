//! Metrics as OpenMetrics or in the text format of Prometheus.

use axum::{
    http::{
        HeaderMap, HeaderValue,
        header::{ACCEPT, VARY},
    },
    response::Response,
};
use calimero_network::MetricsFormat;

use super::{
    State,
    answer::{self, Refusal},
};

/// Metrics of the node, as OpenMetrics or, if `Accept` prefers it, as Prometheus text.
#[utoipa::path(
    get,
    path = "/v1/metrics",
    tag = "metrics",
    responses((status = 200, description = "The metrics.", content(
        (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (String = "text/plain; version=0.0.4; charset=utf-8"),
    ))),
)]
pub(super) async fn metrics(state: State, headers: HeaderMap) -> Result<Response, Refusal> {
    let format = match prefers_text(&headers) {
        true => MetricsFormat::Prometheus,
        false => MetricsFormat::OpenMetrics,
    };
    let text = state.client.metrics_in(format).await?;
    let kind = HeaderValue::from_static(format.content_type());
    let mut response = answer::of_type(kind, text);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// As `/v1/metrics`, also at `--metrics ADDR`.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "metrics",
    responses((status = 200, description = "The metrics.", content(
        (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (String = "text/plain; version=0.0.4; charset=utf-8"),
    ))),
)]
pub(super) async fn scraped(state: State, headers: HeaderMap) -> Result<Response, Refusal> {
    metrics(state, headers).await
}

/// Returns `true` if `Accept` (RFC 9110) gives `text/plain` a higher weight than OpenMetrics.
fn prefers_text(headers: &HeaderMap) -> bool {
    let accept: Vec<_> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(weighted)
        .collect();
    // The most specific range that matches counts.
    let weight = |ranges: [&str; 3]| {
        let of = |range: &str| {
            let named = accept
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(range));
            named.map(|(_, weight)| *weight).reduce(f32::max)
        };
        ranges.into_iter().find_map(of).unwrap_or(0.0)
    };
    let openmetrics = weight(["application/openmetrics-text", "application/*", "*/*"]);
    let text = weight(["text/plain", "text/*", "*/*"]);
    text > openmetrics
}

/// A media range and its weight, 0 to 1.
fn weighted(range: &str) -> Option<(&str, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?;
    let weight = parts.find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.eq_ignore_ascii_case("q").then(|| value.parse().ok())?
    });
    Some((name, weight.unwrap_or(1.0f32).clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_the_default_and_text_is_for_those_who_prefer_it() {
        let cases = [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain"), true),
            (Some("text/plain;version=0.0.4"), true),
            (Some("application/openmetrics-text"), false),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,\
                     text/plain;version=0.0.4;q=0.4,*/*;q=0.3",
                ),
                false,
            ),
            (
                Some("text/plain;q=0.9, application/openmetrics-text;q=0.1"),
                true,
            ),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), false),
            (Some("text/plain;q=0"), false),
            (Some("text/plain;q=wrong,;,"), true),
        ];
        for (accept, is_text) in cases {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(prefers_text(&headers), is_text, "{accept:?}");
        }
    }
}
