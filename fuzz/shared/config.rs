//! A configuration from bytes: each key is left at its default or gets a value at an edge.

use calimero_network_primitives::NetworkConfig;

/// Integers at the edges of types and of the limits of libraries.
const INTEGERS: [i64; 14] = [
    0,
    1,
    2,
    8,
    64,
    999,
    1000,
    6144,
    65_535,
    1 << 20,
    (1 << 20) + 1,
    u32::MAX as i64,
    31_536_000_000,
    i64::MAX,
];

/// Texts that some key accepts.
const TEXTS: [&str; 8] = [
    "small",
    "large",
    "tls",
    "noise",
    "1.1",
    "1.3",
    "shared",
    "dedicated",
];

/// Returns the configuration that `bytes` choose, if it is accepted.
///
/// Keys follow the order of the default, so that the choice covers keys that are added later.
pub(crate) fn derive(bytes: &[u8]) -> Option<NetworkConfig> {
    let text = NetworkConfig::default().to_toml().ok()?;
    let mut table: toml::Table = text.parse().ok()?;
    let mut choices = bytes.iter().copied();
    choose(&mut table, &mut choices);
    // Sockets and packets of the host are not part of the test.
    let discovery = table.get_mut("discovery")?.as_table_mut()?;
    discovery.insert("mdns".to_owned(), false.into());
    table.insert("listen".to_owned(), vec!["/memory/0"].into());
    let text = toml::to_string(&table).ok()?;
    NetworkConfig::from_toml(&text).ok()
}

fn choose(table: &mut toml::Table, choices: &mut impl Iterator<Item = u8>) {
    for (_, value) in table.iter_mut() {
        if let toml::Value::Table(inner) = value {
            choose(inner, choices);
            continue;
        }
        // Half of the choices leave the default, so that many configurations are accepted.
        let Some(choice @ 128..) = choices.next() else {
            continue;
        };
        let choice = usize::from(choice - 128);
        match value {
            toml::Value::Integer(number) => *number = INTEGERS[choice % INTEGERS.len()],
            toml::Value::Boolean(on) => *on = !*on,
            toml::Value::String(text) => TEXTS[choice % TEXTS.len()].clone_into(text),
            _ => {}
        }
    }
}
