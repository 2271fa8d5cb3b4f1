//! The loaded objects: where their code is, and their unwind information.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{Ordering, compiler_fence};

use heaptide_elf::{Object, for_each_object};
use heaptide_recorder::{LoadedObject, Mapping, SpinLock};
use heaptide_unwind::{Finder, Known, Place, Registers, Rule, RuleTable, Stack, UnwindInfo};

use super::{scratch, stack};
use crate::{RECORDER, loader, real};

/// Most executable segments that are known.
const MOST_SEGMENTS: usize = 4096;
const LONGEST_PATH: usize = 4096;
const BUILD_ID_NOTE: u32 = 3;

/// An executable segment of a loaded object.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Segment {
    start: usize,
    end: usize,
    base: usize,
    /// Its number in the capture; [`NO_NUMBER`] for none.
    module: u32,
    /// Is it this library?
    is_own: bool,
    unwind: UnwindInfo,
}

const NO_NUMBER: u32 = u32::MAX;

/// Two lists of segments, sorted by address: the present one, and one that is being made.
struct Lists {
    memory: Mapping,
    is_second: bool,
    count: usize,
}

impl Lists {
    fn new() -> Option<Self> {
        Some(Self {
            memory: Mapping::new(2 * MOST_SEGMENTS * size_of::<Segment>())?,
            is_second: false,
            count: 0,
        })
    }

    fn start(&self, is_second: bool) -> *mut Segment {
        let start: *mut Segment = self.memory.as_ptr();
        // SAFETY: there is room for two lists.
        unsafe { start.add(usize::from(is_second) * MOST_SEGMENTS) }
    }

    fn present(&self) -> &[Segment] {
        // SAFETY: as many as were counted were written.
        unsafe { core::slice::from_raw_parts(self.start(self.is_second), self.count) }
    }
}

/// What is known of loaded objects, for look-ups. There for as long as native stacks are recorded.
pub(super) struct Objects {
    lists: Option<Lists>,
    finder: Option<Mapping>,
    /// The lists change places.
    is_replacing: bool,
    /// `_dl_find_object`, where the C library has it.
    find_object: Option<FindObject>,
}

/// Who looks at what is loaded. Apart from [`Objects`]: it waits for the loader's lock, which may be held by who allocates
/// and waits for those.
pub(super) struct Lookout {
    /// What the loader has counted.
    loads: u64,
    unloads: u64,
    descriptions: Option<Descriptions>,
}

impl Lookout {
    pub(super) const fn new() -> Self {
        Self {
            loads: 0,
            unloads: 0,
            descriptions: None,
        }
    }

    /// Takes the memory; `false` where there is none.
    pub(super) fn prepare(&mut self) -> bool {
        *self = Self::new();
        self.descriptions = Descriptions::new();
        self.descriptions.is_some()
    }

    /// Looks at what is loaded now. Forgets in `table` what is not any more, and says whether anything has changed.
    pub(super) fn look(&mut self, objects: &SpinLock<Objects>, table: &RuleTable) -> bool {
        let before = (self.loads, self.unloads);
        // The list that nobody reads, and which is ours alone to write while we look.
        let next = objects.lock().next_list();
        let (Some(next), Some(descriptions)) = (next, &mut self.descriptions) else {
            return false;
        };
        // SAFETY: there is room for as many, and segments have no invalid values.
        let list = unsafe { core::slice::from_raw_parts_mut(next, MOST_SEGMENTS) };
        let mut count = 0;
        let mut now = before;
        let mut is_same = false;
        for_each_object(|object| {
            now = (object.loads, object.unloads);
            if now == before {
                is_same = true;
                return false;
            }
            add(object, descriptions, list, &mut count);
            true
        });
        if is_same {
            return false;
        }
        list[..count].sort_unstable_by_key(|segment| segment.start);
        (self.loads, self.unloads) = now;
        objects.lock().replace(count, table)
    }

    /// Tells the capture of a forked child of all objects, in the order in which its parent's has their numbers.
    pub(super) fn describe_again(&self) {
        if let Some(descriptions) = &self.descriptions {
            descriptions.register_all();
        }
    }
}

impl Objects {
    pub(super) const fn new() -> Self {
        Self {
            lists: None,
            finder: None,
            is_replacing: false,
            find_object: None,
        }
    }

    /// Takes the memory; `false` where there is none.
    pub(super) fn prepare(&mut self) -> bool {
        *self = Self::new();
        self.lists = Lists::new();
        self.finder = Mapping::new(FINDER_BYTES);
        self.find_object = find_object();
        if let Some(finder) = &self.finder {
            // SAFETY: fresh memory of that size, aligned to a page.
            unsafe { finder.as_ptr::<Finder>().write(Finder::new()) };
        }
        self.lists.is_some() && self.finder.is_some()
    }

