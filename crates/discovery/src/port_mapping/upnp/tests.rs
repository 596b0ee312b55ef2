//! Routers on loopback: one that does what it should, and hosts that answer in its place.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::{TcpListener, TcpStream, UdpSocket as StdUdpSocket},
    thread::JoinHandle,
};

use igd_next::GetExternalIpError;

use super::*;

/// A deadline that exceeds the duration of every test on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

const DESCRIPTION: &str = r#"<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device>
  <serviceList><service>
    <serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
    <controlURL>/ctl/L3F</controlURL><SCPDURL>/L3F.xml</SCPDURL>
  </service></serviceList>
  <deviceList><device><deviceList><device><serviceList><service>
    <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
    <controlURL>/ctl/IPConn</controlURL><SCPDURL>/WANIPCn.xml</SCPDURL>
  </service></serviceList></device></deviceList></device></deviceList>
</device></root>"#;

const SCHEMA: &str = r#"<?xml version="1.0"?>
<scpd><actionList><action><name>AddPortMapping</name><argumentList>
  <argument><name>NewRemoteHost</name><direction>in</direction></argument>
  <argument><name>NewStrange</name><direction>in</direction></argument>
  <argument><name>NewReservedPort</name><direction>out</direction></argument>
  <argument><name>NewProtocol</name><direction>in</direction></argument>
</argumentList></action><action><name>Reboot</name></action></actionList></scpd>"#;

const EXTERNAL_IP: &str = r#"<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
<u:GetExternalIPAddressResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">
<NewExternalIPAddress>203.0.113.7</NewExternalIPAddress></u:GetExternalIPAddressResponse>
</s:Body></s:Envelope>"#;

/// Elements that are nested `depth` deep.
fn nested(depth: usize) -> String {
    "<a>".repeat(depth) + &"</a>".repeat(depth)
}

/// What a host sends in place of a body.
#[derive(Clone)]
enum Body {
    Text(String),
    /// Bytes without an end.
    Endless,
    /// The header and nothing more.
    Silence,
}

/// An HTTP server on loopback, which answers each request by its path.
fn serve(bodies: impl Fn(&str) -> Body + Send + 'static) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = v4(listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let path = path_of(&stream);
            answer(stream, &bodies(&path));
        }
    });
    address
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("{address}"),
    }
}

fn path_of(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let request = lines.next().unwrap();
    lines.find(String::is_empty).unwrap();
    request.split(' ').nth(1).unwrap().to_owned()
}

fn answer(mut stream: TcpStream, body: &Body) {
    // The client may leave early.
    let mut send = |bytes: &[u8]| stream.write_all(bytes).is_ok();
    let begin = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let _ = send(begin.as_bytes());
    match body {
        Body::Text(text) => drop(send(text.as_bytes())),
        Body::Endless => while send(&[b'<'; 64 << 10]) {},
        // Until the client closes.
        Body::Silence => drop(BufReader::new(stream).lines().next()),
    }
}

/// A router: its descriptions, and `soap` as the answer to requests.
fn router(soap: Body) -> SocketAddrV4 {
    serve(move |path| match path {
        "/root.xml" => Body::Text(DESCRIPTION.to_owned()),
        "/WANIPCn.xml" => Body::Text(SCHEMA.to_owned()),
        "/ctl/IPConn" => soap.clone(),
        other => panic!("{other}"),
    })
}

/// A host that answers a search with URLs, in this order.
fn responder(urls: Vec<String>) -> (SocketAddrV4, JoinHandle<()>) {
    let socket = StdUdpSocket::bind("127.0.0.1:0").unwrap();
    let address = v4(socket.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let mut request = [0; 512];
        let (len, from) = socket.recv_from(&mut request).unwrap();
        assert!(request[..len].starts_with(b"M-SEARCH * HTTP/1.1\r\n"));
        for url in urls {
            let answer = format!("HTTP/1.1 200 OK\r\nST: any\r\nLocation: {url}\r\n\r\n");
            socket.send_to(answer.as_bytes(), from).unwrap();
        }
    });
    (address, answering)
}

