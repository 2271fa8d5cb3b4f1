//! How much of the capture is resident, and what of it is let go.
//!
//! What is let go stays in the file and comes back by a minor fault when it is touched, so letting go too much or too
//! often costs more than anything else of a program with many stacks. `/proc/self/statm` is cheap and counts the
//! pages of all files of the process: a program that loads libraries has many more every moment. Only when those have
//! become many are ours counted, in `/proc/self/pagemap`. And only a part of ours is let go, another one each time:
//! nothing tells which pages will be wanted next, but of those that stay some are.

use core::sync::atomic::{AtomicUsize, Ordering};

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

/// Below this size the capture is left resident: trimming would save nothing worth a page fault.
const TRIM_FROM_BYTES: usize = 3 << 20;
/// How much of the capture may become resident before it is let go.
pub(crate) const MOST_RESIDENT_BYTES: usize = 8 << 20;
/// The same with native stacks: there are many times as many stacks, and each event finds its own among them.
pub(crate) const MOST_RESIDENT_NATIVE_BYTES: usize = 32 << 20;
/// Between two looks at what is ours the pages of all files must have become more by this much at least.
const LOOK_STEP_BYTES: usize = 1 << 20;
/// So much is let go at once, where `most` may be resident.
const fn let_go_bytes(most: usize) -> usize {
    most / 4
}
/// Pages are counted and let go by slices of the capture.
const SLICE_BYTES: usize = 512 << 10;
/// The pages of captures with more slices are not counted: that would take as long as to fault them in.
const MOST_SLICES: usize = 128;

/// Bit 63 of an entry of a page map: the page is present.
const PRESENT: u64 = 1 << 63;
/// Entries read at once. They lie on the stack of whoever allocates.
const ENTRIES: usize = 128;

/// A part of the capture in memory: its address and length, in bytes. It begins and ends with a page.
pub(crate) type Range = (usize, usize);

/// When to look next, and where to begin.
#[derive(Debug)]
pub(crate) struct Residency {
    /// The resident pages of all files, in bytes, from which on ours are counted.
    look_from: AtomicUsize,
    /// The slice that is let go next.
    next_slice: AtomicUsize,
}

impl Residency {
    pub(crate) const fn new() -> Self {
        Self {
            look_from: AtomicUsize::new(0),
            next_slice: AtomicUsize::new(0),
        }
    }

    /// Lets some of the capture, which is these ranges, go if `most` bytes of it are resident.
    pub(crate) fn limit(
        &self,
        most: usize,
        ranges: impl Iterator<Item = Range> + Clone,
        page: usize,
        let_go: impl Fn(Range),
    ) {
        let mapped: usize = ranges.clone().map(|(_, bytes)| bytes).sum();
        if mapped < TRIM_FROM_BYTES {
            return;
        }
        let resident = resident_file_bytes(page);
        let look_from = self.look_from.load(Ordering::Relaxed);
        if let Some(resident) = resident
            && resident < look_from
        {
            // The program has let go of files; what is ours may grow as much as ever, and no more.
            let lower = look_from.min(resident + most);
            self.look_from.store(lower, Ordering::Relaxed);
            return;
        }
        let slices = ranges.clone().flat_map(slices_of);
        let mut present = [0; MOST_SLICES];
        let counted = if mapped <= MOST_SLICES * SLICE_BYTES {
            count(slices.clone(), page, &mut present)
        } else {
            None
        };
        let Some((resident, mut ours)) = resident.zip(counted) else {
            ranges.for_each(let_go);
            let left = resident_file_bytes(page).unwrap_or(0);
            self.look_from.store(left + most, Ordering::Relaxed);
            return;
        };
        let before = ours;
        if ours >= most {
            let first = self.next_slice.load(Ordering::Relaxed);
            let count = slices.clone().count();
            let first = if first < count { first } else { 0 };
            let from_first = slices.clone().enumerate().skip(first);
            let round = from_first.chain(slices.enumerate().take(first));
            for (number, slice) in round {
                if ours + let_go_bytes(most) <= before {
                    break;
                }
                if present[number] > 0 {
                    let_go(slice);
                    ours -= present[number];
                }
                self.next_slice.store(number + 1, Ordering::Relaxed);
            }
        }
        let room = most.saturating_sub(ours);
        let left = resident.saturating_sub(before - ours);
        self.look_from
            .store(left + room.max(LOOK_STEP_BYTES), Ordering::Relaxed);
    }
}

fn slices_of((start, bytes): Range) -> impl Iterator<Item = Range> + Clone {
    (0..bytes)
        .step_by(SLICE_BYTES)
        .map(move |at| (start + at, SLICE_BYTES.min(bytes - at)))
}

/// How much of each slice is present, and of all, in bytes; `None` when there are too many, or it cannot be told.
fn count(
    slices: impl Iterator<Item = Range>,
    page: usize,
    present: &mut [usize; MOST_SLICES],
) -> Option<usize> {
    let map = open(c"/proc/self/pagemap")?;
    let mut sum = 0;
    for (number, slice) in slices.enumerate() {
        let bytes = present_bytes(&map, slice, page)?;
        *present.get_mut(number)? = bytes;
        sum += bytes;
    }
    Some(sum)
}

