//! The header page: who wrote the file, how the program fares, and the words every event touches.
//!
//! Blocks on cache lines of their own, by writer and by heat:
//! [`Identity`] never changes and carries a checksum; [`Lifecycle`] changes a few times in a run;
//! [`HeapWord`] changes at every event; [`OwnCost`] when the profiler itself grows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first eight bytes of every capture.
pub const MAGIC: [u8; 8] = *b"heaptide";
/// The version this crate describes.
pub const FORMAT_VERSION: u32 = 1;
/// Size of the header page; the first segment follows it.
pub const HEADER_BYTES: usize = 4096;

/// Bit of [`Identity::required_features`]: events are in segments of [`crate::SegmentKind::PackedEvents`].
pub const FEATURE_PACKED_EVENTS: u64 = 1;
/// Bit of [`Identity::required_features`]: there are segments that are [`crate::SEGMENT_IN_BLOCKS`].
pub const FEATURE_PACKED_RECORDS: u64 = 2;
/// Bit of [`Identity::required_features`]: there may be events of Python objects among those of blocks.
pub const FEATURE_OBJECT_EVENTS: u64 = 4;
/// Bit of [`Identity::required_features`]: native stacks are recorded, so nodes may be [`crate::NODE_COMBINED`].
pub const FEATURE_NATIVE_STACKS: u64 = 8;
/// Bit of [`Identity::required_features`]: stack nodes are in segments of [`crate::SegmentKind::NodeStream`].
pub const FEATURE_NODE_STREAM: u64 = 16;
/// All bits of [`Identity::required_features`] that this version knows.
pub const KNOWN_FEATURES: u64 = FEATURE_PACKED_EVENTS
    | FEATURE_PACKED_RECORDS
    | FEATURE_OBJECT_EVENTS
    | FEATURE_NATIVE_STACKS
    | FEATURE_NODE_STREAM;

/// In [`Identity::options`]: requests to Python's own allocators are recorded.
pub const PYTHON_ALLOCATORS: u32 = 1;
/// In [`Identity::options`]: nothing is kept (`-o /dev/null`), so events need no place in the file.
pub const NOTHING_KEPT: u32 = 2;

/// In [`Identity::options`]: only what was live at the peak and at the end is known, not what was allocated in all
/// and what was temporary (captures made from Memray's aggregated ones).
pub const TOTALS_UNKNOWN: u32 = 4;

/// In [`Identity::options`]: the lives of Python objects are tracked. Which of them survive is written when tracking ends, see
/// [`crate::Survivor`]; whether each creation and destruction is an event, [`FEATURE_OBJECT_EVENTS`] says.
pub const PYTHON_OBJECTS: u32 = 8;

/// Byte offsets of the blocks of the header page.
pub mod offsets {
    /// [`super::Identity`]
    pub const IDENTITY: usize = 0;
    /// [`super::Lifecycle`]
    pub const LIFECYCLE: usize = 512;
    /// [`super::HeapWord`]
    pub const HEAP: usize = 1024;
    /// [`super::OwnCost`]
    pub const OWN: usize = 1088;
    /// The turn counter of mode "all", a `u64`; see [`crate::Encoder::turn`].
    pub const TURN: usize = 1216;
}

/// What is known when the file is made. Written once, before the program starts.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Identity {
    /// [`MAGIC`]
    pub magic: [u8; 8],
    /// [`FORMAT_VERSION`]
    pub version: u32,
    /// [`HEADER_BYTES`]; a reader finds the first segment here.
    pub header_bytes: u32,
    /// Bits a reader must know, or refuse the file: [`KNOWN_FEATURES`].
    pub required_features: u64,
    /// Bits a reader may ignore.
    pub optional_features: u64,
    /// Page size of the writing machine; segments start and end on such pages.
    pub page_bytes: u32,
    /// [`Mode`]
    pub mode: u32,
    /// Process id of the program, in its own pid namespace.
    pub pid: u32,
    /// Process id of its parent.
    pub parent_pid: u32,
    /// When the file was made, nanoseconds since the Unix epoch.
    pub created_unix_ns: u64,
    /// `/proc/sys/kernel/random/boot_id` as 16 bytes; zero when unknown.
    pub boot_id: [u8; 16],
    /// Inode number of the pid namespace; zero when unknown.
    pub pid_namespace: u64,
    /// Start time of the process in clock ticks since boot (field 22 of `/proc/PID/stat`); with
    /// `boot_id` and `pid_namespace` it tells whether the process still runs.
    pub process_start_ticks: u64,
    /// How many allocations one recorded allocation stands for; 1 = every one is recorded.
    pub sample_weight: u64,
    /// Wanted interval of the memory samples, milliseconds; 0 = none.
    pub memory_interval_ms: u32,
    /// A block freed by its own thread when at most this many other allocations of that thread had
    /// happened since is temporary.
    pub temporary_threshold: u32,
    /// How many stack nodes may exist before stacks are folded.
    pub stack_node_budget: u32,
    /// What else is recorded, a bit for each: [`PYTHON_ALLOCATORS`].
    pub options: u32,
    /// The same in all captures of one session; zero when processes are not followed.
    pub group_id: [u8; 16],
    /// When the process was forked or started, nanoseconds since the Unix epoch; zero in the root's capture.
    pub origin_unix_ns: u64,
    /// [`Origin`]; zero where processes are not followed.
    pub origin: u32,
    /// Process id of the program that `heaptide run` started; zero where processes are not followed.
    pub root_pid: u32,
    /// Zero.
    pub reserved: [u8; 364],
    /// Checksum of all bytes of this block before this field.
    pub checksum: u32,
}

