//! Compiles again when a shipped file comes or goes: the compiler itself only sees changes of files it knows.

fn main() {
    for folder in ["arch-profiles", "manifests"] {
        println!("cargo:rerun-if-changed=../../{folder}");
    }
}
