//! Captures with known answers, and reports of them as bytes.

use std::io::{self, Write};

use heaptide_capture::Capture;
use heaptide_engine::{Metric, Profile};
use heaptide_testkit::{CaptureBuilder, fixtures};

pub(crate) const METRICS: [Metric; 4] = [
    Metric::Allocated,
    Metric::Live,
    Metric::Peak,
    Metric::Temporary,
];

/// A capture and what was made of it.
pub(crate) struct Loaded {
    pub(crate) capture: Capture,
    pub(crate) profile: Profile,
}

pub(crate) fn load(builder: &CaptureBuilder) -> Loaded {
    let capture = Capture::from_bytes(&builder.build(), "test.tide").expect("readable");
    let profile = Profile::new(&capture);
    Loaded { capture, profile }
}

/// A service with a known answer, hostile names, and nothing at all.
pub(crate) fn captures() -> Vec<Loaded> {
    [
        fixtures::killed_service(),
        fixtures::tiny(),
        fixtures::wide_tree(300, true),
        CaptureBuilder::new(),
    ]
    .iter()
    .map(load)
    .collect()
}

pub(crate) fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out).expect("memory takes everything");
    out
}