/// What happens to the process and to the tracking of it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Lifecycle {
    /// [`State`], stored by the agent.
    pub state: u32,
    /// [`StopReason`], meaningful in [`State::Stopped`].
    pub stop_reason: u32,
    /// `errno` behind the stop reason, or zero.
    pub stop_errno: i32,
    /// `PY_VERSION_HEX` of the interpreter; zero until tracking starts.
    pub python_version: u32,
    /// [`PythonAllocator`]
    pub python_allocator: u32,
    /// Kernel id of the thread in which tracking started.
    pub main_thread_id: u32,
    /// When tracking started, nanoseconds since the Unix epoch; zero before.
    pub tracking_start_unix_ns: u64,
    /// When tracking ended, nanoseconds since the Unix epoch; zero until then.
    pub tracking_end_unix_ns: u64,
    /// Last sign of life of the program that a sampler saw, nanoseconds since the Unix epoch.
    pub heartbeat_unix_ns: u64,
    /// When the program last asked to be replaced by `exec`; zero if never, and again when the agent
    /// notices that the program goes on. A program that dies right after an exec that failed leaves it set.
    pub exec_unix_ns: u64,
    /// First byte of the file not yet given to a segment.
    pub allocated_end: u64,
    /// [`Outcome`], stored by the supervisor after the death.
    pub outcome: u32,
    /// Exit code or signal number, by `outcome`.
    pub outcome_value: i32,
    /// How many times the OOM killer struck in the program's memory cgroup during the run.
    pub oom_kills: u64,
    /// When the supervisor saw the end, nanoseconds since the Unix epoch; zero until then.
    pub ended_unix_ns: u64,
    /// Zero.
    pub reserved: [u8; 424],
}

/// The heap as a whole: one 16-byte word that changes atomically, and the peak beside it.
///
/// `live bytes = peak_bytes - headroom`. `epoch` counts the *falling edges*: an event that takes
/// the heap down from its maximum first makes a new epoch, so that whatever has not been touched
/// since an epoch began is now what it was at the peak. While `headroom` is zero the peak is now.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct HeapWord {
    /// Bytes between the maximum so far and the heap now.
    pub headroom: u64,
    /// Number of falling edges so far.
    pub epoch: u64,
    /// The maximum so far.
    pub peak_bytes: u64,
}

/// What the profiler itself uses and what it had to leave out.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct OwnCost {
    /// Anonymous memory mapped by the agent, bytes.
    pub anonymous_bytes: u64,
    /// Bytes of the capture mapped into the process.
    pub mapped_bytes: u64,
    /// Times a frame was folded onto its outermost earlier occurrence because the node budget ran low.
    pub folded_stacks: u64,
    /// Allocations given to the overflow node.
    pub overflow_stacks: u64,
    /// Walks that ended early because a stack was deeper than the walker can hold.
    pub truncated_stacks: u64,
    /// Code objects left undescribed because their table was full.
    pub dropped_code: u64,
    /// Loaded objects whose slots were patched.
    pub patched_objects: u64,
    /// Slots patched.
    pub patched_slots: u64,
    /// Threads without a number of their own: they go on under that of one that has ended, or share
    /// the overflow thread because the table was full.
    pub overflow_threads: u64,
    /// Walks that ended early and were compared with a whole one (`HEAPTIDE_EARLY_STOP=check`).
    pub early_stops_compared: u64,
    /// Of these, how many were wrong.
    pub early_stop_mismatches: u64,
    /// Zero.
    pub reserved: [u64; 5],
}

/// The whole header page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// Offset 0.
    pub identity: Identity,
    /// Offset 512.
    pub lifecycle: Lifecycle,
    /// Offset 1024.
    pub heap: HeapWord,
    /// Zero.
    pub reserved0: [u8; 40],
    /// Offset 1088.
    pub own: OwnCost,
    /// Offset 1216: the turn counter of mode "all".
    pub turn: u64,
    /// Zero.
    pub reserved1: [u8; 2872],
}

const _: () = {
    assert!(size_of::<Identity>() == 512);
    assert!(size_of::<Lifecycle>() == 512);
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(core::mem::offset_of!(Header, lifecycle) == offsets::LIFECYCLE);
    assert!(core::mem::offset_of!(Header, heap) == offsets::HEAP);
    assert!(core::mem::offset_of!(Header, own) == offsets::OWN);
    assert!(core::mem::offset_of!(Header, turn) == offsets::TURN);
    assert!(offsets::HEAP.is_multiple_of(64) && offsets::TURN.is_multiple_of(64));
};