    /// In a forked child, of which other threads were in the middle of something: can it be believed?
    pub(super) fn recover(&mut self) -> bool {
        if let Some(finder) = &self.finder {
            // SAFETY: as in `prepare`; whoever used it is not here.
            unsafe { finder.as_ptr::<Finder>().write(Finder::new()) };
        }
        !self.is_replacing
    }

    fn next_list(&self) -> Option<*mut Segment> {
        let lists = self.lists.as_ref()?;
        Some(lists.start(!lists.is_second))
    }

    /// The list that was being made is the present one from here on.
    fn replace(&mut self, count: usize, table: &RuleTable) -> bool {
        let Some(lists) = &mut self.lists else {
            return false;
        };
        // SAFETY: as in `Lists::present`; nobody makes another list while this is looked at.
        let old = unsafe { core::slice::from_raw_parts(lists.start(lists.is_second), lists.count) };
        self.is_replacing = true;
        compiler_fence(Ordering::SeqCst);
        let before = old.len();
        lists.is_second = !lists.is_second;
        lists.count = count;
        compiler_fence(Ordering::SeqCst);
        self.is_replacing = false;
        // SAFETY: the list of before is nobody's now, and is sorted as it was.
        let gone = unsafe {
            let old = core::slice::from_raw_parts_mut(lists.start(!lists.is_second), before);
            keep_those_gone(old, lists.present())
        };
        if !gone.is_empty() {
            table.forget(|address| {
                let place = gone.partition_point(|segment| segment.end < address);
                gone.get(place)
                    .is_some_and(|segment| segment.start < address)
            });
        }
        // What was in no object may be now.
        true
    }

    /// What is known of an address at which a frame goes on; `None` outside of what is known.
    pub(super) fn known(&mut self, address: usize, is_closing: bool) -> Option<Known> {
        let segment = *self.segment_of(address)?;
        // Not every library is closed where we see it.
        if is_closing || !is_there(self.find_object, address, &segment.unwind) {
            return None;
        }
        let place = if segment.is_own {
            Place::OWN
        } else if segment.module == NO_NUMBER {
            Place::UNKNOWN
        } else {
            let address = address.wrapping_sub(segment.base);
            Place::new(segment.module, address as u64)
        };
        let finder = self.finder.as_ref()?;
        // SAFETY: the finder that `prepare` has made, under the lock that `self` is behind, and the stack beside it, which has the
        // same users. The object is loaded: it has just been seen to be, and whoever closes one where we see it waits for us.
        let rule = unsafe {
            let finder: *mut Finder = finder.as_ptr();
            let top = finder.cast::<u8>().add(FINDER_BYTES);
            scratch::on_stack(top, || (*finder).rule(&segment.unwind, address))
        };
        Some(Known {
            rule: rule.flatten().unwrap_or(Rule::END),
            place,
        })
    }

    /// The segment that the byte before an address is in.
    fn segment_of(&self, address: usize) -> Option<&Segment> {
        let before = address.wrapping_sub(1);
        let list = self.lists.as_ref()?.present();
        let place = list.partition_point(|segment| segment.end <= before);
        list.get(place).filter(|segment| segment.start <= before)
    }

    /// The rule of a frame of code that is in no object (compiled while the program runs): by its frame pointer, where that
    /// leads back to an object.
    pub(super) fn rule_outside(&self, frame: &Registers, stack: &Stack) -> Rule {
        match Rule::BY_FRAME_POINTER.apply(frame, stack) {
            Some(caller) if self.segment_of(caller.instruction).is_some() => Rule::BY_FRAME_POINTER,
            _ => Rule::END,
        }
    }
}

/// Leaves only the segments that are not among others; both are sorted.
fn keep_those_gone<'a>(old: &'a mut [Segment], new: &[Segment]) -> &'a [Segment] {
    let mut count = 0;
    for index in 0..old.len() {
        let segment = old[index];
        let place = new.binary_search_by_key(&segment.start, |other| other.start);
        if !place.is_ok_and(|place| new[place] == segment) {
            old[count] = segment;
            count += 1;
        }
    }
    &old[..count]
}

/// Room for a finder at its start, and for the stack that it works on at its end: it needs more than what is left of the
/// stacks that programs give to signal handlers and coroutines.
const FINDER_BYTES: usize = 256 << 10;

