//! Changes of the addresses of listeners.

use std::future::poll_fn;

use super::*;

#[tokio::test]
async fn a_socket_bound_to_one_address_reports_it() {
    let mut interfaces = Interfaces::of(([127, 0, 0, 7], 1).into());
    let change = poll_fn(|cx| interfaces.poll(cx)).await;
    assert_eq!(change, Change::Up([127, 0, 0, 7].into()));
}

#[tokio::test]
async fn loopback_is_reported_if_interfaces_cannot_be_watched() {
    let mut interfaces = Interfaces::of((Ipv4Addr::UNSPECIFIED, 1).into());
    interfaces.current.clear();
    interfaces.changes.clear();
    interfaces.fall_back(&std::io::ErrorKind::PermissionDenied.into());
    let mut up = HashSet::new();
    for _ in 0..interfaces.changes.len() {
        match poll_fn(|cx| interfaces.poll(cx)).await {
            Change::Up(ip) => assert!(up.insert(ip)),
            Change::Down(ip) => panic!("{ip} was not up"),
        }
    }
    assert!(up.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{up:?}");
    // A second lookup with the same result changes nothing.
    interfaces.refresh();
    assert!(interfaces.changes.is_empty());
}

#[test]
fn an_address_whose_prefix_changes_stays_up() {
    let mut interfaces = Interfaces::of(([127, 0, 0, 7], 1).into());
    interfaces.changes.clear();
    let ip = IpAddr::from([192, 0, 2, 1]);
    let net = |prefix| IpNet::new(ip, prefix).unwrap();
    interfaces.up(net(24));
    assert_eq!(interfaces.changes.pop_front(), Some(Change::Up(ip)));
    // Linux reports the new prefix before the end of the old one.
    interfaces.up(net(22));
    interfaces.down(net(24));
    assert_eq!(interfaces.changes.pop_front(), None);
    // A network that was never reported, and one of the other IP version.
    interfaces.down(net(16));
    interfaces.up("2001:db8::1/64".parse().unwrap());
    assert_eq!(interfaces.changes.pop_front(), None);
    interfaces.down(net(22));
    assert_eq!(interfaces.changes.pop_front(), Some(Change::Down(ip)));
    interfaces.up(net(22));
    assert_eq!(interfaces.changes.pop_front(), Some(Change::Up(ip)));
}
