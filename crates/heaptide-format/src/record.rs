//! The numbered records: stack nodes, cells, threads, slots and memory samples.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::header::code_enum;

/// Node 0: the root, an empty Python stack.
pub const NODE_ROOT: u32 = 0;
/// Node 1: all stacks for which the table had no room left.
pub const NODE_OVERFLOW: u32 = 1;
/// `code` of nodes that have no code object (root and overflow).
pub const NO_CODE: u32 = u32::MAX;
/// In [`Node::flags`]: stands for a fold of recursive frames, so more than one depth shares it.
pub const NODE_FOLDED: u32 = 1;
/// In [`Node::flags`]: no frame but a Python stack, the parent, together with a native one, whose node `code` is the number
/// of. Its `last_instruction` is zero, and nothing has it as its parent.
pub const NODE_COMBINED: u32 = 2;
/// In [`Node::flags`], where native stacks are recorded: the interpreter was entered from C for this frame.
pub const NODE_ENTRY: u32 = 4;
/// In [`Node::flags`], where native stacks are recorded: the frame is older than tracking and is not shown.
pub const NODE_BELOW: u32 = 8;
/// Thread 0 stands for all threads for which the table had no room left.
pub const THREAD_OVERFLOW: u32 = 0;

/// One frame of a stack, in a trie: the stack of a node is the node and its ancestors.
///
/// A parent always has a smaller number than its children.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Node {
    /// The caller's node.
    pub parent: u32,
    /// Number of the code object; of a [`NODE_COMBINED`] that of a native node.
    pub code: u32,
    /// Offset of the current instruction in the byte code, in bytes; -1 before the first.
    pub last_instruction: i32,
    /// [`NODE_FOLDED`], [`NODE_COMBINED`], [`NODE_ENTRY`], [`NODE_BELOW`].
    pub flags: u32,
}

/// Counters of one (stack, allocator, thread), written by that thread alone.
///
/// A block freed by another thread is counted by a [`CellKind::Remote`] cell of the *freeing*
/// thread that names the allocating cell, so no two threads write one cell at the same time. (Remote
/// cells of thread 0 are shared by many, under a lock; a thread may go on under the number of one that
/// has ended.) With `r` over the
/// remote cells of `c`: `live = c.allocated - c.freed - sum(r.freed)` and, with the heap's present
/// `epoch` and `headroom`, `at peak = sum over {c, r} of (headroom != 0 && x.epoch == epoch ? x.peak : x.allocated - x.freed)`.
///
/// An event stores in this order: `peak_*`, `epoch`, then the counter it moves (count before
/// bytes), so that a writer killed anywhere leaves at most one event half counted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Cell {
    /// Own cell: number of the stack node. Remote cell: number of the allocating cell.
    pub target: u32,
    /// Number of the thread that writes this cell.
    pub thread: u32,
    /// [`Allocator`] that made the blocks.
    pub allocator: u32,
    /// [`CellKind`]
    pub kind: u32,
    /// The heap's epoch when this cell was last touched.
    pub epoch: u64,
    /// Blocks allocated.
    pub allocated_count: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Blocks freed by this thread.
    pub freed_count: u64,
    /// Bytes freed by this thread.
    pub freed_bytes: u64,
    /// `allocated_count - freed_count` when `epoch` began (may be negative in a remote cell).
    pub peak_count: i64,
    /// `allocated_bytes - freed_bytes` when `epoch` began.
    pub peak_bytes: i64,
    /// Temporary blocks among the allocated.
    pub temporary_count: u64,
    /// Bytes of the temporary blocks.
    pub temporary_bytes: u64,
    /// Working field of the writer; readers ignore it.
    pub writer_link: u64,
}

/// One thread, living or dead.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Thread {
    /// Kernel thread id; zero for the overflow thread.
    pub thread_id: u32,
    /// Number of the [`Slot`] that counts for it.
    pub slot: u32,
    /// When its first event was recorded, nanoseconds since the Unix epoch.
    pub first_seen_unix_ns: u64,
    /// Operating system name (`comm`), NUL padded.
    pub os_name: [u8; 16],
    /// Name from Python's `threading`, UTF-8, NUL padded, empty when unknown; cut at a code point.
    pub python_name: [u8; 96],
}