fn search(target: SocketAddrV4) -> Search {
    Search {
        local: Ipv4Addr::LOCALHOST,
        gateway: None,
        target,
        may_route: |ip| ip.is_loopback(),
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    let done = timeout(DEADLINE, future).await;
    done.expect("the test takes too long")
}

async fn described(body: Body) -> SearchError {
    let socket = serve(move |_| body.clone());
    let path = "/root.xml".to_owned();
    let found = within(describe(&Location { socket, path })).await;
    found.expect_err("no router")
}

#[tokio::test]
async fn a_router_is_found_and_asked() {
    let at = router(Body::Text(EXTERNAL_IP.to_owned()));
    let (target, answering) = responder(vec![format!("http://{at}/root.xml")]);
    let found = within(search(target).run()).await.expect("a router");
    answering.join().unwrap();
    assert_eq!(found.addr, SocketAddr::V4(at));
    assert_eq!(found.control_url, "/ctl/IPConn");
    let arguments = ["NewRemoteHost", "NewProtocol"].map(str::to_owned).to_vec();
    let schema = HashMap::from([("AddPortMapping".to_owned(), arguments)]);
    assert_eq!(found.control_schema, schema);
    let external = within(found.get_external_ip()).await.unwrap();
    assert_eq!(external.to_string(), "203.0.113.7");
}

#[tokio::test]
async fn urls_at_other_hosts_are_not_followed() {
    let at = router(Body::Text(EXTERNAL_IP.to_owned()));
    let other = TcpListener::bind("127.0.0.2:0").unwrap();
    let elsewhere = other.local_addr().unwrap();
    let urls = vec![
        format!("http://{elsewhere}/root.xml"),
        format!("http://127.0.0.1@{elsewhere}/root.xml"),
        format!("http://localhost:{}/root.xml", at.port()),
        format!("https://{at}/root.xml"),
        format!("http://{at}/root.xml"),
    ];
    let (target, answering) = responder(urls);
    let found = within(search(target).run()).await.expect("a router");
    answering.join().unwrap();
    assert_eq!(found.addr, SocketAddr::V4(at));
    other.set_nonblocking(true).unwrap();
    let connected = other.accept();
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn only_the_router_of_this_host_counts() {
    let answer = |ip: &str| format!("HTTP/1.1 200 OK\r\nLOCATION: http://{ip}:5000/a?b\r\n\r\n");
    let location = |gateway: Option<[u8; 4]>, ip: &str| {
        let gateway = gateway.map(Ipv4Addr::from);
        let search = Search::new([192, 168, 1, 9].into(), gateway);
        search.location(answer(ip).as_bytes(), ip.parse().unwrap())
    };
    let router = Some([192, 168, 1, 1]);
    let found = location(router, "192.168.1.1").unwrap();
    assert_eq!((found.socket.port(), &*found.path), (5000, "/a?b"));
    for (gateway, ip) in [
        (router, "192.168.1.2"),
        (None, "203.0.113.7"),
        (None, "127.0.0.1"),
        (None, "169.254.169.254"),
    ] {
        let error = location(gateway, ip).unwrap_err();
        assert!(
            matches!(error, SearchError::NotRouter { .. }),
            "{ip}: {error}"
        );
    }
    // Systems on which the gateway is not known.
    for ip in ["10.0.0.1", "100.64.0.1"] {
        location(None, ip).expect(ip);
    }
}

#[tokio::test]
async fn a_description_is_bounded() {
    let deepest = http::MAX_BODY / nested(1).len();
    let error = described(Body::Text(nested(deepest))).await;
    assert!(
        matches!(error, SearchError::Xml(xml::XmlError::TooDeep)),
        "{error}"
    );
    for body in [Body::Text(nested(1_000_000)), Body::Endless] {
        let error = described(body).await;
        assert!(
            matches!(error, SearchError::Http(HttpError::TooLong)),
            "{error}"
        );
    }
    let error = described(Body::Silence).await;
    assert!(
        matches!(error, SearchError::Http(HttpError::Timeout)),
        "{error}"
    );
    let entities = "<!DOCTYPE a [<!ENTITY b '<c><c><c>'>]><a>&b;</a>";
    let error = described(Body::Text(entities.to_owned())).await;
    assert!(
        matches!(error, SearchError::Xml(xml::XmlError::DocumentType)),
        "{error}"
    );
}

#[tokio::test]
async fn a_description_cannot_name_another_host() {
    for url in ["@127.0.0.2:80/", "http://127.0.0.2/", ".127.0.0.2/", ""] {
        let text = DESCRIPTION.replace("/ctl/IPConn", url);
        let error = described(Body::Text(text)).await;
        assert!(matches!(error, SearchError::Path), "{url}: {error}");
    }
}

#[tokio::test]
async fn an_answer_of_soap_is_bounded() {
    let deepest = http::MAX_BODY / nested(1).len();
    for body in [
        Body::Text(nested(deepest)),
        Body::Text(nested(1_000_000)),
        Body::Endless,
        Body::Silence,
    ] {
        let at = router(body);
        let path = "/root.xml".to_owned();
        let found = describe(&Location { socket: at, path }).await.unwrap();
        let error = within(found.get_external_ip()).await.unwrap_err();
        let GetExternalIpError::RequestError(error) = error else {
            panic!("{error}");
        };
        let is_bounded = matches!(
            error,
            RequestError::IoError(_) | RequestError::InvalidResponse(_)
        );
        assert!(is_bounded, "{error}");
    }
}

#[test]
fn elements_are_nested_up_to_a_bound() {
    xml::parse(&nested(xml::MAX_DEPTH)).unwrap();
    let error = xml::parse(&nested(xml::MAX_DEPTH + 1)).unwrap_err();
    assert!(matches!(error, xml::XmlError::TooDeep), "{error}");
    for broken in ["", "<a>", "<a></b>", "a", "<a b></a>"] {
        let error = xml::parse(broken).expect_err(broken);
        assert!(
            matches!(error, xml::XmlError::Syntax(_)),
            "{broken}: {error}"
        );
    }
}
