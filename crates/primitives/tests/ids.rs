//! Identifiers: one text each, and errors that say what is wrong and where.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use calimero_network_primitives::{
    BlobId, ContextId, GroupId, NamespaceId, ParseIdError, TextEncoding,
};
use proptest::prelude::*;

#[test]
fn text_forms_are_base58_and_hex() {
    let bytes = [0x11; 32];
    let (base58, hex) = (
        "29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2",
        "11".repeat(32),
    );
    assert_eq!(ContextId::new(bytes).to_string(), base58);
    assert_eq!(BlobId::new(bytes).to_string(), base58);
    assert_eq!(GroupId::new(bytes).to_string(), hex);
    assert_eq!(NamespaceId::new(bytes).to_string(), hex);
    assert_eq!(
        format!("{:?}", ContextId::new(bytes)),
        format!("ContextId({base58})")
    );
    assert_eq!(
        format!("{:?}", GroupId::new(bytes)),
        format!("GroupId({hex})")
    );
    assert_eq!(
        format!("{:>46}", ContextId::new(bytes)),
        format!("  {base58}")
    );
}

#[test]
fn extremes_have_a_text() {
    let zero = ContextId::new([0; 32]);
    assert_eq!(zero.to_string(), "1".repeat(32));
    assert_eq!(zero.to_string().parse(), Ok(zero));
    let full = ContextId::new([0xff; 32]);
    assert_eq!(full.to_string().len(), 44);
    assert_eq!(full.to_string().parse(), Ok(full));
}

#[test]
fn wrong_lengths_are_named_with_their_limits() {
    let refused = |text: &str| text.parse::<ContextId>().unwrap_err();
    for len in [0, 1, 31, 45, 1 << 20] {
        assert_eq!(
            refused(&"1".repeat(len)),
            ParseIdError::TextLength {
                encoding: TextEncoding::Base58,
                len,
                min: 32,
                max: 44
            }
        );
    }
    for len in [0, 63, 65, 1 << 20] {
        assert_eq!(
            "0".repeat(len).parse::<GroupId>(),
            Err(ParseIdError::TextLength {
                encoding: TextEncoding::Hex,
                len,
                min: 64,
                max: 64
            })
        );
    }
    // Texts of an allowed length that stand for 33, 44 and 31 bytes.
    assert_eq!(
        refused(&"z".repeat(44)),
        ParseIdError::ByteLength { len: 33 }
    );
    assert_eq!(
        refused(&"1".repeat(44)),
        ParseIdError::ByteLength { len: 44 }
    );
    assert_eq!(
        refused(&bs58::encode([0xff; 31]).into_string()),
        ParseIdError::ByteLength { len: 31 }
    );
    assert_eq!(
        ContextId::try_from(&[1, 2, 3][..]),
        Err(ParseIdError::ByteLength { len: 3 })
    );
}

#[test]
fn wrong_characters_are_named_with_their_position() {
    for (character, position) in [('0', 0), ('O', 5), ('I', 31), ('l', 7), ('é', 4), (' ', 9)] {
        let mut text: String = "2".repeat(40);
        text.replace_range(position..=position, &character.to_string());
        assert_eq!(
            text.parse::<BlobId>(),
            Err(ParseIdError::Character {
                encoding: TextEncoding::Base58,
                character,
                position
            }),
            "{text}"
        );
    }
    let upper = format!("{}A", "a".repeat(63));
    assert_eq!(
        upper.parse::<NamespaceId>(),
        Err(ParseIdError::Character {
            encoding: TextEncoding::Hex,
            character: 'A',
            position: 63
        })
    );
    assert_eq!(
        upper.parse::<NamespaceId>().unwrap_err().to_string(),
        "character 'A' at byte 63 is not of the hex alphabet"
    );
}

