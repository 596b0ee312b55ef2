//! A map from texts to texts that the nodes of a context share. The last writer of a key wins.

use calimero_sdk::app;
use calimero_storage::collections::{LwwRegister, UnorderedMap};

/// The state of the application.
#[app::state]
pub struct KeyValue {
    entries: UnorderedMap<String, LwwRegister<String>>,
}

#[app::logic]
impl KeyValue {
    /// Creates an empty map.
    #[app::init]
    pub fn init() -> KeyValue {
        KeyValue {
            entries: UnorderedMap::new(),
        }
    }

    /// Writes a value.
    pub fn set(&mut self, key: String, value: String) -> app::Result<()> {
        self.entries.insert(key, value.into())?;
        Ok(())
    }

    /// Writes a value of `length` equal bytes.
    pub fn fill(&mut self, key: String, length: u32) -> app::Result<()> {
        self.set(key, "x".repeat(length as usize))
    }

    /// Reads a value.
    pub fn get(&self, key: &str) -> app::Result<Option<String>> {
        Ok(self.entries.get(key)?.map(|value| value.get().clone()))
    }

    /// The number of bytes of a value.
    pub fn length(&self, key: &str) -> app::Result<Option<u32>> {
        Ok(self.get(key)?.map(|value| value.len() as u32))
    }

    /// The number of keys.
    pub fn count(&self) -> app::Result<u32> {
        Ok(self.entries.len()? as u32)
    }
}
