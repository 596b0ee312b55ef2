use axum::body::Body;

use super::*;

#[test]
fn a_refusal_names_the_hosts_that_are_accepted() {
    let request = Request::builder()
        .header("Host", "evil.example")
        .body(Body::empty())
        .unwrap();
    let hosts = AllowedHosts::default();
    for (access, part) in [
        (Access::Owner, "localhost and IP addresses are"),
        (Access::Watch { hosts }, "names of --metrics-host are"),
    ] {
        let refusal = format!("{:?}", access.allows(&request).unwrap_err());
        assert!(refusal.contains(part), "{refusal}");
    }
}
