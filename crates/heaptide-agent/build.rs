//! Links the unwinder into the agent, and the agent into the process for ever.
//!
//! Rust asks for the shared `libgcc_s`, and the agent would drag the system's copy into every
//! program before the program's own libraries ask for theirs, which may be newer. A linker script
//! of that name, found first, stands for the static archive.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Never unmapped, whoever closes it: threads may be on their way through it, and slots that were read may lead here.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let glibc = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|environment| environment == "gnu");
    let Some(directory) = std::env::var_os("OUT_DIR").filter(|_| glibc) else {
        return;
    };
    let script = Path::new(&directory).join("libgcc_s.so");
    if let Err(error) = std::fs::write(&script, "GROUP(-lgcc_eh -lgcc -lc)\n") {
        println!("cargo:warning=the agent will need libgcc_s: {error}");
        return;
    }
    println!(
        "cargo:rustc-link-search=native={}",
        Path::new(&directory).display()
    );
}