/// What `_dl_find_object` says (glibc 2.35 and later, `<dlfcn.h>`).
#[repr(C)]
struct FoundObject {
    flags: u64,
    start: usize,
    end: usize,
    link_map: usize,
    header: usize,
    reserved: [u64; 7],
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int;

fn find_object() -> Option<FindObject> {
    let found = real::find(c"_dl_find_object");
    // SAFETY: the name has had this type since it exists.
    (!found.is_null()).then(|| unsafe { core::mem::transmute::<*mut c_void, FindObject>(found) })
}

/// Is the object loaded that had its unwind information there, and holds the byte before an address?
fn is_there(find: Option<FindObject>, address: usize, unwind: &UnwindInfo) -> bool {
    let Some(find) = find else {
        // Mapped, at least.
        return stack::is_mapped(unwind.start, unwind.end);
    };
    // SAFETY: zeroes are a valid value; the function takes no lock and writes no more than the structure.
    unsafe {
        let mut found: FoundObject = core::mem::zeroed();
        let before = core::ptr::with_exposed_provenance_mut(address.wrapping_sub(1));
        find(before, &raw mut found) == 0 && found.header == unwind.header
    }
}

/// Adds the executable segments of an object.
fn add(
    object: &Object<'_>,
    descriptions: &mut Descriptions,
    list: &mut [Segment],
    count: &mut usize,
) {
    let address_of = |header: &libc::Elf64_Phdr| object.base.wrapping_add(header.p_vaddr as usize);
    let loaded = || {
        let headers = object.headers.iter();
        headers.filter(|header| header.p_type == libc::PT_LOAD)
    };
    let holder_of = |address: usize| {
        loaded()
            .map(|header| {
                let start = address_of(header);
                (start, start.wrapping_add(header.p_memsz as usize))
            })
            .find(|(start, end)| (*start..*end).contains(&address))
    };
    let unwind = object
        .headers
        .iter()
        .find(|header| header.p_type == libc::PT_GNU_EH_FRAME)
        .map(&address_of)
        .and_then(|header| {
            let (start, end) = holder_of(header)?;
            Some(UnwindInfo { header, start, end })
        });
    // Without any no rule is found.
    let unwind = unwind.unwrap_or(UnwindInfo {
        header: 0,
        start: 1,
        end: 1,
    });
    let is_own = object.executes(loader::own_address());
    let module = if is_own {
        NO_NUMBER
    } else {
        number(object, descriptions)
    };
    for header in loaded().filter(|header| header.p_flags & libc::PF_X != 0) {
        let Some(place) = list.get_mut(*count) else {
            return;
        };
        let start = address_of(header);
        *place = Segment {
            start,
            end: start.wrapping_add(header.p_memsz as usize),
            base: object.base,
            module,
            is_own,
            unwind,
        };
        *count += 1;
    }
}

/// The object's number in the capture.
fn number(object: &Object<'_>, descriptions: &mut Descriptions) -> u32 {
    let mut path = Path::new();
    let is_whole = if object.name.is_empty() {
        path.read_executable()
    } else {
        (object.name.starts_with(b"/") || !object.name.contains(&b'/') || path.push_directory())
            && path.push(object.name)
    };
    let loaded = LoadedObject {
        path: if is_whole { path.bytes() } else { object.name },
        base: object.base as u64,
        build_id: build_id(object),
    };
    // A capture without room says so when the next event is recorded.
    let number = RECORDER.module(&loaded).ok().flatten();
    match number {
        Some(number) if descriptions.keep(number, &loaded) => number,
        _ => NO_NUMBER,
    }
}

/// What the capture was told of each object, by number, for the captures of forked children: the length of the whole, the
/// base, the lengths of the path and of the build-id, then both.
struct Descriptions {
    memory: Mapping,
    used: usize,
    count: u32,
}

const DESCRIPTIONS_BYTES: usize = 4 << 20;
const DESCRIPTION_HEAD: usize = 16;

impl Descriptions {
    fn new() -> Option<Self> {
        Some(Self {
            memory: Mapping::new(DESCRIPTIONS_BYTES)?,
            used: 0,
            count: 0,
        })
    }

    /// Keeps the description of object `number`, unless it has it; `false` where there is no room.
    fn keep(&mut self, number: u32, object: &LoadedObject<'_>) -> bool {
        if number < self.count {
            return true;
        }
        // Once there was no room for one, the numbers of those after it would be others in a child.
        if number != self.count {
            return false;
        }
        // SAFETY: our own memory, which nobody else writes.
        let memory = unsafe {
            core::slice::from_raw_parts_mut(self.memory.as_ptr::<u8>(), DESCRIPTIONS_BYTES)
        };
        let length = DESCRIPTION_HEAD + object.path.len() + object.build_id.len();
        let Some(room) = memory
            .get_mut(self.used..)
            .and_then(|room| room.get_mut(..length))
        else {
            return false;
        };
        let (head, text) = room.split_at_mut(DESCRIPTION_HEAD);
        head[..8].copy_from_slice(&object.base.to_ne_bytes());
        head[8..12].copy_from_slice(&(object.path.len() as u32).to_ne_bytes());
        head[12..].copy_from_slice(&(object.build_id.len() as u32).to_ne_bytes());
        let (path, build_id) = text.split_at_mut(object.path.len());
        path.copy_from_slice(object.path);
        build_id.copy_from_slice(object.build_id);
        self.used += length;
        self.count = number + 1;
        true
    }

