//! The seed of the fuzzer is a capture of today's format. `HEAPTIDE_UPDATE_GOLDEN=1` writes it anew.

use std::path::PathBuf;

#[test]
fn the_seed_is_fresh() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/read_capture/tiny");
    let expected = heaptide_testkit::fixtures::tiny().build();
    if std::env::var_os("HEAPTIDE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).expect("the seed can be written");
    }
    let seed = std::fs::read(&path).expect("the seed is there");
    assert!(
        seed == expected,
        "run with HEAPTIDE_UPDATE_GOLDEN=1 if the format changed"
    );
}
