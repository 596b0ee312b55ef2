//! Links against the RocksDB of the system, which may be older than the bindings.

fn main() {
    // Debian 12 has RocksDB 7.8. The node never creates the object that this function frees.
    if std::env::var_os("ROCKSDB_LIB_DIR").is_some() {
        println!("cargo::rerun-if-env-changed=ROCKSDB_LIB_DIR");
        println!("cargo::rustc-link-arg-bins=-Wl,--defsym=rocksdb_write_buffer_manager_destroy=0");
    }
}