#[test]
fn serde_reads_text_and_bytes() {
    let id = GroupId::new([7; 32]);
    let json = serde_json::to_string(&id).unwrap();
    assert_eq!(json, format!("\"{}\"", "07".repeat(32)));
    assert_eq!(serde_json::from_str::<GroupId>(&json).unwrap(), id);

    for refused in ["null", "7", "[1,2]", "\"07\"", "{}"] {
        assert!(
            serde_json::from_str::<GroupId>(refused).is_err(),
            "{refused}"
        );
    }
    assert!(
        serde_json::from_str::<GroupId>("\"07\"")
            .unwrap_err()
            .to_string()
            .contains("2 bytes of text")
    );
}

#[test]
fn serde_writes_bytes_where_nobody_reads_them() {
    use serde::de::{Deserialize, IntoDeserializer, value};

    let id = BlobId::new([9; 32]);
    let seq = value::SeqDeserializer::<_, value::Error>::new([9_u8; 32].into_iter());
    assert_eq!(BlobId::deserialize(seq).unwrap(), id);
    for len in [0, 31, 33, 64] {
        let seq = value::SeqDeserializer::<_, value::Error>::new(vec![9_u8; len].into_iter());
        assert!(BlobId::deserialize(seq).is_err(), "{len} bytes");
    }
    let bytes: value::BytesDeserializer<'_, value::Error> = (&[9_u8; 32][..]).into_deserializer();
    assert_eq!(BlobId::deserialize(bytes).unwrap(), id);
    let short: value::BytesDeserializer<'_, value::Error> = (&[9_u8; 31][..]).into_deserializer();
    assert_eq!(
        BlobId::deserialize(short).unwrap_err().to_string(),
        "id of 31 bytes, must have 32"
    );
}

#[test]
fn borsh_is_the_bytes() {
    let id = ContextId::new(std::array::from_fn(|i| i as u8));
    let bytes = borsh::to_vec(&id).unwrap();
    assert_eq!(bytes, id.as_bytes());
    assert_eq!(borsh::from_slice::<ContextId>(&bytes).unwrap(), id);
    assert!(borsh::from_slice::<ContextId>(&bytes[1..]).is_err());
    assert!(borsh::from_slice::<ContextId>(&[0; 33]).is_err());
}

proptest! {
    #[test]
    fn every_id_survives_every_form(bytes: [u8; 32]) {
        let id = ContextId::new(bytes);
        prop_assert_eq!(ContextId::from_base58(&id.to_base58()), Ok(id));
        prop_assert_eq!(ContextId::from_hex(&id.to_hex()), Ok(id));
        prop_assert_eq!(id.to_base58(), bs58::encode(bytes).into_string());
        prop_assert_eq!(id.to_hex(), hex::encode(bytes));
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let group = GroupId::new(bytes);
        prop_assert_eq!(group.to_string().parse(), Ok(group));
        let json = serde_json::to_vec(&id).unwrap();
        prop_assert_eq!(serde_json::from_slice::<ContextId>(&json).unwrap(), id);
    }

    #[test]
    fn ids_are_ordered_as_their_bytes(a: [u8; 32], b: [u8; 32]) {
        prop_assert_eq!(BlobId::new(a).cmp(&BlobId::new(b)), a.cmp(&b));
    }

    /// Whatever parses is the one text of its id.
    #[test]
    fn no_text_panics_and_each_id_has_one(text in prop_oneof![
        any::<String>(),
        "[1-9A-HJ-NP-Za-km-z]{30,46}",
        "[0-9a-fA-F]{62,66}",
        "1{28,44}[1-9A-Za-z]{0,8}",
    ]) {
        if let Ok(id) = ContextId::from_base58(&text) {
            prop_assert_eq!(id.to_base58(), text.clone());
        }
        if let Ok(id) = GroupId::from_hex(&text) {
            prop_assert_eq!(id.to_hex(), text);
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        prop_assert_eq!(ContextId::try_from(&bytes[..]).is_ok(), bytes.len() == 32);
        prop_assert_eq!(borsh::from_slice::<ContextId>(&bytes).is_ok(), bytes.len() == 32);
    }
}
