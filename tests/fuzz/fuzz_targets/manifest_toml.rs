//! Any text as a TOML manifest: a plan, or diagnostics with places.
#![no_main]

#[path = "shared/manifest.rs"]
mod manifest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| manifest::whole("m.toml", bytes));
