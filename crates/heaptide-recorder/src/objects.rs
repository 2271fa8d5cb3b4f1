//! Python objects that live: who made them. Private memory; who is left at the end is written to the capture. Where each creation
//! and each destruction is an event, see `events.rs`.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use heaptide_format::{NO_STRING, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind, Survivor};

use crate::definitions::RawText;
use crate::file::Stop;
use crate::live::{Live, LiveTable};
use crate::memory::Mapping;
use crate::recorder::Recorder;

/// Survivors in a segment at most: 6 MiB, so that room is taken step by step.
const SURVIVORS_PER_SEGMENT: usize = 1 << 18;
/// Types whose names are remembered.
const KNOWN_TYPES: usize = 256;

/// An object that lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LiveObject {
    /// Where it is.
    pub address: u64,
    /// Node of the stack that made it.
    pub node: u32,
    /// Number of the thread that made it.
    pub thread: u16,
    /// Its place in the order in which objects were made; the last number stands for all that come later.
    pub order: u32,
}

/// The type of an object.
#[derive(Clone, Copy, Debug)]
pub struct TypeName<'a> {
    /// What tells it from other types; not 0.
    pub key: usize,
    /// Its name, UTF-8.
    pub name: &'a [u8],
}

/// The numbers of the names of types that were met lately. For one thread at a time: whoever holds the GIL.
///
/// A type whose object is destroyed must be forgotten, for another may come to lie where it was.
pub struct KnownTypes([(usize, u32); KNOWN_TYPES]);

impl KnownTypes {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self([(0, NO_STRING); KNOWN_TYPES])
    }

    const fn place(key: usize) -> usize {
        key / 16 % KNOWN_TYPES
    }

    /// Whatever was a type here is none any more.
    #[inline(always)]
    pub fn forget(&mut self, key: usize) {
        let place = &mut self.0[Self::place(key)];
        if place.0 == key {
            *place = (0, NO_STRING);
        }
    }

    /// The number of a type's name, which `define` makes known.
    #[inline(always)]
    fn number(
        &mut self,
        key: usize,
        define: impl FnOnce() -> Result<Option<u32>, Stop>,
    ) -> Result<u32, Stop> {
        let place = &mut self.0[Self::place(key)];
        if place.0 != key {
            *place = (key, define()?.unwrap_or(NO_STRING));
        }
        Ok(place.1)
    }
}

impl Default for KnownTypes {
    fn default() -> Self {
        Self::new()
    }
}

/// The objects that live, by address. 22 to 31 bytes each.
///
/// All of it is for one thread at a time: whoever holds the GIL.
pub struct LiveObjects {
    table: LiveTable,
    made: AtomicU64,
}

impl LiveObjects {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            table: LiveTable::new(),
            made: AtomicU64::new(0),
        }
    }

    /// An object was made. `false`: there is no memory to remember it.
    ///
    /// # Safety
    /// Nobody else uses this value meanwhile.
    #[inline]
    pub unsafe fn insert(&self, address: u64, node: u32, thread: u32) -> bool {
        if !LiveTable::holds(address) {
            return false;
        }
        // One writer, so load and store will do.
        let order = self.made.load(Ordering::Relaxed);
        self.made.store(order + 1, Ordering::Relaxed);
        let live = Live {
            size: u64::from(thread as u16) << 32 | order.min(u64::from(u32::MAX)),
            cell: node,
        };
        // SAFETY: the caller's promise.
        unsafe { self.table.insert(address, live, true) }.is_ok()
    }

    /// The object at `address` is destroyed. Whether it was one of ours.
    ///
    /// # Safety
    /// As [`LiveObjects::insert`].
    #[inline]
    pub unsafe fn remove(&self, address: u64) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.table.remove(address, true) }.is_some()
    }

    /// Those that live, in the order in which they were made; `None` when there is no memory for the list.
    ///
    /// # Safety
    /// As [`LiveObjects::insert`].
    #[must_use]
    pub unsafe fn in_order(&self) -> Option<ObjectList> {
        let length = self.table.len();
        let memory = Mapping::new(length * size_of::<LiveObject>())?;
        let mut list = ObjectList { memory, length: 0 };
        // SAFETY: the caller's promise; the mapping has room for `length` records, and the table has no more.
        unsafe {
            self.table.for_each(|address, live| {
                let object = LiveObject {
                    address,
                    node: live.cell,
                    thread: (live.size >> 32) as u16,
                    order: live.size as u32,
                };
                list.memory
                    .as_ptr::<LiveObject>()
                    .add(list.length)
                    .write(object);
                list.length += 1;
            });
        }
        list.objects_mut()
            .sort_unstable_by_key(|object| (object.order, object.address));
        Some(list)
    }

    /// Forgets all and gives the memory back.
    ///
    /// # Safety
    /// As [`LiveObjects::insert`].
    pub unsafe fn release(&self) {
        self.table.release();
        self.made.store(0, Ordering::Relaxed);
    }
}

impl Default for LiveObjects {
    fn default() -> Self {
        Self::new()
    }
}

/// A list of objects, in memory of our own.
#[derive(Debug)]
pub struct ObjectList {
    memory: Mapping,
    length: usize,
}