/// Number of bins of the histogram of allocation sizes.
pub const HISTOGRAM_BINS: usize = 64;

/// Counters of one of the threads that live at the same time; used again by a later thread.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Slot {
    /// Number of the thread that has the slot now, or had it last.
    pub thread: u32,
    /// Zero.
    pub reserved0: u32,
    /// Allocations recorded.
    pub allocations: u64,
    /// Deallocations recorded.
    pub deallocations: u64,
    /// Events not recorded because they happened inside a hook (a signal handler that allocates).
    pub missed_reentrant: u64,
    /// Deallocations of blocks that were allocated before tracking, or were missed.
    pub unknown_frees: u64,
    /// Blocks found at an address that was never freed (the missed free is counted here, and the
    /// old block is counted as freed then).
    pub missed_frees: u64,
    /// How many events had their own cost measured.
    pub timed_events: u64,
    /// Nanoseconds spent in the agent by these.
    pub timed_ns: u64,
    /// Zero.
    pub reserved: [u64; 8],
    /// Allocations by size: bin 0 counts size 0, bin n sizes in `[2^(n-1), 2^n)`; the last bin has no upper bound.
    pub histogram: [u64; HISTOGRAM_BINS],
    /// Zero.
    pub reserved1: [u64; 48],
}

/// The bin of [`Slot::histogram`] for an allocation of `size` bytes.
#[must_use]
#[inline]
pub const fn histogram_bin(size: u64) -> usize {
    let bin = (u64::BITS - size.leading_zeros()) as usize;
    if bin < HISTOGRAM_BINS {
        bin
    } else {
        HISTOGRAM_BINS - 1
    }
}

/// Smallest and largest size counted in `bin`.
#[must_use]
pub const fn histogram_bounds(bin: usize) -> (u64, u64) {
    match bin {
        0 => (0, 0),
        1..HISTOGRAM_BINS => {
            let low = 1u64 << (bin - 1);
            (
                low,
                if bin == HISTOGRAM_BINS - 1 {
                    u64::MAX
                } else {
                    low * 2 - 1
                },
            )
        }
        _ => (u64::MAX, u64::MAX),
    }
}

/// Memory of the process at one moment. Readers sort by time and drop equal times: a writer thins
/// the table out in place when it is full.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Sample {
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Resident set size, bytes.
    pub resident_bytes: u64,
    /// Tracked heap, bytes.
    pub heap_bytes: u64,
    /// Usage of the memory cgroup, bytes; zero when there is none.
    pub cgroup_bytes: u64,
    /// Limit of the memory cgroup, bytes; zero when there is none.
    pub cgroup_limit_bytes: u64,
    /// In mode "all": the turn the sampler took, which places the sample among the events.
    pub turn: u64,
}

/// A Python object that was made while tracking was on and was alive when it ended.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Survivor {
    /// Where it was (`id()` of CPython).
    pub address: u64,
    /// Node of the stack that made it.
    pub node: u32,
    /// Number of the thread that made it, or [`NO_THREAD`].
    pub thread: u32,
    /// String number of the name of its type, or [`NO_STRING`].
    pub type_name: u32,
    /// Zero.
    pub reserved: u32,
}

/// In [`Survivor::type_name`]: the name is not known.
pub const NO_STRING: u32 = u32::MAX;
/// In [`Survivor::thread`]: the thread is not known.
pub const NO_THREAD: u32 = u32::MAX;

const _: () = {
    assert!(size_of::<Survivor>() == 24);
    assert!(size_of::<Node>() == 16);
    assert!(size_of::<Cell>() == 96);
    assert!(size_of::<Thread>() == 128);
    assert!(size_of::<Slot>() == 1024);
    assert!(size_of::<Sample>() == 48);
};

code_enum! {
    /// Who writes a cell and what it counts.
    CellKind {
        /// Allocations of a stack, and their frees by the same thread.
        Own = 1 => "own",
        /// Frees of blocks that another thread allocated.
        Remote = 2 => "remote",
    }
}