impl Identity {
    /// The checksum this block should carry.
    #[must_use]
    pub fn expected_checksum(&self) -> u32 {
        let bytes = self.as_bytes();
        crate::checksum(&bytes[..bytes.len() - 4])
    }

    /// Is it known what was allocated in all, and what was temporary?
    #[must_use]
    pub const fn knows_totals(&self) -> bool {
        self.options & TOTALS_UNKNOWN == 0
    }

    /// Was it asked which Python objects survive?
    #[must_use]
    pub const fn tracks_objects(&self) -> bool {
        self.options & PYTHON_OBJECTS != 0
    }

    /// Are creations and destructions of Python objects among the events?
    #[must_use]
    pub const fn holds_object_events(&self) -> bool {
        self.required_features & FEATURE_OBJECT_EVENTS != 0
    }

    /// Are native stacks recorded?
    #[must_use]
    pub const fn holds_native_stacks(&self) -> bool {
        self.required_features & FEATURE_NATIVE_STACKS != 0
    }

    /// Are requests to Python's own allocators recorded?
    #[must_use]
    pub const fn traces_python_allocators(&self) -> bool {
        self.options & PYTHON_ALLOCATORS != 0
    }
}

macro_rules! code_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)+ }

        impl $name {
            /// The value a file may hold, or `None` for one this version does not know.
            #[must_use]
            pub const fn from_raw(raw: u32) -> Option<Self> {
                match raw { $($value => Some(Self::$variant),)+ _ => None }
            }
            /// The name used in reports and JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}
pub(crate) use code_enum;

code_enum! {
    /// What the capture holds.
    Mode {
        /// Counters per (stack, allocator, thread).
        Aggregated = 1 => "aggregated",
        /// Every event.
        All = 2 => "all",
    }
}

code_enum! {
    /// How a process came into a group of followed processes.
    Origin {
        /// `heaptide run` started it.
        Root = 1 => "root",
        /// A followed process forked it.
        Forked = 2 => "forked",
        /// It is a program of its own below the root, started by exec.
        Started = 3 => "started",
    }
}

code_enum! {
    /// Where tracking stands.
    State {
        /// The file is made; tracking has not started.
        Armed = 1 => "armed",
        /// Tracking is on, or the process died while it was.
        Tracking = 2 => "tracking",
        /// Tracking ended as it should: the interpreter was about to finalise, or was asked to stop.
        Finished = 3 => "finished",
        /// Tracking gave up early; see [`StopReason`]. The figures are true up to that moment.
        Stopped = 4 => "stopped",
    }
}

code_enum! {
    /// Why tracking gave up.
    StopReason {
        /// It did not.
        None = 0 => "none",
        /// There is no room for the file to grow (disk full, quota, `RLIMIT_FSIZE`).
        NoSpace = 1 => "no space for the capture",
        /// The file could not be mapped.
        MapFailed = 2 => "the capture could not be mapped",
        /// A bug in the agent was caught.
        Internal = 3 => "internal error in the agent",
        /// The capture reached the largest size it may have.
        TooLarge = 4 => "the capture reached its largest size",
        /// No private memory could be had for the table of live blocks.
        NoMemory = 5 => "no memory for the table of live blocks",
        /// The interpreter is not one whose frames the agent can read.
        Unsupported = 6 => "unsupported interpreter",
        /// Nobody is left to write the capture to its destination: `heaptide run --buffered-file-io` has ended.
        Unwatched = 7 => "heaptide run has ended",
        /// The kernel refused to let the file grow for another reason than its size, a sandbox for one.
        NotGrown = 8 => "the capture could not grow",
    }
}

impl StopReason {
    /// What it means that the file could not grow, by the `errno` of Linux.
    #[must_use]
    pub const fn of_growth(errno: i32) -> Self {
        const EFBIG: i32 = 27;
        const ENOSPC: i32 = 28;
        const EDQUOT: i32 = 122;
        match errno {
            EFBIG | ENOSPC | EDQUOT => Self::NoSpace,
            _ => Self::NotGrown,
        }
    }
}

code_enum! {
    /// How the process ended, as its parent saw it.
    Outcome {
        /// Not known (yet): it runs, or the supervisor died too.
        Unknown = 0 => "unknown",
        /// It exited; the value is its exit code.
        Exited = 1 => "exited",
        /// A signal killed it; the value is the signal number.
        Signaled = 2 => "signaled",
    }
}

code_enum! {
    /// The interpreter's object allocator.
    PythonAllocator {
        /// Not determined.
        Unknown = 0 => "unknown",
        /// pymalloc
        Pymalloc = 1 => "pymalloc",
        /// pymalloc with debug hooks
        PymallocDebug = 2 => "pymalloc debug",
        /// The C library's malloc
        Malloc = 3 => "malloc",
        /// Another allocator
        Other = 4 => "other",
        /// mimalloc
        Mimalloc = 5 => "mimalloc",
        /// mimalloc with debug hooks
        MimallocDebug = 6 => "mimalloc debug",
        /// malloc with debug hooks
        MallocDebug = 7 => "malloc debug",
    }
}
