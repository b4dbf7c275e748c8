//! Jobs for kernels of every architecture.
#![allow(dead_code)]

use std::sync::LazyLock;

use hotcell_schema::arch::{AbiFamily, ArchProfile};
use hotcell_schema::digest::Digest;
use hotcell_schema::internet::{Internet, InternetWith};
use hotcell_schema::job::{Blob, GuestLimits, LinuxJob};
use hotcell_schema::persona::Persona;

macro_rules! profiles {
    ($($name:literal)*) => {
        [$(include_str!(concat!("../../../../arch-profiles/", $name, ".toml")),)*]
    };
}

static PROFILES: LazyLock<Vec<ArchProfile>> = LazyLock::new(|| {
    let all = profiles!["x86_64" "x86" "arm" "armeb" "aarch64" "riscv64" "mips" "mipsel" "mips64" "mips64el" "ppc" "ppc64" "ppc64le" "s390x"];
    all.iter()
        .map(|text| toml::from_str(text).expect("a profile reads"))
        .collect()
});

/// The profile that a byte names.
pub fn profile(number: u8) -> &'static ArchProfile {
    &PROFILES[usize::from(number) % PROFILES.len()]
}

/// The number of a call among those that the architecture's table begins with.
pub fn call_number(profile: &ArchProfile, number: u16) -> u64 {
    let first = match profile.abi.family {
        AbiFamily::MipsO32 => 4000,
        AbiFamily::MipsN64 => 5000,
        _ => 0,
    };
    first + u64::from(number) % 470
}

/// An internet of which nothing is declared.
pub fn internet() -> Internet {
    Internet {
        with: InternetWith::default(),
        web: None,
    }
}

/// A job around a program of so many bytes.
pub fn of(profile: &ArchProfile, length: u64) -> LinuxJob {
    LinuxJob {
        cell: "fuzz".into(),
        arch: profile.clone(),
        native: false,
        persona: Persona::default(),
        program: Blob { index: 0, length },
        path: "/tmp/sample".into(),
        argv: vec!["sample".into()],
        env: None,
        cwd: None,
        sysroot: None,
        internet: None,
        files: Vec::new(),
        stdin: None,
        seed: Digest::of(b"seed"),
        watch: Default::default(),
        deny: Default::default(),
        limits: GuestLimits::default(),
    }
}
