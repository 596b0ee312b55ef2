//! Who may use the API over TCP, and what is served without the token.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::{
    node::Node,
    support::{calnet, run},
};

#[test]
fn requests_over_tcp_need_the_token_and_an_allowed_host() {
    let node = Node::start(&["--api-host", "node.example"]);
    let file = node.data.join("control").join("token");
    let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let host = format!("Host: {}", node.api);
    let token = node.token();
    let right = format!("Authorization: Bearer {token}");
    let basic = format!("Authorization: Basic {token}");
    let longer = format!("{right}0");
    let shorter = &right[..right.len() - 1];
    let status = "GET /v1/status";
    for headers in [
        [host.as_str(), right.as_str()],
        ["Host: node.example:9429", &right],
        [&host, &format!("authorization: bearer {token}")],
    ] {
        assert_eq!(node.over_tcp(status, &headers).status, 200, "{headers:?}");
    }
    let wrong: [&[&str]; 6] = [
        &[&host],
        &[&host, "Authorization: Bearer"],
        &[&host, &basic],
        &[&host, &longer],
        &[&host, shorter],
        &[&host, &right, &right],
    ];
    for headers in wrong {
        // What the request is about is not revealed.
        for line in [status, "GET /nothing", "DELETE /v1/peers/nobody"] {
            let answer = node.over_tcp(line, headers);
            assert_eq!(answer.status, 401, "{line} {headers:?}: {answer:?}");
            assert!(
                answer
                    .head
                    .to_lowercase()
                    .contains("www-authenticate: bearer")
            );
            assert_eq!(answer.json()["code"], "refused");
            assert_eq!(answer.json()["fields"][0], "Authorization");
        }
    }
    let elsewhere = ["Origin: http://evil.example", "Origin: null"];
    for headers in [
        ["Host: evil.example", right.as_str(), "A: b"],
        [&host, &right, elsewhere[0]],
        [&host, &right, elsewhere[1]],
        [&host, &right, "Host: evil.example"],
    ] {
        let answer = node.over_tcp(status, &headers);
        assert_eq!(answer.status, 403, "{headers:?}: {answer:?}");
        assert_eq!(answer.json()["code"], "refused");
    }
    // Probes need no token, and no web page reads them.
    for probe in ["GET /healthz", "GET /readyz"] {
        assert_eq!(node.over_tcp(probe, &[&host]).status, 200, "{probe}");
        let refused = node.over_tcp(probe, &[&host, elsewhere[0]]);
        assert_eq!(refused.status, 403, "{probe}");
    }
    // The token is in no answer.
    for target in ["/v1/status", "/v1/config", "/v1/metrics"] {
        let body = String::from_utf8(node.get(target).body).unwrap();
        assert!(!body.contains(&token), "{target}");
    }
}

#[test]
fn the_api_over_tcp_needs_a_folder_and_a_token_for_its_owner_alone() {
    let ended = {
        let mut command = calnet();
        command.args(["run", "--api", "127.0.0.1:0"]);
        run(command)
    };
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--data"), "{}", ended.stderr);
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control");
    fs::create_dir(&control).unwrap();
    let token = control.join("token");
    for (content, mode, part) in [
        ("0123456789abcdef0123456789abcdef\n", 0o644, "644"),
        ("short\n", 0o600, "32 to 512"),
    ] {
        fs::write(&token, content).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = calnet();
        command.args(["run", "--api", "127.0.0.1:0", "--data"]);
        command.arg(folder.path());
        let ended = run(command);
        assert_eq!(ended.code, Some(6), "{}", ended.stderr);
        for part in [part, token.to_str().unwrap()] {
            assert!(ended.stderr.contains(part), "{}", ended.stderr);
        }
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fs::remove_file(&token).unwrap();
    let mut command = calnet();
    command.args(["run", "--api", &address, "--data"]);
    command.arg(folder.path());
    let ended = run(command);
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}

#[test]
fn the_page_is_served_without_the_token_and_with_a_policy() {
    let node = Node::start(&[]);
    let host = format!("Host: {}", node.api);
    let page = node.over_tcp("GET /", &[&host]);
    assert_eq!(page.status, 200, "{}", page.head);
    let head = page.head.to_lowercase();
    for part in [
        "content-type: text/html; charset=utf-8",
        "default-src 'none'",
        "script-src 'self';",
        "require-trusted-types-for 'script'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(part), "{part}: {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    let html = String::from_utf8(page.body).unwrap();
    let named = html.split('"').filter(|part| part.starts_with("/page/"));
    let named: Vec<_> = named.collect();
    assert!(named.len() >= 3, "{html}");
    for file in named {
        let answer = node.over_tcp(&format!("GET {file}"), &[&host]);
        assert_eq!(answer.status, 200, "{file}");
    }
    // A page of another name is not this one's.
    let rebound = node.over_tcp("GET /", &["Host: evil.example"]);
    assert_eq!(rebound.status, 403);
    // What the page asks for needs the token.
    assert_eq!(node.over_tcp("GET /v1/status", &[&host]).status, 401);
    // A proxy with TLS in front of the node keeps the host.
    let token = format!("Authorization: Bearer {}", node.token());
    let origin = format!("Origin: https://{}", node.api);
    let proxied = node.over_tcp("GET /v1/status", &[&host, &token, &origin]);
    assert_eq!(proxied.status, 200, "{}", proxied.head);
}
