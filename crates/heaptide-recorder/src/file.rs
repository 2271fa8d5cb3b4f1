//! The capture as a growing shared mapping.
//!
//! Segments are mapped side by side in a few windows of reserved address space, so that trimming our
//! resident set is a few calls. The windows are small, for a program may live under a limit of its
//! address space (`RLIMIT_AS`), which counts what is reserved.

use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence,
};

use heaptide_format::{
    HEADER_BYTES, Lifecycle, OwnCost, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind, State,
    StopReason, offsets,
};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::heap::Heap;
use crate::lock::SpinLock;
use crate::residency::{MOST_RESIDENT_BYTES, MOST_RESIDENT_NATIVE_BYTES, Residency};

/// Tracking can go on no longer; the reason is in the header, and nothing more may be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

/// The largest capture.
const LARGEST_BYTES: usize = 1 << 30;
/// The largest that holds every event.
const LARGEST_EVENTS_BYTES: usize = 1 << 46;
/// Reserved at first, and from then on.
const FIRST_WINDOW_BYTES: usize = 2 << 20;
const WINDOW_BYTES: usize = 16 << 20;
const MOST_WINDOWS: usize = 80;
/// Our descriptor keeps out of the way of programs that count on getting the low numbers.
const DESCRIPTOR: i32 = 700;

/// Growth between two looks at how much is resident.
const TRIM_STEP_BYTES: usize = 512 << 10;

/// The mapped capture file.
#[derive(Debug)]
pub struct CaptureFile {
    /// The header page, which begins the first window.
    base: AtomicPtr<u8>,
    windows: [Window; MOST_WINDOWS],
    window_count: AtomicUsize,
    page: AtomicUsize,
    /// Bytes of the file that are mapped, all windows together.
    mapped: AtomicUsize,
    descriptor: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
    grown_since_trim: AtomicUsize,
    residency: Residency,
    /// A chunk that was just mapped and that no stream has yet, with its length: a forked child does not get it.
    apart: AtomicPtr<u8>,
    apart_bytes: AtomicUsize,
    path: SpinLock<Path>,
}

/// A range of reserved addresses; from its start on, part of the file is mapped.
#[derive(Debug)]
struct Window {
    address: AtomicPtr<u8>,
    reserved: AtomicUsize,
    mapped: AtomicUsize,
}

/// The absolute path of the file, NUL-terminated, to open it again when our descriptor was closed.
#[derive(Debug)]
struct Path {
    bytes: [u8; 4096],
}

