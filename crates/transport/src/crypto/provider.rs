//! The TLS ciphers in order of their speed on this processor.

use rustls::{
    SupportedCipherSuite,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            self,
            cipher_suite::{
                TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
            },
        },
    },
};

/// Returns the AWS-LC provider with the TLS 1.3 ciphers in the order for this
/// processor.
///
/// The key exchange groups are the defaults of the library and of `libp2p-tls`:
/// X25519MLKEM768 first, then elliptic curves alone.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: cipher_order(has_aes_instructions()).to_vec(),
        ..aws_lc_rs::default_provider()
    }
}

/// Returns the three ciphers of TLS 1.3 in order of speed.
///
/// With AES instructions, AES-GCM is several times as fast as
/// ChaCha20-Poly1305. Without them it is slower and hard to implement in
/// constant time, so ChaCha20 is preferred. AES-128 is preferred to AES-256
/// because it has ten rounds instead of fourteen and sufficient strength.
pub(super) const fn cipher_order(aes_instructions: bool) -> [SupportedCipherSuite; 3] {
    if aes_instructions {
        [
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ]
    } else {
        [
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_AES_128_GCM_SHA256,
        ]
    }
}

/// Returns `true` if the processor has instructions for AES and for the
/// carry-less multiplication of GCM.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

/// Returns `true` if the processor has instructions for AES and for the
/// carry-less multiplication of GCM.
#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

/// Returns `false`: AES instructions are not detected on this architecture.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}
