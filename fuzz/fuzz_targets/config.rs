//! Configuration files: whatever the text, it is refused with a reason or it is valid and survives
//! being written and read again.
#![no_main]

use calimero_network_primitives::{ConfigError, NetworkConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match NetworkConfig::from_toml(text) {
        Ok(config) => {
            config.validate().expect("what is read is valid");
            let written = config.to_toml().expect("what is valid can be written");
            let again = NetworkConfig::from_toml(&written);
            assert_eq!(again.as_ref(), Ok(&config), "{written}");
        }
        Err(ConfigError::Syntax { line, .. }) => {
            assert!((1..=text.lines().count() + 1).contains(&line));
        }
        Err(ConfigError::Parse { key, .. }) => assert!(!key.is_empty()),
        Err(ConfigError::Invalid { key, .. }) => assert!(!key.is_empty()),
        Err(ConfigError::Removed { key, now }) => assert!(!key.is_empty() && !now.is_empty()),
        Err(ConfigError::Published) => {
            assert!(text.contains("swarm") || text.contains("bootstrap"))
        }
        Err(other) => panic!("reading failed to write: {other}"),
    }
});
