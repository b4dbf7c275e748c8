//! Any bytes as an archive: no panic that gets out, nothing beyond the bounds, and what an index names can be had.
#![no_main]

use hotcell_inspect::unpack::{Request, unpack};
use hotcell_schema::digest::Digest;
use hotcell_schema::unpack::{Unpack, UnpackLimits, UnpackResult, WantedMember};
use libfuzzer_sys::fuzz_target;

const LIMITS: UnpackLimits = UnpackLimits {
    members: 1000,
    bytes: 4 << 20,
    name: 1000,
};

fuzz_target!(|bytes: &[u8]| {
    let request = |want| Request {
        archive: bytes,
        password: Some(b"infected"),
        want,
        limits: LIMITS,
    };
    let result = unpack(&request(&Unpack::Index), &mut |_, _| Ok(()));
    let Ok(UnpackResult::Index(index)) = result else {
        return;
    };
    let total: u64 = index.members.iter().map(|member| member.length).sum();
    assert!(total <= LIMITS.bytes && index.members.len() <= LIMITS.members as usize);
    let wanted = index.members.iter().map(|member| WantedMember {
        number: member.number,
        digest: member.digest,
    });
    let mut given = 0;
    let result = unpack(
        &request(&Unpack::Members(wanted.collect())),
        &mut |digest, bytes| {
            assert_eq!(digest, Digest::of(bytes));
            given += 1;
            Ok(())
        },
    );
    assert_eq!(result.ok(), Some(UnpackResult::Sent));
    assert_eq!(given, index.members.len());
});
