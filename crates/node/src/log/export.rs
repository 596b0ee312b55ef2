//! The export of spans to a collector of OpenTelemetry, by OTLP over HTTP with protobuf.
//!
//! A span that ends is put into a bounded queue, which a thread of the SDK sends in batches. A span that
//! finds the queue full is dropped, and so is a batch that the collector does not take in time: the
//! node never waits for the collector.
//!
//! The HTTP client is hyper, which the API uses, on a runtime of its own: the thread of the SDK is none
//! of tokio's. It does not speak TLS; a collector on the same host forwards spans over the network.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, Uri,
    client::conn::http1,
    header::{HOST, HeaderValue},
    http::uri::{InvalidUri, PathAndQuery},
};
use hyper_util::rt::TokioIo;
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig as _,
    WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfig, BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};
use tracing::{Level, Metadata};
use tracing_subscriber::{filter::filter_fn, layer::Layer, registry::LookupSpan};

use crate::{
    cli::NodeArgs,
    environment::{self, Ignored},
    error::CommandError,
};

/// The variable with the endpoint, as the specification of OpenTelemetry names it.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The variable with the name under which a collector shows the spans of this node.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// The variable with attributes of all spans, the name of the service among them.
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The variable with the number of spans that wait to be sent, and its default in the
/// specification. The SDK allocates the queue when it starts.
const QUEUE: (&str, u64) = ("OTEL_BSP_MAX_QUEUE_SIZE", 2048);

/// The variable with the number of spans of a batch, and its default in the specification.
const BATCH: (&str, u64) = ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512);

/// The variable with the milliseconds between two batches, and its default in the specification.
const DELAY: (&str, u64) = ("OTEL_BSP_SCHEDULE_DELAY", 5000);

/// Most spans that wait to be sent: 32 times the default (guess).
const MAX_QUEUE: u64 = 1 << 16;

/// Most milliseconds between two batches: a day (guess). At zero the SDK would never pause.
const MAX_DELAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Variables of which this exporter supports one value.
const FIXED: [(&str, &str); 2] = [
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
];

/// Path of spans below an endpoint (OTLP specification, "OTLP/HTTP Request").
const TRACES: &str = "v1/traces";

/// Time for one batch: 10 s, the default of the specification.
const EXPORT_TIME: Duration = Duration::from_secs(10);

/// Time for the last batches when the node ends, 2 s.
const END_TIME: Duration = Duration::from_secs(2);

/// Bytes of an answer that are read. A collector answers a few bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Time between two warnings that spans are not exported, 10 min.
const WARN_INTERVAL: Duration = Duration::from_secs(600);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error("`{text}` is no URL: {source}")]
    Url { text: String, source: InvalidUri },
    #[error("`{text}` is no `http://HOST:PORT`; TLS is left to a collector on this host")]
    Scheme { text: String },
    #[error(
        "the URL has a user name or a query; credentials belong into OTEL_EXPORTER_OTLP_HEADERS"
    )]
    Credentials,
    #[error(transparent)]
    Build(#[from] ExporterBuildError),
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
}

/// Exports spans.
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Creates the exporter to the endpoint of the command line or else of the environment, of a
    /// command that runs a node. `None` if there is no endpoint, or if that of the environment
    /// cannot be used.
    ///
    /// # Errors
    ///
    /// [`ExportError`] if the endpoint of the command line cannot be used. The collector is not
    /// contacted.
    pub(crate) fn open(
        args: Option<&NodeArgs>,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Option<Self>, CommandError> {
        let Some(args) = args else {
            return Ok(None);
        };
        if let Some(endpoint) = &args.otlp_endpoint {
            return Ok(Some(Self::to(endpoint, ignored)?));
        }
        let variable = environment::text(ENDPOINT).and_then(|endpoint| {
            let exporter = endpoint.map(|endpoint| Self::to(&endpoint, ignored));
            let exporter = exporter.transpose();
            exporter.map_err(|error| {
                Ignored::new(ENDPOINT, format_args!("no spans are exported: {error}"))
            })
        });
        Ok(environment::used(variable, ignored))
    }

    fn to(endpoint: &str, ignored: &mut Vec<Ignored>) -> Result<Self, ExportError> {
        let url = traces_url(endpoint)?;
        let client = Client::new(url.clone())?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(url.to_string())
            .with_protocol(Protocol::HttpBinary)
            // The client has this deadline.
            .with_timeout(EXPORT_TIME)
            // A batch that fails is dropped, so that it does not delay the next ones.
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        // The builder reads the variables, and what is set here replaces them.
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let [name, attributes] = [SERVICE_NAME, RESOURCE_ATTRIBUTES]
            .map(|variable| environment::used(environment::text(variable), ignored));
        if !names_service(name, attributes) {
            resource = resource.with_service_name("calnet");
        }
        for (variable, supported) in FIXED {
            ignored.extend(unsupported(variable, supported).err());
        }
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches(ignored));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_span_processor(processor.build());
        Ok(Self(provider.build()))
    }

    /// Returns the layer that exports the spans of the crates of this workspace at the levels `INFO`
    /// and above. Spans of libraries, such as one for each poll of a connection, are not exported.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("calnet"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(is_exported).with_max_level_hint(Level::INFO))
    }

    /// Sends the spans that are queued, within [`END_TIME`].
    pub(super) fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(END_TIME) {
            tracing::warn!(%error, "the last spans may be lost: the collector does not take them");
        }
    }
}

