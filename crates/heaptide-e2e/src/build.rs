//! Builds of the product and of the C helper, made once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .and_then(Path::parent)
        .expect("crates/heaptide-e2e is two levels down")
}

/// The directory of cargo's output, found from the running test itself.
pub(crate) fn target_directory() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    // target/PROFILE/deps/TEST
    test.ancestors()
        .nth(3)
        .expect("a test lies in target/PROFILE/deps")
        .to_owned()
}

/// The release build of `heaptide`, fresh.
pub fn heaptide() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(path) = std::env::var_os("HEAPTIDE_TEST_BINARY") {
            return path.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--release", "--bin", "heaptide", "--target-dir"])
            .arg(target_directory())
            .current_dir(workspace())
            .output()
            .expect("cargo can be run");
        assert!(
            output.status.success(),
            "building heaptide failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        target_directory().join("release/heaptide")
    })
}

/// What is built of which source, and how it is linked.
const LIBRARIES: [(&str, &str, &[&str]); 4] = [
    ("helper.so", "helper.c", &["-Wl,-z,lazy"]),
    // All of the GOT read-only before the first call, and calls through GLOB_DAT words
    (
        "helper-now.so",
        "helper.c",
        &["-fno-plt", "-Wl,-z,relro", "-Wl,-z,now"],
    ),
    ("lockstep.so", "lockstep.c", &["-Wl,-z,lazy"]),
    ("pycounter.so", "pycounter.c", &["-ldl"]),
];

/// A directory with the C helpers.
pub fn helper() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/helper");
        let directory = target_directory().join(format!("e2e-helper-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("target/ can be written");
        for (name, source, flags) in LIBRARIES {
            let status = Command::new("cc")
                .args([
                    "-shared",
                    "-fPIC",
                    "-O1",
                    "-fno-builtin",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                ])
                .arg("-o")
                .arg(directory.join(name))
                .arg(sources.join(source))
                .args(flags)
                .args(["-pthread", "-lrt"])
                .status()
                .expect("a C compiler (cc) is needed");
            assert!(status.success(), "{source} does not compile");
        }
        directory
    })
}

/// The Python programs.
pub(crate) fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")
}
