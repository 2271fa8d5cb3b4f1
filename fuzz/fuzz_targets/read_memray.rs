//! Any bytes as a capture of Memray, in each version and form, through translation and engine.
#![no_main]

use std::io::Write;

use heaptide_engine::{Profile, Temporal, TemporalOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, bool, bool, &[u8])| {
    let (version, native, aggregated, records) = input;
    let version = 10 + version % 4;
    let mut bytes = b"memray\0".to_vec();
    bytes.extend(u32::from(version).to_le_bytes());
    if version >= 12 {
        bytes.extend(0x030c_0df0_u32.to_le_bytes());
    }
    bytes.extend([u8::from(native), u8::from(aggregated)]);
    // Four words, an empty command line, a process, the main thread and its one frame to leave out, an allocator.
    bytes.extend([0; 32 + 1 + 4]);
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.push(1);
    bytes.extend(vec![0; usize::from(version >= 11) + usize::from(version >= 12)]);
    if version >= 13 {
        bytes.extend([0; 3]);
    }
    bytes.extend(records);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let capture = heaptide_memray::open(file.path()).unwrap();
    let profile = Profile::new(&capture);
    let _ = Temporal::new(&capture, &profile, TemporalOptions::default());
});
