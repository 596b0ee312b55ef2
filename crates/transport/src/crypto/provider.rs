//! The ciphers, in the order this processor runs them fastest.

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

/// The primitives of AWS-LC with the ciphers of TLS 1.3 in this processor's order.
///
/// Key exchange is the library's choice and that of `libp2p-tls`: X25519MLKEM768 first, then the
/// elliptic curves alone.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: cipher_order(has_aes_instructions()).to_vec(),
        ..aws_lc_rs::default_provider()
    }
}

/// The three ciphers of TLS 1.3, fastest first.
///
/// With AES instructions AES-GCM runs several times as fast as ChaCha20-Poly1305; its software
/// form is slower, and hard to write in constant time, which is why ChaCha20 leads without them.
/// AES-128 stands before AES-256: ten rounds instead of fourteen, at a strength nobody reaches.
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

/// Whether the processor has instructions for AES and for the carry-less product of GCM.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

/// Whether the processor has instructions for AES and for the carry-less product of GCM.
#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

/// Whether the processor has instructions for AES: not known here, so no.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}