    fn register_all(&self) {
        // SAFETY: as in `keep`.
        let memory = unsafe { core::slice::from_raw_parts(self.memory.as_ptr::<u8>(), self.used) };
        let mut rest = memory;
        while let Some((head, text)) = rest.split_at_checked(DESCRIPTION_HEAD) {
            let word = |at: usize| {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&head[at..at + 8]);
                u64::from_ne_bytes(bytes)
            };
            let lengths = word(8);
            let (path_bytes, build_id_bytes) = (lengths as u32 as usize, (lengths >> 32) as usize);
            let Some((path, text)) = text.split_at_checked(path_bytes) else {
                return;
            };
            let Some((build_id, text)) = text.split_at_checked(build_id_bytes) else {
                return;
            };
            rest = text;
            let object = LoadedObject {
                path,
                base: word(0),
                build_id,
            };
            let _ = RECORDER.module(&object);
        }
    }
}

/// A path that is being put together.
struct Path {
    bytes: [u8; LONGEST_PATH],
    length: usize,
}

impl Path {
    fn new() -> Self {
        Self {
            bytes: [0; LONGEST_PATH],
            length: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self
            .bytes
            .get_mut(self.length..)
            .and_then(|room| room.get_mut(..bytes.len()))
        else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.length += bytes.len();
        true
    }

    fn read_executable(&mut self) -> bool {
        let read = rustix::fs::readlinkat_raw(rustix::fs::CWD, c"/proc/self/exe", &mut self.bytes);
        self.length = read.unwrap_or(0);
        self.length > 0 && self.length < LONGEST_PATH
    }

    /// The working directory and a slash: the loader keeps relative paths as they were given.
    fn push_directory(&mut self) -> bool {
        let read = rustix::fs::readlinkat_raw(rustix::fs::CWD, c"/proc/self/cwd", &mut self.bytes);
        self.length = read.unwrap_or(0);
        self.length > 0 && self.push(b"/")
    }
}

/// The build-id in the notes of an object; empty where there is none.
fn build_id<'a>(object: &Object<'a>) -> &'a [u8] {
    let notes = object
        .headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE);
    for header in notes {
        let start = object.base.wrapping_add(header.p_vaddr as usize);
        // Notes that are in the file only are not to be read here.
        let end = start.wrapping_add(header.p_memsz as usize);
        if end < start || !object.contains(start) || !object.contains(end.wrapping_sub(1)) {
            continue;
        }
        // SAFETY: part of a loaded segment, which stays while the loader shows us the object.
        let bytes = unsafe {
            core::slice::from_raw_parts(
                core::ptr::with_exposed_provenance::<u8>(start),
                end - start,
            )
        };
        if let Some(found) = build_id_in(bytes) {
            return found;
        }
    }
    &[]
}

/// The build-id among notes: each has the lengths of its name and its text and a kind, then both, padded to four bytes.
fn build_id_in(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (head, rest) = notes.split_at_checked(12)?;
        let number = |at: usize| {
            let bytes = head.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let (name_bytes, text_bytes) = (number(0)? as usize, number(4)? as usize);
        let (name, rest) = rest.split_at_checked(name_bytes.next_multiple_of(4))?;
        let (text, rest) = rest.split_at_checked(text_bytes.next_multiple_of(4))?;
        if number(8)? == BUILD_ID_NOTE && name.starts_with(b"GNU\0") {
            return text.get(..text_bytes);
        }
        notes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_are_found_among_notes() {
        let mut notes = Vec::new();
        let mut note = |name: &[u8], kind: u32, text: &[u8]| {
            notes.extend((name.len() as u32).to_le_bytes());
            notes.extend((text.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            for part in [name, text] {
                notes.extend(part);
                notes.resize(notes.len().next_multiple_of(4), 0);
            }
        };
        note(b"GNU\0", 1, b"abi");
        note(b"Other\0", BUILD_ID_NOTE, b"no");
        note(b"GNU\0", BUILD_ID_NOTE, b"0123456789");
        assert_eq!(build_id_in(&notes), Some(&b"0123456789"[..]));
        for length in 0..notes.len() {
            let cut = build_id_in(&notes[..length]);
            assert!(cut.is_none() || cut == Some(b"0123456789"), "{length}");
        }
        assert_eq!(build_id_in(&[0xff; 40]), None);
    }
}