impl CaptureFile {
    /// Not open yet; `const` so that it can be a static.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            base: AtomicPtr::new(core::ptr::null_mut()),
            windows: [const {
                Window {
                    address: AtomicPtr::new(core::ptr::null_mut()),
                    reserved: AtomicUsize::new(0),
                    mapped: AtomicUsize::new(0),
                }
            }; MOST_WINDOWS],
            window_count: AtomicUsize::new(0),
            page: AtomicUsize::new(4096),
            mapped: AtomicUsize::new(0),
            descriptor: AtomicI32::new(-1),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            grown_since_trim: AtomicUsize::new(0),
            residency: Residency::new(),
            apart: AtomicPtr::new(core::ptr::null_mut()),
            apart_bytes: AtomicUsize::new(0),
            path: SpinLock::new(Path { bytes: [0; 4096] }),
        }
    }

    /// Opens and maps the capture that the supervisor made. `path` is absolute, without NUL bytes.
    ///
    /// # Errors
    /// The `errno` of the call that failed; nothing stays open or mapped.
    pub fn open(&self, path: &[u8]) -> Result<(), rustix::io::Errno> {
        let mut slot = self.path.lock();
        if path.len() >= slot.bytes.len() {
            return Err(rustix::io::Errno::NAMETOOLONG);
        }
        slot.bytes[..path.len()].copy_from_slice(path);
        slot.bytes[path.len()] = 0;
        let descriptor = slot.open()?;
        drop(slot);
        self.attach(descriptor)
    }

    /// Maps the file behind `descriptor`, which is found at `path` should the descriptor get lost.
    pub(crate) fn adopt(&self, descriptor: OwnedFd, path: &[u8]) -> Result<(), rustix::io::Errno> {
        let mut slot = self.path.lock();
        if path.len() >= slot.bytes.len() {
            return Err(rustix::io::Errno::NAMETOOLONG);
        }
        slot.bytes[..path.len()].copy_from_slice(path);
        slot.bytes[path.len()] = 0;
        drop(slot);
        self.attach(descriptor)
    }

    fn attach(&self, descriptor: OwnedFd) -> Result<(), rustix::io::Errno> {
        let status = rustix::fs::fstat(&descriptor)?;
        let length = usize::try_from(status.st_size).map_err(|_| rustix::io::Errno::FBIG)?;
        if length < HEADER_BYTES {
            return Err(rustix::io::Errno::INVAL);
        }
        let page = rustix::param::page_size();
        self.page.store(page, Ordering::Relaxed);
        let length = length.next_multiple_of(page);
        self.open_window(length.max(FIRST_WINDOW_BYTES))?;
        let descriptor = out_of_the_way(descriptor);
        let base = self.map(rustix::fd::AsFd::as_fd(&descriptor), 0, length)?;
        self.device.store(status.st_dev, Ordering::Relaxed);
        self.inode.store(status.st_ino, Ordering::Relaxed);
        self.descriptor
            .store(descriptor.into_raw_fd(), Ordering::Relaxed);
        self.base.store(base.as_ptr(), Ordering::Release);
        Ok(())
    }

    /// Reserves another window of `bytes`.
    fn open_window(&self, bytes: usize) -> Result<(), rustix::io::Errno> {
        let count = self.window_count.load(Ordering::Relaxed);
        let window = self.windows.get(count).ok_or(rustix::io::Errno::NOMEM)?;
        // SAFETY: an inaccessible anonymous mapping at an address of the kernel's choice.
        let address = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                bytes,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        window.address.store(address.cast(), Ordering::Relaxed);
        window.reserved.store(bytes, Ordering::Relaxed);
        window.mapped.store(0, Ordering::Relaxed);
        self.window_count.store(count + 1, Ordering::Release);
        Ok(())
    }

    fn windows(&self) -> &[Window] {
        &self.windows[..self.window_count.load(Ordering::Acquire)]
    }

    /// Room left in the last window.
    fn room(&self) -> usize {
        self.windows().last().map_or(0, |window| {
            window.reserved.load(Ordering::Relaxed) - window.mapped.load(Ordering::Relaxed)
        })
    }

    /// Maps `bytes` of the file from `start` on into the last window, which has room for them.
    fn map(
        &self,
        descriptor: BorrowedFd<'_>,
        start: usize,
        bytes: usize,
    ) -> Result<NonNull<u8>, rustix::io::Errno> {
        let window = self.windows().last().ok_or(rustix::io::Errno::NOMEM)?;
        let used = window.mapped.load(Ordering::Relaxed);
        // SAFETY: the range is inside the reservation and not in use; the file is long enough.
        let address = unsafe {
            rustix::mm::mmap(
                window.address.load(Ordering::Relaxed).add(used).cast(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                descriptor,
                start as u64,
            )
        }?;
        window.mapped.store(used + bytes, Ordering::Relaxed);
        self.mapped.fetch_add(bytes, Ordering::Relaxed);
        NonNull::new(address.cast()).ok_or(rustix::io::Errno::NOMEM)
    }

    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.load(Ordering::Relaxed)
    }

    /// Is there a file?
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.base().is_null()
    }

    /// Bytes of the capture that are mapped.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        self.mapped.load(Ordering::Relaxed)
    }

    /// The lifecycle block. Only before [`CaptureFile::open`] succeeded is there none.
    #[must_use]
    pub fn lifecycle(&self) -> Option<&LifecycleWords> {
        let base = NonNull::new(self.base())?;
        // SAFETY: the header page is mapped for ever once `base` is set; all fields are atomics.
        Some(unsafe { base.add(offsets::LIFECYCLE).cast().as_ref() })
    }

    /// The block of our own cost.
    #[must_use]
    pub fn own(&self) -> Option<&OwnWords> {
        let base = NonNull::new(self.base())?;
        // SAFETY: as in `lifecycle`.
        Some(unsafe { base.add(offsets::OWN).cast().as_ref() })
    }

    /// The heap word.
    ///
    /// # Safety
    /// The file is open.
    #[inline]
    pub(crate) unsafe fn heap(&self) -> &Heap {
        // SAFETY: the caller vouches for an open file, whose header page stays mapped for ever.
        unsafe { &*self.base().add(offsets::HEAP).cast::<Heap>() }
    }

    /// The turn counter.
    ///
    /// # Safety
    /// The file is open.
    #[inline]
    pub(crate) unsafe fn turn(&self) -> &AtomicU64 {
        // SAFETY: as in `heap`; the counter is an aligned word.
        unsafe { &*self.base().add(offsets::TURN).cast::<AtomicU64>() }
    }

    /// Does the header ask for every event?
    pub(crate) fn holds_events(&self) -> bool {
        let Some(base) = NonNull::new(self.base()) else {
            return false;
        };
        // SAFETY: the identity never changes once the file is made.
        let mode = unsafe { (*base.as_ptr().cast::<heaptide_format::Identity>()).mode };
        mode == heaptide_format::Mode::All as u32
    }

    /// What the header says the capture is.
    pub(crate) fn identity(&self) -> Option<&heaptide_format::Identity> {
        let base = NonNull::new(self.base())?;
        // SAFETY: the identity never changes once the file is made; the page stays mapped.
        Some(unsafe { base.cast().as_ref() })
    }

    /// The header page and how many bytes of the file are mapped in a row from there on.
    pub(crate) fn first_window(&self) -> Option<(NonNull<u8>, usize)> {
        let base = NonNull::new(self.base())?;
        let window = self.windows().first()?;
        Some((base, window.mapped.load(Ordering::Relaxed)))
    }

    /// Is everything recorded and nothing kept?
    fn keeps_nothing(&self) -> bool {
        let Some(base) = NonNull::new(self.base()) else {
            return false;
        };
        // SAFETY: the identity never changes once the file is made.
        let options = unsafe { (*base.as_ptr().cast::<heaptide_format::Identity>()).options };
        options & heaptide_format::NOTHING_KEPT != 0
    }

    /// Marks the capture as given up. The first reason stays.
    pub fn stop(&self, reason: StopReason, errno: i32) -> Stop {
        if let Some(lifecycle) = self.lifecycle() {
            let tracking = State::Tracking as u32;
            if lifecycle
                .stop_reason
                .compare_exchange(0, reason as u32, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                lifecycle.stop_errno.store(errno, Ordering::Relaxed);
                lifecycle
                    .tracking_end_unix_ns
                    .store(unix_ns(), Ordering::Relaxed);
                // Release: whoever sees the state sees the reason.
                let _ = lifecycle.state.compare_exchange(
                    tracking,
                    State::Stopped as u32,
                    Ordering::Release,
                    Ordering::Relaxed,
                );
            }
        }
        Stop
    }

    /// Appends a segment for `payload` bytes and returns its header; the payload is zero. Only one
    /// thread at a time (the recorder's growth lock).
    pub(crate) fn append(
        &self,
        kind: SegmentKind,
        payload: usize,
        first_index: u64,
        record_bytes: u32,
    ) -> Result<NonNull<u8>, Stop> {
        let page = self.page.load(Ordering::Relaxed);
        let Some(lifecycle) = self.lifecycle() else {
            return Err(Stop);
        };
        let start = lifecycle.allocated_end.load(Ordering::Relaxed) as usize;
        let capacity = (SEGMENT_HEADER_BYTES + payload).next_multiple_of(page);
        let Some(end) = start.checked_add(capacity) else {
            return Err(self.stop(StopReason::TooLarge, 0));
        };
        let largest = if self.holds_events() {
            LARGEST_EVENTS_BYTES
        } else {
            LARGEST_BYTES
        };
        if end > largest {
            return Err(self.stop(StopReason::TooLarge, 0));
        }
        let segment = if kind == SegmentKind::Events {
            self.extend_apart(start, capacity)?
        } else {
            self.extend(start, capacity)?
        };
        let mut header = SegmentHeader::new(kind, capacity as u64, first_index, record_bytes);
        let magic = core::mem::replace(&mut header.magic, 0);
        // SAFETY: the segment is at least a header long and page aligned.
        unsafe {
            segment.cast::<SegmentHeader>().write(header);
            // The magic last: a reader sees a whole header or none.
            AtomicU32::from_ptr(segment.cast::<u32>().as_ptr()).store(magic, Ordering::Release);
        }
        lifecycle.allocated_end.store(end as u64, Ordering::Release);
        if let Some(own) = self.own() {
            own.mapped_bytes
                .store(self.mapped_bytes() as u64, Ordering::Relaxed);
            own.anonymous_bytes
                .store(crate::own_bytes(), Ordering::Relaxed);
        }
        let grown = self.grown_since_trim.fetch_add(capacity, Ordering::Relaxed) + capacity;
        if grown >= TRIM_STEP_BYTES {
            self.grown_since_trim.store(0, Ordering::Relaxed);
            self.trim_if_large();
        }
        Ok(segment)
    }

    /// Appends a segment for events, mapped by itself, of about `bytes`. Returns it with its length; give
    /// it back with [`CaptureFile::release_chunk`]. Only one thread at a time.
    pub(crate) fn append_chunk(&self, bytes: usize) -> Result<(NonNull<u8>, usize), Stop> {
        let page = self.page.load(Ordering::Relaxed);
        let bytes = bytes.next_multiple_of(page);
        if self.keeps_nothing() {
            return Ok((self.chunk_in_memory(bytes)?, bytes));
        }
        let payload = bytes - SEGMENT_HEADER_BYTES;
        let chunk = self.append(SegmentKind::Events, payload, 0, 0)?;
        Ok((chunk, bytes))
    }

    /// A chunk that is never in the file: what is written there is gone when the chunk is released.
    fn chunk_in_memory(&self, bytes: usize) -> Result<NonNull<u8>, Stop> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(|error| self.stop(StopReason::NoMemory, error.raw_os_error()))?;
        // As `extend_apart`: a forked child does not get it, unless it is in the middle of an event.
        self.apart_bytes.store(bytes, Ordering::Relaxed);
        self.apart.store(address.cast(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: our own fresh mapping.
        let _ = unsafe { rustix::mm::madvise(address, bytes, Advice::LinuxDontFork) };
        self.mapped.fetch_add(bytes, Ordering::Relaxed);
        NonNull::new(address.cast()).ok_or(Stop)
    }

    /// The chunk that was appended last has found its stream.
    pub(crate) fn chunk_is_placed(&self) {
        compiler_fence(Ordering::SeqCst);
        self.apart.store(core::ptr::null_mut(), Ordering::Relaxed);
    }

    /// Unmaps a chunk of events that is full. It stays in the file.
    pub(crate) fn release_chunk(&self, chunk: NonNull<u8>, bytes: usize) {
        // SAFETY: the range was mapped by `extend_apart` for one stream, which has done with it.
        let _ = unsafe { rustix::mm::munmap(chunk.as_ptr().cast(), bytes) };
        self.mapped.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// As [`CaptureFile::extend`], outside the windows: chunks of events come and go. A forked child
    /// does not get them.
    fn extend_apart(&self, start: usize, bytes: usize) -> Result<NonNull<u8>, Stop> {
        let unmapped =
            |error: rustix::io::Errno| self.stop(StopReason::MapFailed, error.raw_os_error());
        let descriptor = self.lengthen(start, bytes)?;
        // The address is known before the file is there: a signal handler may fork in between, and in the
        // child the event goes on in private memory (`abandon`).
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                bytes,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(unmapped)?;
        self.apart_bytes.store(bytes, Ordering::Relaxed);
        self.apart.store(address.cast(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: over our own fresh mapping; the file is long enough.
        unsafe {
            rustix::mm::mmap(
                address,
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                descriptor,
                start as u64,
            )
        }
        .map_err(unmapped)?;
        // SAFETY: our own fresh mapping.
        let _ = unsafe { rustix::mm::madvise(address, bytes, Advice::LinuxDontFork) };
        self.mapped.fetch_add(bytes, Ordering::Relaxed);
        NonNull::new(address.cast()).ok_or(Stop)
    }

    /// Lets go of resident pages of the capture if they have become many. They stay in the file and come back by a
    /// minor fault when they are touched.
    #[cold]
    pub fn trim_if_large(&self) {
        let windows = self.windows().iter().map(|window| {
            let address = window.address.load(Ordering::Relaxed);
            (address as usize, window.mapped.load(Ordering::Relaxed))
        });
        let page = self.page.load(Ordering::Relaxed);
        let has_native =
            (self.identity()).is_some_and(heaptide_format::Identity::holds_native_stacks);
        let most = if has_native {
            MOST_RESIDENT_NATIVE_BYTES
        } else {
            MOST_RESIDENT_BYTES
        };
        self.residency.limit(most, windows, page, |(start, bytes)| {
            // SAFETY: a part of a window that is mapped.
            unsafe { drop_pages(start as *mut u8, bytes) };
        });
    }

    /// Makes the file `bytes` longer at `start`, its end, and maps them.
    fn extend(&self, start: usize, bytes: usize) -> Result<NonNull<u8>, Stop> {
        let unmapped =
            |error: rustix::io::Errno| self.stop(StopReason::MapFailed, error.raw_os_error());
        let descriptor = self.lengthen(start, bytes)?;
        if self.room() < bytes {
            self.open_window(bytes.max(WINDOW_BYTES))
                .map_err(unmapped)?;
        }
        self.map(descriptor, start, bytes).map_err(unmapped)
    }

    /// Makes the file `bytes` longer at `start`, its end.
    fn lengthen(&self, start: usize, bytes: usize) -> Result<BorrowedFd<'_>, Stop> {
        let refused = |error: rustix::io::Errno| {
            let errno = error.raw_os_error();
            self.stop(StopReason::of_growth(errno), errno)
        };
        let unmapped =
            |error: rustix::io::Errno| self.stop(StopReason::MapFailed, error.raw_os_error());
        let descriptor = self.descriptor().map_err(unmapped)?;
        // The kernel answers growth beyond the limit with a signal, so ask first.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        if limit.is_some_and(|limit| (start + bytes) as u64 > limit) {
            return Err(refused(rustix::io::Errno::FBIG));
        }
        allocate(descriptor, start as u64, bytes as u64).map_err(refused)?;
        Ok(descriptor)
    }

    /// Our descriptor, if it still is ours: a program may close descriptors it did not open, and
    /// the number may be another file by now. Else the file is opened again by its path.
    fn descriptor(&self) -> Result<BorrowedFd<'_>, rustix::io::Errno> {
        let raw = self.descriptor.load(Ordering::Relaxed);
        if raw >= 0 {
            // SAFETY: the number may be stale; it is only used after `is_ours` has looked at it.
            let descriptor = unsafe { BorrowedFd::borrow_raw(raw) };
            if self.is_ours(descriptor) {
                return Ok(descriptor);
            }
        }
        let again = self.path.lock().open()?;
        if !self.is_ours(rustix::fd::AsFd::as_fd(&again)) {
            return Err(rustix::io::Errno::STALE);
        }
        let again = out_of_the_way(again);
        if again.as_raw_fd() < 3 {
            // A program that closed its standard streams expects the next file there, not us.
            return Err(rustix::io::Errno::MFILE);
        }
        let raw = again.into_raw_fd();
        self.descriptor.store(raw, Ordering::Relaxed);
        // SAFETY: just opened, owned by `self.descriptor` from now on.
        Ok(unsafe { BorrowedFd::borrow_raw(raw) })
    }

    fn is_ours(&self, descriptor: BorrowedFd<'_>) -> bool {
        rustix::fs::fstat(descriptor).is_ok_and(|status| {
            status.st_dev == self.device.load(Ordering::Relaxed)
                && status.st_ino == self.inode.load(Ordering::Relaxed)
        })
    }

    /// Takes the file away from this process: in a forked child the mapping becomes private zeroes
    /// that nobody reads, so that nothing can reach the parent's file any more. With `interrupted` the fork
    /// came in the middle of an event, which will go on in the child and store into them.
    ///
    /// # Safety
    /// Only in a forked child, before anything else of ours runs there.
    pub unsafe fn abandon(&self, interrupted: bool) {
        let protection = if interrupted {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            // So that they do not count as data of the child (`RLIMIT_DATA`): nothing of ours writes there.
            ProtFlags::READ
        };
        // SAFETY: the mapped ranges are ours; the child has no other user of them.
        unsafe {
            for window in self.windows() {
                let _ = rustix::mm::mmap_anonymous(
                    window.address.load(Ordering::Relaxed).cast(),
                    // A piece that was just being mapped is not counted yet.
                    if interrupted {
                        window.reserved.load(Ordering::Relaxed)
                    } else {
                        window.mapped.load(Ordering::Relaxed)
                    },
                    protection,
                    MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                );
            }
            if interrupted {
                let bytes = self.apart_bytes.load(Ordering::Relaxed);
                cover(self.apart.load(Ordering::Relaxed), bytes, MapFlags::FIXED);
            } else {
                self.base.store(core::ptr::null_mut(), Ordering::Relaxed);
            }
            let raw = self.descriptor.swap(-1, Ordering::Relaxed);
            if raw >= 0 && self.is_ours(BorrowedFd::borrow_raw(raw)) {
                drop(OwnedFd::from_raw_fd(raw));
            }
            // No file is ours any more: an event that goes on must not open it again to grow it.
            self.inode.store(u64::MAX, Ordering::Relaxed);
        }
    }
}

