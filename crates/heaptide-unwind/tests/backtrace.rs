//! Walks of this program's own stacks, against the C library's.
#![cfg(target_arch = "x86_64")]

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::sync::Mutex;

use heaptide_unwind::{
    Finder, Frame, Known, Place, Registers, Rule, RuleTable, Stack, UnwindInfo, walk,
};

/// Segments of loaded objects that are executed, and where the unwind information is.
fn objects() -> Vec<(usize, usize, UnwindInfo)> {
    unsafe extern "C" fn one(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader's description, and the vector below.
        let (info, objects) =
            unsafe { (&*info, &mut *data.cast::<Vec<(usize, usize, UnwindInfo)>>()) };
        // SAFETY: as above.
        let headers =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum as usize) };
        let base = info.dlpi_addr as usize;
        let range = |header: &libc::Elf64_Phdr| {
            let start = base + header.p_vaddr as usize;
            start..start + header.p_memsz as usize
        };
        let loaded = headers.iter().filter(|each| each.p_type == libc::PT_LOAD);
        let Some(header) = headers
            .iter()
            .find(|each| each.p_type == libc::PT_GNU_EH_FRAME)
        else {
            return 0;
        };
        let header = range(header).start;
        let Some(holder) = loaded
            .clone()
            .map(range)
            .find(|range| range.contains(&header))
        else {
            return 0;
        };
        for each in loaded.filter(|each| each.p_flags & libc::PF_X != 0) {
            let unwind = UnwindInfo {
                header,
                start: holder.start,
                end: holder.end,
            };
            objects.push((range(each).start, range(each).end, unwind));
        }
        0
    }
    let mut objects = Vec::new();
    // SAFETY: `one` gets the vector.
    unsafe { libc::dl_iterate_phdr(Some(one), (&raw mut objects).cast()) };
    objects
}

fn empty_table() -> Box<RuleTable> {
    let words = vec![0u64; size_of::<RuleTable>() / size_of::<u64>()].into_boxed_slice();
    // SAFETY: as large as a table and aligned as its words; zeroes are a valid one.
    unsafe { Box::from_raw(Box::into_raw(words).cast()) }
}

struct Walker {
    objects: Vec<(usize, usize, UnwindInfo)>,
    finder: Finder,
    table: Box<RuleTable>,
    remembered: Vec<Frame>,
    asked: usize,
}

impl Walker {
    fn new() -> Self {
        Self {
            objects: objects(),
            finder: Finder::new(),
            table: empty_table(),
            remembered: Vec::new(),
            asked: 0,
        }
    }

    fn find(&mut self, address: usize) -> Known {
        self.asked += 1;
        if let Some(known) = self.table.find(address) {
            return known;
        }
        let object = self
            .objects
            .iter()
            .find(|(start, end, _)| (*start..*end).contains(&address));
        let rule = object
            // SAFETY: objects of this program are not unloaded.
            .and_then(|(_, _, info)| unsafe { self.finder.rule(info, address) })
            .unwrap_or(Rule::END);
        let place = Place::new(0, (address as u64) & 0xff_ffff_ffff);
        self.table.insert(address, Known { rule, place });
        Known { rule, place }
    }

    /// The addresses of the stack of the caller, the innermost first.
    fn walk(&mut self, from: Registers, stack: &Stack) -> Vec<usize> {
        let mut fresh = vec![
            Frame {
                registers: Registers::default(),
                rule: Rule::END,
                place: Place::UNKNOWN,
                node: 0,
            };
            4096
        ];
        let remembered = std::mem::take(&mut self.remembered);
        let stack = stack.from(from.stack_pointer);
        let found = walk(from, &stack, &remembered, &mut fresh, |registers| {
            self.find(registers.instruction)
        });
        let found = found.expect("there is room");
        let mut frames = remembered[..found.kept].to_vec();
        frames.extend(fresh[..found.fresh].iter().rev());
        let addresses = frames.iter().rev().map(|frame| frame.registers.instruction);
        let addresses = addresses.collect();
        self.remembered = frames;
        addresses
    }
}