fn is_exported(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    metadata.is_span() && (target.starts_with("calimero_network") || target.starts_with("calnet"))
}

/// Returns `true` if the environment names the service.
fn names_service(name: Option<String>, attributes: Option<String>) -> bool {
    let attributes = attributes.unwrap_or_default();
    let mut keys = attributes
        .split(',')
        .filter_map(|pair| pair.split_once('='));
    name.is_some() || keys.any(|(key, _)| key.trim() == "service.name")
}

/// Returns the size and the time of batches, from the environment. The SDK reads the same
/// variables, and panics, or never pauses, at some values.
fn batches(ignored: &mut Vec<Ignored>) -> BatchConfig {
    let mut number = |(variable, default): (&'static str, u64), most: u64| {
        let given = environment::number(variable, 1..=most);
        environment::used(given, ignored).unwrap_or(default)
    };
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    BatchConfigBuilder::default()
        .with_max_queue_size(count(number(QUEUE, MAX_QUEUE)))
        .with_max_export_batch_size(count(number(BATCH, MAX_QUEUE)))
        .with_scheduled_delay(Duration::from_millis(number(DELAY, MAX_DELAY_MS)))
        .build()
}

/// Refuses a value of a variable that differs from the only one that is supported.
fn unsupported(variable: &'static str, supported: &str) -> Result<(), Ignored> {
    match environment::text(variable)? {
        Some(value) if value != supported => {
            let reason = format!("{value:?} is not supported, {supported:?} is used");
            Err(Ignored::new(variable, reason))
        }
        _ => Ok(()),
    }
}

/// Returns the URL of spans at `endpoint`.
fn traces_url(endpoint: &str) -> Result<Uri, ExportError> {
    let text = || endpoint.to_owned();
    // A user name is not repeated in the message.
    let uri: Uri = match endpoint.parse() {
        Ok(uri) => uri,
        Err(_) if endpoint.contains('@') => return Err(ExportError::Credentials),
        Err(source) => {
            return Err(ExportError::Url {
                text: text(),
                source,
            });
        }
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') || uri.query().is_some() {
        return Err(ExportError::Credentials);
    }
    if uri.scheme_str() != Some("http") || authority.is_empty() {
        return Err(ExportError::Scheme { text: text() });
    }
    let url = format!(
        "http://{authority}{}/{TRACES}",
        uri.path().trim_end_matches('/')
    );
    url.parse().map_err(|source| ExportError::Url {
        text: text(),
        source,
    })
}

/// An HTTP client for the thread of the SDK, with one connection for each request.
struct Client {
    url: Uri,
    runtime: Runtime,
    /// When the last warning was written.
    warned: Mutex<Option<Instant>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Client {
    fn new(url: Uri) -> Result<Self, ExportError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build();
        Ok(Self {
            url,
            runtime: runtime.map_err(ExportError::Runtime)?,
            warned: Mutex::default(),
        })
    }

    async fn exchange(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let host = self.url.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((address, port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender, or with the runtime.
        tokio::spawn(connection);
        if let Some(authority) = self.url.authority() {
            let host = HeaderValue::from_str(authority.as_str())?;
            request.headers_mut().insert(HOST, host);
        }
        let path = self.url.path_and_query().map_or("/", PathAndQuery::as_str);
        *request.uri_mut() = path.parse()?;
        let response = sender.send_request(request.map(Full::new)).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async { timeout(EXPORT_TIME, self.exchange(request)).await };
        let answer = match self.runtime.block_on(exchange) {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {EXPORT_TIME:?}").into()),
        };
        match &answer {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => self.warn(&format_args!("the collector answers {}", answer.status())),
            Err(error) => self.warn(error),
        }
        answer
    }

    fn warn(&self, error: &dyn fmt::Display) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|at| at.elapsed() < WARN_INTERVAL) {
            return;
        }
        *warned = Some(Instant::now());
        tracing::warn!(endpoint = %self.url, %error, "spans are dropped: they cannot be exported");
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        // The thread of the SDK sends one batch after the other and does nothing else.
        Box::pin(async move { self.send(request) })
    }
}

#[cfg(test)]
mod tests;