fn open(path: &core::ffi::CStr) -> Option<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Resident pages of files (and shared memory) of this process, in bytes: the third number of
/// `/proc/self/statm`. Cost: three system calls.
fn resident_file_bytes(page: usize) -> Option<usize> {
    let file = open(c"/proc/self/statm")?;
    let mut text = [0u8; 96];
    let length = rustix::io::read(&file, &mut text).ok()?;
    let third = text[..length].split(|byte| *byte == b' ').nth(2)?;
    let pages: usize = core::str::from_utf8(third).ok()?.parse().ok()?;
    Some(pages * page)
}

/// How much of a range of addresses is mapped to memory, in bytes.
fn present_bytes(map: &OwnedFd, (start, bytes): Range, page: usize) -> Option<usize> {
    let mut present = 0;
    let (mut at, end) = (start / page, (start + bytes) / page);
    while at < end {
        let mut entries = [0u8; ENTRIES * size_of::<u64>()];
        let wanted = (end - at).min(ENTRIES) * size_of::<u64>();
        let offset = (at * size_of::<u64>()) as u64;
        let read = rustix::io::pread(map, &mut entries[..wanted], offset).ok()?;
        let (entries, _) = entries[..read].as_chunks();
        if entries.is_empty() {
            return None;
        }
        let is_present = |entry: &&[u8; 8]| u64::from_ne_bytes(**entry) & PRESENT != 0;
        present += entries.iter().filter(is_present).count();
        at += entries.len();
    }
    Some(present * page)
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::vec::Vec;

    use rustix::mm::{Advice, MapFlags, ProtFlags};

    use super::*;

    /// Private memory has entries in the page map as files have.
    struct Memory {
        start: usize,
        bytes: usize,
    }

    impl Memory {
        fn new(bytes: usize) -> Self {
            // SAFETY: a new mapping at an address of the kernel's choice; large pages would make more of it present
            // than is touched.
            let address = unsafe {
                let access = ProtFlags::READ | ProtFlags::WRITE;
                let nowhere = core::ptr::null_mut();
                let address = rustix::mm::mmap_anonymous(nowhere, bytes, access, MapFlags::PRIVATE)
                    .expect("a mapping");
                rustix::mm::madvise(address, bytes, Advice::LinuxNoHugepage).expect("advice");
                address
            };
            let start = address as usize;
            Self { start, bytes }
        }

        fn range(&self) -> Range {
            (self.start, self.bytes)
        }

        fn touch(&self, at: usize) {
            assert!(at < self.bytes);
            // SAFETY: within the mapping.
            unsafe { (self.start as *mut u8).add(at).write_volatile(1) };
        }

        fn present(&self, page: usize) -> usize {
            let map = open(c"/proc/self/pagemap").expect("a page map");
            present_bytes(&map, self.range(), page).expect("entries")
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: nobody uses it any more.
            unsafe { rustix::mm::munmap(self.start as *mut _, self.bytes) }.expect("it was mapped");
        }
    }

    #[test]
    fn pages_that_are_present_are_counted() {
        let page = rustix::param::page_size();
        let memory = Memory::new((3 * ENTRIES + 5) * page);
        assert_eq!(memory.present(page), 0);
        for number in [0, 1, ENTRIES - 1, ENTRIES, 3 * ENTRIES + 4] {
            memory.touch(number * page);
        }
        assert_eq!(memory.present(page), 5 * page);
    }

    #[test]
    fn some_is_let_go_where_much_is_present_another_part_each_time() {
        let page = rustix::param::page_size();
        let (large, small) = (Memory::new(MOST_RESIDENT_BYTES), Memory::new(3 * page));
        let ranges = || [large.range(), small.range()].into_iter();
        let residency = Residency::new();
        let gone = RefCell::new(Vec::new());
        let limit = || {
            // The pages are not those of files; so a look is due whenever it is asked for.
            residency.look_from.store(0, Ordering::Relaxed);
            residency.limit(MOST_RESIDENT_BYTES, ranges(), page, |(start, bytes)| {
                gone.borrow_mut().push(start);
                // SAFETY: our own mapping, of which nobody wants anything.
                unsafe { rustix::mm::madvise(start as *mut _, bytes, Advice::LinuxDontNeed) }
                    .expect("it is mapped");
            });
            large.present(page) + small.present(page)
        };
        assert_eq!(limit(), 0);
        for _ in 0..5 {
            small.touch(0);
            for at in (0..large.bytes).step_by(page) {
                large.touch(at);
            }
            let left = limit();
            let most = MOST_RESIDENT_BYTES + page - let_go_bytes(MOST_RESIDENT_BYTES);
            assert!((most - SLICE_BYTES..=most).contains(&left), "{left}");
        }
        let mut parts = gone.into_inner();
        let first_round = large.bytes / SLICE_BYTES;
        parts.truncate(first_round);
        parts.sort_unstable();
        parts.dedup();
        assert_eq!(parts.len(), first_round, "every part has had its turn");
    }

    #[test]
    fn what_is_too_large_to_be_counted_is_let_go_as_a_whole() {
        let page = rustix::param::page_size();
        let memory = Memory::new((MOST_SLICES + 1) * SLICE_BYTES);
        let residency = Residency::new();
        let gone = RefCell::new(Vec::new());
        residency.limit(
            MOST_RESIDENT_BYTES,
            core::iter::once(memory.range()),
            page,
            |range| {
                gone.borrow_mut().push(range);
            },
        );
        assert_eq!(gone.into_inner(), [memory.range()]);
    }
}