impl CaptureFile {
    /// Takes the file away from this process, which goes on with another or with none: the windows are
    /// unmapped, and whatever still led there is gone with the state it was in. Chunks of events are their
    /// streams'.
    ///
    /// # Safety
    /// No thread records, and none will before this value is overwritten, which comes next.
    pub unsafe fn let_go(&self) {
        self.base.store(core::ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the caller's promise: nobody will look there again.
        unsafe {
            for window in self.windows() {
                // Forgotten first: in a child that another thread forks meanwhile, which lets go of what it finds
                // here, the addresses may be somebody else's.
                let address = window
                    .address
                    .swap(core::ptr::null_mut(), Ordering::Relaxed);
                if !address.is_null() {
                    let bytes = window.reserved.load(Ordering::Relaxed);
                    let _ = rustix::mm::munmap(address.cast(), bytes);
                }
            }
            let raw = self.descriptor.swap(-1, Ordering::Relaxed);
            if raw >= 0 && self.is_ours(BorrowedFd::borrow_raw(raw)) {
                drop(OwnedFd::from_raw_fd(raw));
            }
        }
    }
}

/// Private memory for stores into `chunk`, which is not mapped in a forked child, or is not to be: then `place` is
/// `FIXED`, else `FIXED_NOREPLACE`.
///
/// # Safety
/// In a forked child that is in the middle of an event; nobody else knows of the range.
pub(crate) unsafe fn cover(chunk: *mut u8, bytes: usize, place: MapFlags) {
    if !chunk.is_null() {
        // SAFETY: over nothing that is mapped but ours.
        let _ = unsafe {
            rustix::mm::mmap_anonymous(
                chunk.cast(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | place | MapFlags::NORESERVE,
            )
        };
    }
}

impl Default for CaptureFile {
    fn default() -> Self {
        Self::new()
    }
}

impl Path {
    fn open(&self) -> Result<OwnedFd, rustix::io::Errno> {
        let path = core::ffi::CStr::from_bytes_until_nul(&self.bytes)
            .map_err(|_| rustix::io::Errno::INVAL)?;
        rustix::fs::open(
            path,
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
    }
}

/// Drops the page table entries of a shared mapping of a file, never data: other threads that store meanwhile fault the
/// pages in again.
///
/// # Safety
/// The range is part of one, in whole pages.
unsafe fn drop_pages(start: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    let _ = unsafe { rustix::mm::madvise(start.cast(), bytes, Advice::LinuxDontNeed) };
}

/// The same file under a high number, where the limit of descriptors leaves one free.
fn out_of_the_way(descriptor: OwnedFd) -> OwnedFd {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let highest = limit.map_or(DESCRIPTOR, |limit| {
        i32::try_from(limit).unwrap_or(i32::MAX) - 1
    });
    for number in [DESCRIPTOR.min(highest), highest / 2, 3] {
        if let Ok(high) = rustix::io::fcntl_dupfd_cloexec(&descriptor, number) {
            return high;
        }
    }
    descriptor
}

/// Real blocks for the range, so that a store can never meet a full disk (which would be `SIGBUS`).
pub(crate) fn allocate(
    descriptor: BorrowedFd<'_>,
    start: u64,
    length: u64,
) -> Result<(), rustix::io::Errno> {
    loop {
        match rustix::fs::fallocate(descriptor, FallocateFlags::empty(), start, length) {
            Err(rustix::io::Errno::INTR) => {}
            // The file system cannot preallocate, or a sandbox does not know the call: write the zeroes.
            Err(
                rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::PERM,
            ) => {
                return write_zeroes(descriptor, start, length);
            }
            other => return other,
        }
    }
}

fn write_zeroes(
    descriptor: BorrowedFd<'_>,
    start: u64,
    length: u64,
) -> Result<(), rustix::io::Errno> {
    let zeroes = [0u8; 4096];
    let end = start + length;
    let mut at = start;
    while at < end {
        let piece = (end - at).min(zeroes.len() as u64) as usize;
        match rustix::io::pwrite(descriptor, &zeroes[..piece], at) {
            Ok(0) => return Err(rustix::io::Errno::NOSPC),
            Ok(written) => at += written as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn unix_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

macro_rules! mirrored {
    ($(#[$meta:meta])* $name:ident mirrors $plain:ident { $($field:ident: $atomic:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Debug)]
        #[repr(C)]
        #[allow(missing_docs, reason = "the fields are documented in heaptide-format, whose layout this mirrors")]
        pub struct $name { $(pub $field: $atomic,)+ }
        const _: () = { $(assert!(core::mem::offset_of!($name, $field) == core::mem::offset_of!($plain, $field));)+ };
    };
}

mirrored! {
    /// [`Lifecycle`] as it is written.
    LifecycleWords mirrors Lifecycle {
        state: AtomicU32,
        stop_reason: AtomicU32,
        stop_errno: AtomicI32,
        python_version: AtomicU32,
        python_allocator: AtomicU32,
        main_thread_id: AtomicU32,
        tracking_start_unix_ns: AtomicU64,
        tracking_end_unix_ns: AtomicU64,
        heartbeat_unix_ns: AtomicU64,
        exec_unix_ns: AtomicU64,
        allocated_end: AtomicU64,
    }
}

mirrored! {
    /// [`OwnCost`] as it is written.
    OwnWords mirrors OwnCost {
        anonymous_bytes: AtomicU64,
        mapped_bytes: AtomicU64,
        folded_stacks: AtomicU64,
        overflow_stacks: AtomicU64,
        truncated_stacks: AtomicU64,
        dropped_code: AtomicU64,
        patched_objects: AtomicU64,
        patched_slots: AtomicU64,
        overflow_threads: AtomicU64,
        early_stops_compared: AtomicU64,
        early_stop_mismatches: AtomicU64,
    }
}
