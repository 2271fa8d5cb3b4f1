//! The seeds of the fuzzer are captures of today's format. `HEAPTIDE_UPDATE_GOLDEN=1` writes them anew.

use std::path::PathBuf;

use heaptide_testkit::fixtures;

#[test]
fn the_seeds_are_fresh() {
    let seeds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/read_capture");
    let expected = [
        ("tiny", fixtures::tiny().build()),
        ("tiny_events", fixtures::tiny_events().build()),
        ("tiny_objects", fixtures::tiny_objects().build()),
        ("tiny_object_events", fixtures::tiny_object_events().build()),
        ("tiny_native", fixtures::tiny_native().build()),
    ];
    for (name, expected) in expected {
        let path = seeds.join(name);
        if std::env::var_os("HEAPTIDE_UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &expected).expect("the seed can be written");
        }
        let seed = std::fs::read(&path).expect("the seed is there");
        assert!(
            seed == expected,
            "{name}: run with HEAPTIDE_UPDATE_GOLDEN=1 if the format changed"
        );
    }
}
