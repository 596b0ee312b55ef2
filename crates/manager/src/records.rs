//! Validation of the records that this node stores for the DHT.

use calimero_network_blob::record::{ProviderRecord, RecordKey, UnsignedRecord};
use calimero_network_discovery::behaviour::{
    Record, RecordKey as Key, RecordRefused, RecordValidator,
};
use calimero_network_primitives::PeerId;

/// Validates records of the DHT: only provider records of blobs are stored.
pub(crate) struct ProviderRecords {
    /// Whether unsigned records are accepted, which prove nothing.
    pub(crate) unsigned: bool,
}

impl ProviderRecords {
    /// The provider that a record names and the size that it claims, if the record is valid.
    pub(crate) fn read(&self, record: &Record) -> Option<(PeerId, u64)> {
        let key = RecordKey::from_bytes(record.key.as_ref()).ok()?;
        match ProviderRecord::verify(&key, &record.value) {
            Ok(signed) => Some((signed.provider, signed.size_bytes)),
            Err(_) if self.unsigned => {
                let unsigned = UnsignedRecord::decode(&record.value).ok()?;
                Some((unsigned.provider, unsigned.size_bytes))
            }
            Err(_) => None,
        }
    }
}

impl RecordValidator for ProviderRecords {
    fn validate(&self, record: &Record) -> Result<(), RecordRefused> {
        self.read(record).map(|_| ()).ok_or(RecordRefused {
            reason: "not the signed record of a blob's provider",
        })
    }

    fn validate_provider(&self, key: &Key, _: &PeerId) -> Result<(), RecordRefused> {
        RecordKey::from_bytes(key.as_ref())
            .map(|_| ())
            .map_err(|_| RecordRefused {
                reason: "not the key of a blob's providers",
            })
    }
}
