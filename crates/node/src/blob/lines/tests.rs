use super::*;

#[test]
fn a_blob_of_which_nothing_was_received_names_no_provider() {
    let fetched = |received_bytes, providers| Line::Fetched {
        id: "ID".to_owned(),
        size_bytes: 7,
        resumed_bytes: 0,
        received_bytes,
        providers,
        name: None,
    };
    let text = fetched(0, Vec::new()).to_string();
    assert_eq!(text, "ID  7 bytes, complete already");
    let text = fetched(7, vec!["PEER".to_owned()]).to_string();
    assert!(text.ends_with("7 received from PEER"), "{text}");
}
