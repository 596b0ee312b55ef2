//! A collector that decodes what it receives. Its messages have the fields that the test reads, with
//! the numbers of opentelemetry-proto 1.x.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<WireSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct WireSpan {
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    start_ns: u64,
    #[prost(fixed64, tag = "8")]
    end_ns: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Integer(i64),
}

/// A span as it arrived, with its attributes as text.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// A request that was received.
pub(crate) struct Received {
    /// The request line and the header fields.
    pub(crate) request: String,
    pub(crate) spans: Vec<Span>,
    /// The attribute `service.name` of the resource.
    pub(crate) service: String,
}

/// Requests that the test may leave unread, far more than a node sends in its time.
const MAX_REQUESTS: usize = 1024;

/// A collector on loopback.
pub(crate) struct Collector {
    listener: TcpListener,
}

impl Collector {
    /// A collector that answers each request with `status`.
    pub(crate) fn start(status: u16) -> (Self, Receiver<Received>) {
        let (collector, received) = Self::listen();
        let (listener, (sender, receiver)) = (collector.listener.try_clone().unwrap(), received);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serve(&stream.unwrap(), status, &sender).is_none() {
                    break;
                }
            }
        });
        (collector, receiver)
    }

    /// A collector that reads no request: the kernel accepts connections.
    pub(crate) fn stalled() -> (Self, Receiver<Received>) {
        let (collector, (_, receiver)) = Self::listen();
        (collector, receiver)
    }

    fn listen() -> (Self, (SyncSender<Received>, Receiver<Received>)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (Self { listener }, sync_channel(MAX_REQUESTS))
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}

/// Receives one request. `None` if the test has ended.
fn serve(mut stream: &TcpStream, status: u16, received: &SyncSender<Received>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut request).unwrap(), 0, "{request}");
    }
    let length = request.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut message = Received {
        request,
        spans: Vec::new(),
        service: String::new(),
    };
    for of_resource in ExportRequest::decode(body.as_slice())
        .unwrap()
        .resource_spans
    {
        let resource = texts(of_resource.resource.unwrap().attributes);
        message.service.clone_from(&resource["service.name"]);
        let spans = of_resource.scope_spans.into_iter();
        message
            .spans
            .extend(spans.flat_map(|scope| scope.spans).map(|span| Span {
                name: span.name,
                start_ns: span.start_ns,
                end_ns: span.end_ns,
                attributes: texts(span.attributes),
            }));
    }
    // Before the answer, after which the sender may end.
    received.send(message).ok()?;
    let answer = format!("HTTP/1.1 {status} answer\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).ok()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::Text(text)) => text,
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Integer(value)) => value.to_string(),
        None => String::new(),
    };
    let pairs = attributes.into_iter();
    pairs.map(|pair| (pair.key, text(pair.value))).collect()
}