/// This thread's stack.
fn stack() -> Stack {
    // SAFETY: as documented for these functions.
    unsafe {
        let mut attributes = std::mem::zeroed();
        assert_eq!(
            libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes),
            0
        );
        let (mut start, mut bytes) = (std::ptr::null_mut(), 0);
        libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut bytes);
        libc::pthread_attr_destroy(&raw mut attributes);
        let start = start as usize;
        Stack::new(start, start + bytes)
    }
}

static WALKER: Mutex<Option<(Walker, Stack)>> = Mutex::new(None);

unsafe extern "C" {
    fn backtrace(buffer: *mut *mut c_void, size: c_int) -> c_int;
}

/// Both walks from here, which must agree but for where in this function they begin.
#[inline(never)]
fn compare() -> usize {
    let mut theirs = [std::ptr::null_mut(); 4096];
    // SAFETY: there is room for as many.
    let count = unsafe { backtrace(theirs.as_mut_ptr(), theirs.len() as c_int) } as usize;
    let theirs: Vec<usize> = theirs[1..count].iter().map(|each| *each as usize).collect();
    let from = Registers::here();
    let mut walker = WALKER.lock().expect("no panic");
    let (walker, stack) = walker.as_mut().expect("set");
    let ours = walker.walk(from, stack);
    // The C library goes one further, to the zero above the outermost frame, in some versions.
    let theirs: Vec<usize> = theirs.into_iter().filter(|&each| each != 0).collect();
    assert_eq!(ours[1..], theirs[..], "{ours:x?}\n{theirs:x?}");
    ours.len()
}

static DEPTHS: Mutex<(u64, Vec<usize>)> = Mutex::new((1, Vec::new()));

fn random(below: u64) -> u64 {
    let state = &mut DEPTHS.lock().expect("no panic").0;
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// Frames of the C library and of ours in turns, of different sizes, some with aligned stacks.
#[inline(never)]
fn deeper(left: u32) {
    for _ in 0..=random(2) {
        compare();
    }
    if left == 0 {
        return;
    }
    match random(4) {
        0 => through_qsort(left),
        1 => aligned(left),
        2 => plain(left),
        _ => sized(left, 1 + random(40) as usize),
    }
    compare();
}

#[inline(never)]
fn plain(left: u32) {
    deeper(left - 1);
    black_box(left);
}

#[repr(align(64))]
struct Aligned([u64; 24]);

#[inline(never)]
fn aligned(left: u32) {
    let mut room = black_box(Aligned([u64::from(left); 24]));
    deeper(left - 1);
    room.0[3] += 1;
    black_box(&room);
}

#[inline(never)]
fn sized(left: u32, count: usize) {
    let room: Vec<u64> = vec![1; count];
    deeper(left - 1);
    black_box(&room);
}

static LEFT: Mutex<u32> = Mutex::new(0);

fn through_qsort(left: u32) {
    extern "C" fn compare_numbers(one: *const c_void, other: *const c_void) -> c_int {
        let left = *LEFT.lock().expect("no panic");
        if left > 0 {
            *LEFT.lock().expect("no panic") = 0;
            deeper(left - 1);
        }
        // SAFETY: two of the numbers below.
        unsafe { *one.cast::<c_int>() - *other.cast::<c_int>() }
    }
    let mut numbers = [3, 1, 2];
    *LEFT.lock().expect("no panic") = left;
    // SAFETY: three numbers, and a function that compares them.
    unsafe {
        libc::qsort(
            numbers.as_mut_ptr().cast(),
            numbers.len(),
            size_of::<c_int>(),
            Some(compare_numbers),
        );
    }
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn walks_agree_with_the_c_library() {
    *WALKER.lock().expect("no panic") = Some((Walker::new(), stack()));
    for _ in 0..300 {
        deeper(1 + random(25) as u32);
    }
    // Much of each walk is as it was.
    let mut walker = WALKER.lock().expect("no panic");
    let (walker, _) = walker.as_mut().expect("set");
    walker.asked = 0;
    let from = Registers::here();
    let first = walker.walk(from, &stack());
    let asked = walker.asked;
    let again = walker.walk(from, &stack());
    assert_eq!(first, again);
    assert!(
        asked > 0 && walker.asked == asked,
        "{asked} {}",
        walker.asked
    );
}
