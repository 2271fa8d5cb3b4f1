//! Files made byte for byte, with known answers, and what is no file of Memray.

use std::io::Write;

use heaptide_capture::WarningKind;
use heaptide_engine::{
    EngineError, ObjectEvent, ObjectEventKind, ObjectEvents, Profile, ProfileOptions,
    surviving_objects,
};
use heaptide_memray::open;

mod file;

use file::{File, START_MS, written};

/// Two threads, a block that the other one frees, and a mapping that is unmapped in part.
fn example() -> File {
    let mut file = File::new(13, false);
    file.thread(1).code(1).code(2).code(3);
    // Memray's own frame, then f2 and f3.
    file.add(&[0b0100_0001, 1, 0, 0b0100_0001, 2, 0, 0b0100_0000, 3, 0]);
    // malloc(100) at 0x1000: a new address, the difference of its eighth in zigzag.
    file.add(&[0b1111_1110, 0x80, 0x08, 100]);
    file.add(&[2, 64, 10]);
    file.thread(2).add(b"\x0aworker\0");
    // malloc(7) at 0x1010, without a stack.
    file.add(&[0b1111_1110, 4, 7]);
    // Its address is the last one, that of the other thread's block the one before: free(0x1000).
    file.add(&[0b1000_1101]);
    file.thread(1);
    // f3 has returned; mmap of 8192 bytes at 0x3000, then munmap of the second half.
    file.add(&[0b0001_0000]);
    file.add(&[0b1111_1000, 0xfc, 0x07, 14, 0x80, 0x40]);
    file.add(&[0b1111_1000, 0x80, 0x08, 15, 0x80, 0x20]);
    file
}

