//! Any bytes as an export of a store, as they are and as what its compressed part holds: read or refused, and whatever was
//! placed is right.
#![no_main]

use std::io::Write as _;

use hotcell_store::Store;
use hotcell_store::archive::{HEADER, Limits, import};
use hotcell_store::verify::verify;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let limits = Limits {
        bytes: 16 << 20,
        entries: 1000,
    };
    let mut wrapped = format!("{HEADER}\n").into_bytes();
    let mut encoder = zstd::Encoder::new(&mut wrapped, 1).expect("an encoder");
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory");
    for file in [bytes, &wrapped] {
        let _ = import(&store, file, limits, &|_| {});
    }
    store.read_afresh();
    let verified = verify(&store, false, &|_| {}).expect("a store that can be read");
    assert_eq!(verified.wrong(), 0);
});