code_enum! {
    /// The function that made a block. The numbers are those of Memray 1.19 and later; for requests to
    /// Python's own allocators that is the low half byte, and the high one is the [`PythonDomain`].
    Allocator {
        /// Given back to one of Python's own allocators; which one was not recorded (captures made from Memray's).
        PymallocFree = 1 => "PYMALLOC_FREE",
        /// `malloc` of one of Python's own allocators; which one was not recorded.
        PymallocMalloc = 2 => "PYMALLOC_MALLOC",
        /// `calloc` of one of Python's own allocators; which one was not recorded.
        PymallocCalloc = 3 => "PYMALLOC_CALLOC",
        /// `realloc` of one of Python's own allocators; which one was not recorded.
        PymallocRealloc = 4 => "PYMALLOC_REALLOC",
        /// `free`
        Free = 5 => "FREE",
        /// `malloc`
        Malloc = 6 => "MALLOC",
        /// `realloc`, `reallocarray`
        Realloc = 7 => "REALLOC",
        /// `calloc`
        Calloc = 8 => "CALLOC",
        /// `posix_memalign`
        PosixMemalign = 9 => "POSIX_MEMALIGN",
        /// `aligned_alloc`
        AlignedAlloc = 10 => "ALIGNED_ALLOC",
        /// `memalign`
        Memalign = 11 => "MEMALIGN",
        /// `valloc`
        Valloc = 12 => "VALLOC",
        /// `pvalloc`
        Pvalloc = 13 => "PVALLOC",
        /// `mmap`, `mremap`
        Mmap = 14 => "MMAP",
        /// `munmap`
        Munmap = 15 => "MUNMAP",
        /// `PyMem_RawFree`
        RawFree = 17 => "PYMALLOC_FREE",
        /// `PyMem_RawMalloc`
        RawMalloc = 18 => "PYMALLOC_MALLOC",
        /// `PyMem_RawCalloc`
        RawCalloc = 19 => "PYMALLOC_CALLOC",
        /// `PyMem_RawRealloc`
        RawRealloc = 20 => "PYMALLOC_REALLOC",
        /// `PyMem_Free`
        MemFree = 33 => "PYMALLOC_FREE",
        /// `PyMem_Malloc`
        MemMalloc = 34 => "PYMALLOC_MALLOC",
        /// `PyMem_Calloc`
        MemCalloc = 35 => "PYMALLOC_CALLOC",
        /// `PyMem_Realloc`
        MemRealloc = 36 => "PYMALLOC_REALLOC",
        /// `PyObject_Free`
        ObjectFree = 49 => "PYMALLOC_FREE",
        /// `PyObject_Malloc`
        ObjectMalloc = 50 => "PYMALLOC_MALLOC",
        /// `PyObject_Calloc`
        ObjectCalloc = 51 => "PYMALLOC_CALLOC",
        /// `PyObject_Realloc`
        ObjectRealloc = 52 => "PYMALLOC_REALLOC",
    }
}

code_enum! {
    /// Which of Python's own allocators a request went to.
    PythonDomain {
        /// `PyMem_RawMalloc` and its kin: may be asked without the GIL.
        Raw = 1 => "raw",
        /// `PyMem_Malloc` and its kin: buffers.
        Mem = 2 => "mem",
        /// `PyObject_Malloc` and its kin: objects.
        Object = 3 => "object",
    }
}

impl Allocator {
    /// The domain, of a request to one of Python's own allocators.
    #[must_use]
    pub const fn python_domain(self) -> Option<PythonDomain> {
        PythonDomain::from_raw(self as u32 >> 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_allocators_tell_kind_and_domain() {
        let mut found = 0;
        for raw in 0..256 {
            let Some(allocator) = Allocator::from_raw(raw) else {
                continue;
            };
            let domain = allocator.python_domain();
            let named = allocator.name().starts_with("PYMALLOC_");
            assert_eq!(domain.is_some() || raw < 5, named);
            if let Some(domain) = domain {
                assert_eq!(domain as u32, raw >> 4);
                let kinds = ["FREE", "MALLOC", "CALLOC", "REALLOC"];
                let kind = kinds[(raw & 0xf) as usize - 1];
                assert_eq!(allocator.name().strip_prefix("PYMALLOC_"), Some(kind));
                found += 1;
            }
        }
        assert_eq!(found, 12);
        assert_eq!(Allocator::from_raw(50), Some(Allocator::ObjectMalloc));
    }
}