fn rows(profile: &Profile) -> Vec<(String, String, u64, u64, u64)> {
    let stacks = &profile.stacks;
    let mut rows: Vec<_> = profile
        .entries
        .iter()
        .map(|entry| {
            let labels = stacks.walk(entry.stack).map(|node| {
                let frame = stacks.nodes[node.index()].frame;
                stacks.location_label(stacks.frames[frame.index()].location)
            });
            (
                labels.collect::<Vec<_>>().join(" < "),
                profile.threads[entry.thread as usize].name.clone(),
                entry.figures.allocated.bytes,
                entry.figures.peak.bytes,
                entry.figures.live.bytes,
            )
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn stacks_threads_and_mappings() {
    for ended in [true, false] {
        let mut file = example();
        if ended {
            file.add(&[1]);
        }
        // Files that were not ended are filled up with zeros.
        file.add(&[0; 50]);
        let capture = file.open().unwrap();
        let profile = Profile::new(&capture);
        let row = |stack: &str, thread: &str, allocated, peak, live| {
            (stack.to_owned(), thread.to_owned(), allocated, peak, live)
        };
        assert_eq!(
            rows(&profile),
            [
                row("", "worker", 7, 7, 7),
                row("f2:app.py:6", "MainThread", 8192, 8192, 4096),
                row("f3:app.py:9 < f2:app.py:6", "MainThread", 100, 0, 0),
            ]
        );
        assert_eq!(capture.warnings, []);
        assert_eq!(profile.warnings, []);
        assert_eq!(capture.metadata.command_line(), "app.py --fast");
        assert_eq!(capture.samples[0].unix_ns, (START_MS + 10) * 1_000_000);
        assert_eq!(profile.sample_heap, [100]);
        let word = capture.liveness().word();
        assert_eq!(word, if ended { "finished" } else { "died" });
    }
}

/// The thread, the address and, of what was made, the stack.
/// CPython 3.10 counts instructions, and its line tables count bytes: the third instruction is in the second range of four bytes.
#[test]
fn instructions_of_3_10_are_counted_in_units() {
    for (python, line) in [(0x030a_0df0_u32, 7), (0x0309_0df0, 6)] {
        let mut file = File::new(13, false);
        file.0[11..15].copy_from_slice(&python.to_le_bytes());
        file.thread(1).code(1);
        let table: &[u8] = if line == 7 { &[4, 0, 4, 1] } else { &[4, 1] };
        file.add(&[14, 2])
            .add(b"f\0app.py\0")
            .add(&[6, table.len() as u8]);
        file.add(table);
        file.add(&[0b0100_0001, 1, 0, 0b0100_0001, 2, 6]);
        file.add(&[0b1111_1110, 0x80, 0x08, 100, 1]);
        let capture = file.open().unwrap();
        let profile = Profile::new(&capture);
        let found: Vec<String> = rows(&profile).into_iter().map(|row| row.0).collect();
        assert_eq!(found, [format!("f:app.py:{line}")]);
    }
}

fn objects(profile: &Profile, events: &[ObjectEvent]) -> Vec<(u32, u64, Option<String>)> {
    let stacks = &profile.stacks;
    let told = events.iter().map(|event| {
        let made = match event.kind {
            ObjectEventKind::Gone => None,
            ObjectEventKind::Made { stack, .. } => {
                let labels = stacks.walk(stack).map(|node| {
                    let frame = stacks.nodes[node.index()].frame;
                    stacks.location_label(stacks.frames[frame.index()].location)
                });
                Some(labels.collect::<Vec<_>>().join(" < "))
            }
        };
        let thread = profile.threads.get(event.thread as usize);
        (thread.map_or(0, |it| it.thread_id), event.address, made)
    });
    told.collect()
}

#[test]
fn objects_are_made_and_destroyed_among_blocks() {
    for version in [12, 13] {
        let mut file = File::with(version, false, true);
        file.thread(1).code(1).code(2).code(3);
        file.add(&[0b0100_0001, 1, 0, 0b0100_0001, 2, 0, 0b0100_0000, 3, 0]);
        // An object at 0x1010, in a block at 0x1000.
        file.add(&[0b1111_1110, 0x80, 0x08, 100]);
        file.add(&[0b0011_1111, 4]);
        file.thread(2);
        // The other thread destroys it, by the first of the addresses that are remembered, and frees the block, by the second.
        file.add(&[0b0010_0000, 0b1000_1101]);
        // It destroys another at 0x1000, which is remembered, and makes one there without a stack.
        file.add(&[0b0010_0010, 0b0010_0011]);
        file.thread(1);
        // f3 has returned.
        file.add(&[0b0001_0000, 0b0011_1111, 4, 1]);
        let capture = file.open().unwrap();
        assert!(capture.identity.tracks_objects());
        assert_eq!(capture.warnings, []);
        let profile = Profile::new(&capture);
        assert_eq!(profile.totals.figures.allocated.count, 1);
        assert_eq!(profile.totals.figures.live.count, 0);
        let events: Vec<_> = ObjectEvents::new(&capture, &profile).unwrap().collect();
        let at = |stack: &str| Some(stack.to_owned());
        assert_eq!(
            objects(&profile, &events),
            [
                (1, 0x1010, at("f3:app.py:9 < f2:app.py:6")),
                (2, 0x1010, None),
                (2, 0x1000, None),
                (2, 0x1000, at("")),
                (1, 0x1020, at("f2:app.py:6")),
            ]
        );
        assert_eq!(surviving_objects(&capture, &profile), None);
    }
}

#[test]
fn objects_that_survive_an_aggregated_capture() {
    for addresses in [&[0x1000_u64, 0x7f00_0000_1010][..], &[]] {
        let mut file = File::with(13, true, true);
        for address in addresses {
            file.add(&[13]);
            let mut left = address >> 3;
            while left >= 0x80 {
                file.add(&[left as u8 | 0x80]);
                left >>= 7;
            }
            file.add(&[left as u8]);
        }
        file.add(&[15]);
        let capture = file.open().unwrap();
        let profile = Profile::new(&capture);
        let survivors = surviving_objects(&capture, &profile).expect("who survives is told");
        let expected: Vec<_> = addresses
            .iter()
            .map(|&address| (0, address, Some(String::new())))
            .collect();
        assert_eq!(objects(&profile, &survivors), expected);
    }
    // Without its last record it is not known whether these are all.
    let mut file = File::with(13, true, true);
    file.add(&[13, 1]);
    let capture = file.open().unwrap();
    let profile = Profile::new(&capture);
    assert_eq!(surviving_objects(&capture, &profile), None);
    let without = File::new(13, true).add(&[15]).open().unwrap();
    assert_eq!(surviving_objects(&without, &Profile::new(&without)), None);
}

/// More than a chunk of a stream holds, of two threads that take turns.
#[test]
fn long_streams() {
    let mut file = File::new(13, false);
    for round in 0..200_u64 {
        file.thread(1 + round % 2);
        for event in 0..500_u64 {
            // malloc of a size that changes, at the address of the last block of all, or the next free one.
            let size = (round * 500 + event) % 16_000 + 1;
            file.add(&[0b1111_1110, 2, size as u8 | 0x80, (size >> 7) as u8]);
            if event % 3 > 0 {
                file.add(&[0b1000_0101]);
            }
        }
    }
    file.add(&[1]);
    let capture = file.open().unwrap();
    let profile = Profile::new(&capture);
    assert!(
        capture.events.bytes() > 3 * (64 << 10),
        "one chunk a stream"
    );
    assert_eq!(profile.warnings, []);
    let sizes = |kept: fn(u64) -> bool| -> u64 {
        let all = (0..100_000).filter(|event| kept(event % 500));
        all.map(|event| event % 16_000 + 1).sum()
    };
    let figures = &profile.totals.figures;
    assert_eq!(figures.allocated.bytes, sizes(|_| true));
    assert_eq!(figures.live.bytes, sizes(|event| event % 3 == 0));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_read_up_to_there() {
    let whole = example().0;
    let header = File::new(13, false).0.len();
    for length in 0..whole.len() {
        let (_directory, path) = written(&whole[..length]);
        match open(&path) {
            Ok(capture) => {
                assert!(length >= header);
                assert_eq!(Profile::new(&capture).warnings, [], "{length}");
            }
            Err(error) => assert!(length < header, "{length}: {error}"),
        }
    }
}

#[test]
fn sums_at_the_peak_and_at_the_end() {
    let mut file = File::new(13, true);
    file.code(1).code(2);
    // Frames 0 and 1, and the stacks 1 (of Memray) and 2 (called by it).
    file.add(&[4, 0, 1, 0, 1, 4, 1, 2, 0, 0, 3, 0, 0, 3, 1, 1]);
    let words = [1, 6, 0, 2, 0, 3, 1, 300, 100_u64];
    file.add(&[2]);
    for word in words {
        file.add(&word.to_le_bytes());
    }
    file.add(&[15]);
    let capture = file.open().unwrap();
    let profile = Profile::new(&capture);
    let figures = &profile.totals.figures;
    assert_eq!((figures.peak.count, figures.peak.bytes), (3, 300));
    assert_eq!((figures.live.count, figures.live.bytes), (1, 100));
    assert!(figures.allocated.is_zero());
    assert_eq!(rows(&profile)[0].0, "f2:app.py:6");
    assert_eq!(capture.warnings.len(), 1);
    assert_eq!(capture.warnings[0].kind, WarningKind::TotalsUnknown);
    let asked = ProfileOptions {
        temporary_threshold: Some(1),
        progress: None,
    };
    let refused = Profile::with(&capture, asked).unwrap_err();
    assert_eq!(refused, EngineError::TotalsUnknown);
}

#[test]
fn what_cannot_be_read_is_said() {
    let message = |bytes: &[u8]| {
        let (_directory, path) = written(bytes);
        let error = open(&path).unwrap_err().to_string();
        let name = path.display().to_string();
        error.strip_prefix(&name).unwrap().to_owned()
    };
    assert_eq!(
        message(&File::new(9, false).0),
        ": made by Memray 1.4 to 1.6, whose files have header version 9; versions 10 to 13 can be read"
    );
    assert!(message(&File::new(14, false).0).starts_with(": made by a newer Memray"));
    assert_eq!(
        message(b"memray\0"),
        ": not a capture: it ends inside the header"
    );
    let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
    frame.write_all(b"something else").unwrap();
    let frame = frame.finish().unwrap();
    assert_eq!(
        message(&frame),
        ": not a capture: the LZ4 frame holds no capture of Memray"
    );
    // Memray's aggregated mode leaves this behind when it is killed.
    assert_eq!(message(b""), ": the file is empty");
}

#[test]
fn no_bytes_are_too_odd() {
    let mut seed = 7_u64;
    let mut noise = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (mut with_blocks, mut with_objects) = (0, 0);
    for round in 0..3000 {
        let version = 10 + (noise() % 4) as i32;
        let mut file = File::with(version, noise() % 2 == 0, noise() % 2 == 0);
        if round % 3 == 0 {
            file = example();
        }
        for _ in 0..noise() % 300 {
            // Small numbers keep the reader going for longer.
            let byte = noise();
            file.0.push(if byte & 0x300 == 0 {
                byte as u8
            } else {
                byte as u8 & 0xf
            });
        }
        if let Ok(capture) = file.open() {
            let profile = Profile::new(&capture);
            if let Ok(events) = ObjectEvents::new(&capture, &profile) {
                with_objects += usize::from(events.count() > 0);
            }
            with_blocks += usize::from(profile.totals.figures.allocated.count > 0);
        }
    }
    assert!(
        with_blocks > 500 && with_objects > 50,
        "{with_blocks} {with_objects}"
    );
}