impl ObjectList {
    /// The objects.
    #[must_use]
    pub fn objects(&self) -> &[LiveObject] {
        // SAFETY: so many records were written; the mapping is aligned to pages and lives as long as `self`.
        unsafe { core::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }

    fn objects_mut(&mut self) -> &mut [LiveObject] {
        // SAFETY: as in `objects`.
        unsafe { core::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }
}

impl Recorder {
    /// Writes to the capture who has survived. There is at least one segment then, be it an empty one: that is how a reader
    /// knows that the answer is there. `type_of` tells the type of the object at an address.
    ///
    /// # Errors
    /// No room.
    pub fn survivors<'a>(
        &self,
        objects: &[LiveObject],
        type_of: impl Fn(u64) -> TypeName<'a>,
    ) -> Result<(), Stop> {
        let _growth = self.growth.lock();
        let mut known = KnownTypes::new();
        let mut written = 0;
        loop {
            let count = (objects.len() - written).min(SURVIVORS_PER_SEGMENT);
            let segment = self.file.append(
                SegmentKind::Survivors,
                count * size_of::<Survivor>(),
                written as u64,
                size_of::<Survivor>() as u32,
            )?;
            // SAFETY: the segment has room for `count` records behind its header, and is not known to readers to have any.
            let records = unsafe { segment.add(SEGMENT_HEADER_BYTES) }.cast::<Survivor>();
            for (position, object) in objects[written..written + count].iter().enumerate() {
                let of = type_of(object.address);
                let type_name = known.number(of.key, || {
                    self.definitions.string(&self.file, utf8(of.name))
                })?;
                let survivor = Survivor {
                    address: object.address,
                    node: object.node,
                    thread: u32::from(object.thread),
                    type_name,
                    reserved: 0,
                };
                // SAFETY: as above.
                unsafe { records.add(position).write(survivor) };
            }
            commit(segment, count * size_of::<Survivor>());
            written += count;
            if written == objects.len() {
                return Ok(());
            }
        }
    }
}

impl Recorder {
    /// The number of the name of an object's type; [`NO_STRING`] where there is no room for it in the table.
    ///
    /// # Errors
    /// No room in the file.
    #[inline(always)]
    pub fn type_name(&self, types: &mut KnownTypes, of: TypeName<'_>) -> Result<u32, Stop> {
        types.number(of.key, || self.define_type(of.name))
    }

    #[cold]
    #[inline(never)]
    fn define_type(&self, name: &[u8]) -> Result<Option<u32>, Stop> {
        let _growth = self.growth.lock();
        self.definitions.string(&self.file, utf8(name))
    }
}

fn utf8(bytes: &[u8]) -> RawText<'_> {
    RawText { bytes, kind: 0 }
}

/// Readers may read so many bytes of the segment.
fn commit(segment: NonNull<u8>, bytes: usize) {
    // SAFETY: the header of a segment that was just made.
    unsafe {
        let committed = segment
            .as_ptr()
            .add(core::mem::offset_of!(SegmentHeader, committed));
        // Release: a reader that sees the length sees the records.
        AtomicU64::from_ptr(committed.cast()).store(bytes as u64, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn types_are_asked_for_once_and_forgotten_with_their_objects() {
        let mut types = KnownTypes::new();
        let asked = Cell::new(0);
        let number = |types: &mut KnownTypes, key, answer| {
            let define = || {
                asked.set(asked.get() + 1);
                Ok(answer)
            };
            types.number(key, define).unwrap()
        };
        assert_eq!(number(&mut types, 0x1000, Some(7)), 7);
        assert_eq!(number(&mut types, 0x1000, None), 7);
        assert_eq!(asked.get(), 1);
        // Another that has the same place, and one that does not.
        types.forget(0x1000 + 16 * KNOWN_TYPES);
        types.forget(0x1010);
        assert_eq!(number(&mut types, 0x1000, None), 7);
        types.forget(0x1000);
        assert_eq!(number(&mut types, 0x1000, Some(9)), 9);
        assert_eq!(
            number(&mut types, 0x1000 + 16 * KNOWN_TYPES, None),
            NO_STRING
        );
        assert_eq!(number(&mut types, 0x1000, Some(9)), 9);
        assert_eq!(asked.get(), 4);
    }

    #[test]
    fn who_lives_is_told_in_order() {
        let objects = LiveObjects::new();
        // SAFETY: one thread.
        unsafe {
            assert!(objects.in_order().unwrap().objects().is_empty());
            for number in (0..1000u64).rev() {
                assert!(objects.insert(0x7f00_0000_0000 + number * 16, 7, 65_535));
            }
            assert!(!objects.insert(0, 7, 1));
            for number in 0..998 {
                assert!(objects.remove(0x7f00_0000_0000 + number * 16));
            }
            assert!(!objects.remove(0x7f00_0000_0000));
            let list = objects.in_order().unwrap();
            let object = |number: u64, order| LiveObject {
                address: 0x7f00_0000_0000 + number * 16,
                node: 7,
                thread: 65_535,
                order,
            };
            assert_eq!(list.objects(), [object(999, 0), object(998, 1)]);
            objects.release();
            assert!(objects.in_order().unwrap().objects().is_empty());
        }
    }
}
