//! Builds again when a shipped rule is added or removed, which the macro that embeds them cannot see.
#![allow(clippy::print_stdout)]

fn main() {
    println!("cargo:rerun-if-changed=../../manifests/rules");
    println!("cargo:rerun-if-changed=build.rs");
}
