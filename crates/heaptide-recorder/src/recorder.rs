//! The recorder: an event in, a few stores out.

use heaptide_format::{
    Allocator, CellKind, MetadataKey, NODE_OVERFLOW, NativeNode, State, StopReason, THREAD_OVERFLOW,
};

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::cells::{CellWriter, Cells, Key};
use crate::definitions::{CodeText, Definitions, RawText};
use crate::events::Streams;
use crate::file::{CaptureFile, Stop, unix_ns};
use crate::live::{Live, LiveTable};
use crate::lock::SpinLock;
use crate::native::{LoadedObject, Native};
use crate::ranges::Ranges;
use crate::stacks::Stacks;
use crate::threads::{ThreadRecord, Threads};

/// Every so many events a thread refreshes the figures of our own memory.
const HOUSEKEEPING_EVENTS: u32 = 1 << 14;
/// Every so many cells that were not remembered a thread looks at how much of the capture is resident.
const COLD_LOOKUPS: u32 = 256;

/// So many cells for frees of other threads' blocks before threads share them.
const MOST_REMOTE_CELLS: u32 = 16 << 10;

/// A live block taken out of the table, to be freed or put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it is.
    pub address: u64,
    live: Live,
}

/// Why a capture that was made for this process cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArmedError {
    /// It cannot be opened, mapped or grown.
    File(rustix::io::Errno),
    /// It is no capture, not of this process, or was used before.
    Foreign,
}

/// Everything recorded of one process. There is one, as a static: it must outlive every hook.
pub struct Recorder {
    pub(crate) file: CaptureFile,
    /// Held while anything new is made: nodes, cells, definitions, threads, segments.
    pub(crate) growth: SpinLock<()>,
    /// Held for each event of the threads that share one number.
    pub(crate) shared_thread: SpinLock<()>,
    pub(crate) definitions: Definitions,
    pub(crate) stacks: Stacks,
    pub(crate) native: Native,
    pub(crate) cells: Cells,
    pub(crate) live: LiveTable,
    pub(crate) ranges: SpinLock<Ranges>,
    pub(crate) threads: Threads,
    pub(crate) streams: Streams,
    pub(crate) full_code: AtomicU32,
    /// One thread alone records: it needs no locked instruction.
    pub(crate) alone: AtomicBool,
    /// Cells for frees of other threads' blocks that one thread has for itself.
    pub(crate) remote_cells: AtomicU32,
}

impl Recorder {
    /// Not started.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            file: CaptureFile::new(),
            growth: SpinLock::new(()),
            shared_thread: SpinLock::new(()),
            definitions: Definitions::new(),
            stacks: Stacks::new(),
            native: Native::new(),
            cells: Cells::new(),
            live: LiveTable::new(),
            ranges: SpinLock::new(Ranges::new()),
            threads: Threads::new(),
            streams: Streams::new(),
            full_code: AtomicU32::new(0),
            alone: AtomicBool::new(false),
            remote_cells: AtomicU32::new(0),
        }
    }

    /// The capture file.
    pub fn file(&self) -> &CaptureFile {
        &self.file
    }

    /// Opens the capture and makes the first records. Once, before any event.
    ///
    /// # Errors
    /// The file cannot be opened or mapped (`errno`), or has no room (`ENOSPC`).
    pub fn start(&self, path: &[u8], node_budget: u32) -> Result<(), rustix::io::Errno> {
        self.file.open(path)?;
        self.first_records(node_budget)
    }

    /// Makes a capture of this process from within, at `base` and its number, and the first records. Once,
    /// before any event. See `create.rs`.
    ///
    /// # Errors
    /// As [`Recorder::start`].
    pub fn start_new(
        &self,
        base: &[u8],
        identity: &heaptide_format::Identity,
    ) -> Result<(), rustix::io::Errno> {
        crate::create::create(&self.file, base, identity)?;
        self.first_records(identity.stack_node_budget)
    }

    /// As [`Recorder::start`], for a capture that says itself what it is to hold. It must be one that was made for
    /// the process `pid` and never used. Returns a copy of what it says.
    ///
    /// # Errors
    /// What is wrong. Call [`Recorder::release`] then.
    pub fn start_armed(
        &self,
        path: &[u8],
        pid: u32,
    ) -> Result<heaptide_format::Identity, ArmedError> {
        self.file.open(path).map_err(ArmedError::File)?;
        let (Some(identity), Some(lifecycle)) = (self.file.identity(), self.file.lifecycle())
        else {
            return Err(ArmedError::Foreign);
        };
        let identity = *identity;
        if identity.magic != heaptide_format::MAGIC
            || identity.version != heaptide_format::FORMAT_VERSION
            || identity.checksum != identity.expected_checksum()
            || identity.pid != pid
            || heaptide_format::Mode::from_raw(identity.mode).is_none()
            || lifecycle.state.load(Ordering::Relaxed) != State::Armed as u32
        {
            return Err(ArmedError::Foreign);
        }
        self.first_records(identity.stack_node_budget)
            .map_err(ArmedError::File)?;
        Ok(identity)
    }

    /// Lets go of the file and gives all private memory back, but for the streams of threads
    /// ([`Recorder::end_stream`]).
    ///
    /// # Safety
    /// No thread records, and none will before this value is overwritten by a new one, which comes next.
    pub unsafe fn release(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            self.definitions.release();
            self.file.let_go();
        }
        self.live.release();
        *self.ranges.lock() = Ranges::new();
    }

    fn first_records(&self, node_budget: u32) -> Result<(), rustix::io::Errno> {
        if self.file.holds_events() {
            self.streams.start();
        }
        let _growth = self.growth.lock();
        let first_records = || {
            self.threads.start(&self.file)?;
            self.stacks.start(&self.file, node_budget)?;
            if self.holds_native_stacks() {
                self.native.start(&self.file)?;
            }
            let unknown = RawText {
                bytes: b"<code table full>",
                kind: 1,
            };
            let code = CodeText {
                name: unknown,
                qualified_name: unknown,
                file_name: RawText {
                    bytes: b"<unknown>",
                    kind: 1,
                },
                first_line: 0,
                flags: 0,
                line_table: &[],
            };
            self.definitions.code(&self.file, &code)
        };
        match first_records() {
            Ok(code) => {
                self.full_code.store(code.unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }
            Err(Stop) => Err(rustix::io::Errno::NOSPC),
        }
    }

    /// Writes a fact about the run.
    ///
    /// # Errors
    /// No room.
    pub fn metadata(&self, key: MetadataKey, text: &[u8]) -> Result<(), Stop> {
        let _growth = self.growth.lock();
        self.definitions.metadata(&self.file, key, text)
    }

    /// From here on events count. Stored last, so that a reader that sees it sees the rest.
    pub fn tracking_begins(&self, python_version: u32, python_allocator: u32, main_thread_id: u32) {
        if let Some(lifecycle) = self.file.lifecycle() {
            lifecycle
                .python_version
                .store(python_version, Ordering::Relaxed);
            lifecycle
                .python_allocator
                .store(python_allocator, Ordering::Relaxed);
            lifecycle
                .main_thread_id
                .store(main_thread_id, Ordering::Relaxed);
            lifecycle
                .tracking_start_unix_ns
                .store(unix_ns(), Ordering::Relaxed);
            if self.holds_events() {
                // SAFETY: the file is open. From two on: no stream starts out with the turn.
                unsafe { self.file.turn() }.store(2, Ordering::Relaxed);
            }
            lifecycle
                .state
                .store(State::Tracking as u32, Ordering::Release);
        }
    }

    /// Tracking ends as it should. Does nothing when it has ended already.
    pub fn tracking_ends(&self) {
        if let Some(lifecycle) = self.file.lifecycle()
            && lifecycle.state.load(Ordering::Acquire) == State::Tracking as u32
        {
            lifecycle
                .tracking_end_unix_ns
                .store(unix_ns(), Ordering::Relaxed);
            lifecycle
                .state
                .store(State::Finished as u32, Ordering::Release);
        }
    }

    /// Has tracking given up, or never had a capture?
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.file
            .lifecycle()
            .is_none_or(|lifecycle| lifecycle.stop_reason.load(Ordering::Relaxed) != 0)
    }

    /// The program asks to be replaced by another.
    pub fn exec_attempted(&self) {
        if let Some(lifecycle) = self.file.lifecycle() {
            lifecycle.exec_unix_ns.store(unix_ns(), Ordering::Relaxed);
        }
    }

    /// It is still here.
    pub fn exec_failed(&self) {
        if let Some(lifecycle) = self.file.lifecycle() {
            lifecycle.exec_unix_ns.store(0, Ordering::Relaxed);
        }
    }

    /// One thread alone will record, until [`Recorder::company`].
    ///
    /// # Safety
    /// No event is being recorded, and the caller makes sure that `company` is called, and that the
    /// lone thread has finished the event it may be in, before a second thread records its first.
    pub unsafe fn alone(&self) {
        self.alone.store(true, Ordering::Relaxed);
    }

    /// More than one thread will record.
    pub fn company(&self) {
        self.alone.store(false, Ordering::SeqCst);
    }

    #[inline]
    fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    // ---- threads ------------------------------------------------------------------------------

    /// Makes the record of a thread that has not been seen before, in place.
    ///
    /// # Errors
    /// No room.
    ///
    /// # Safety
    /// `record` is valid for writes and nobody uses it.
    pub unsafe fn thread_start(
        &self,
        record: *mut ThreadRecord,
        thread_id: u32,
        os_name: [u8; 16],
    ) -> Result<(), Stop> {
        let _growth = self.growth.lock();
        // SAFETY: the caller's promise.
        unsafe {
            self.threads
                .register(&self.file, record, thread_id, os_name)
        }
    }

    /// The thread will record nothing more.
    pub fn thread_end(&self, record: &mut ThreadRecord) {
        self.end_stream(record);
        let _growth = self.growth.lock();
        self.threads.unregister(record);
    }

    /// Names a thread.
    pub fn thread_name(&self, record: &ThreadRecord, name: &[u8]) {
        let _growth = self.growth.lock();
        self.threads.name(record.thread, name);
    }

    // ---- stacks -------------------------------------------------------------------------------

    /// Number of the code object with this content.
    ///
    /// # Errors
    /// No room.
    pub fn code(&self, code: &CodeText<'_>) -> Result<u32, Stop> {
        let _growth = self.growth.lock();
        Ok(match self.definitions.code(&self.file, code)? {
            Some(number) => number,
            None => {
                if let Some(own) = self.file.own() {
                    own.dropped_code.fetch_add(1, Ordering::Relaxed);
                }
                self.full_code.load(Ordering::Relaxed)
            }
        })
    }

    /// Number of the stack that is this frame on top of `parent`. `code` may have [`ENTERED`] in it.
    ///
    /// # Errors
    /// No room.
    #[inline]
    pub fn node(&self, parent: u32, code: u32, last_instruction: i32) -> Result<u32, Stop> {
        match self.stacks.find(&self.file, parent, code, last_instruction) {
            Some(node) => Ok(node),
            None => self.new_node(parent, code, last_instruction),
        }
    }

    /// [`Recorder::node`] of a frame that `previous` is the node of, on the same caller, at another place
    /// in the same code, if that is found at once.
    #[must_use]
    #[inline]
    pub fn node_next_to(&self, previous: u32, last_instruction: i32) -> Option<u32> {
        self.stacks.moved_on(previous, last_instruction)
    }

    #[cold]
    #[inline(never)]
    fn new_node(&self, parent: u32, code: u32, last_instruction: i32) -> Result<u32, Stop> {
        let _growth = self.growth.lock();
        self.stacks
            .intern(&self.file, parent, code, last_instruction)
    }

    /// Are native stacks to be recorded?
    #[must_use]
    pub fn holds_native_stacks(&self) -> bool {
        let identity = self.file.identity();
        identity.is_some_and(heaptide_format::Identity::holds_native_stacks)
    }

    /// Number of a loaded object; `None` where there is no room for more.
    ///
    /// # Errors
    /// No room in the capture.
    pub fn module(&self, object: &LoadedObject<'_>) -> Result<Option<u32>, Stop> {
        let _growth = self.growth.lock();
        self.native.module(&self.file, &self.definitions, object)
    }

    /// Number of the native stack that is the frame at `address` of `module` on top of `parent`; that of `parent` where
    /// there are too many.
    ///
    /// # Errors
    /// No room.
    #[inline]
    pub fn native_node(&self, parent: u32, module: u32, address: u64) -> Result<u32, Stop> {
        let node = NativeNode {
            parent,
            module,
            address,
        };
        match self.native.find(&node) {
            Some(node) => Ok(node),
            None => self.new_native_node(node),
        }
    }

    #[cold]
    #[inline(never)]
    fn new_native_node(&self, node: NativeNode) -> Result<u32, Stop> {
        let _growth = self.growth.lock();
        self.native.intern(&self.file, node)
    }

    /// Number of the stack that is a Python stack together with a native one; that of the Python stack where there are too
    /// many.
    ///
    /// # Errors
    /// No room.
    #[inline]
    pub fn combined(&self, python: u32, native: u32) -> Result<u32, Stop> {
        match self.stacks.find_combined(python, native) {
            Some(node) => Ok(node),
            None => self.new_combined(python, native),
        }
    }

    #[cold]
    #[inline(never)]
    fn new_combined(&self, python: u32, native: u32) -> Result<u32, Stop> {
        let _growth = self.growth.lock();
        self.stacks.intern_combined(&self.file, python, native)
    }

    // ---- events -------------------------------------------------------------------------------

    /// A block was allocated. After the real allocation.
    ///
    /// # Errors
    /// No room for a new cell or for the table of live blocks.
    ///
    /// # Safety
    /// `start` succeeded, `thread` is the calling thread's own and not in use further up the call stack.
    #[inline]
    pub unsafe fn allocated(
        &self,
        thread: &mut ThreadRecord,
        node: u32,
        allocator: Allocator,
        address: u64,
        bytes: u64,
    ) -> Result<(), Stop> {
        if self.holds_events() {
            // SAFETY: the caller's promise.
            return unsafe { self.event_allocated(thread, node, allocator, address, bytes) };
        }
        if thread.shared {
            let _one_at_a_time = self.shared_thread.lock();
            // SAFETY: the caller's promise, and the lock makes this thread the only writer.
            return unsafe { self.allocated_alone(thread, node, allocator, address, bytes) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.allocated_alone(thread, node, allocator, address, bytes) }
    }

    #[inline(always)]
    unsafe fn allocated_alone(
        &self,
        thread: &mut ThreadRecord,
        node: u32,
        allocator: Allocator,
        address: u64,
        bytes: u64,
    ) -> Result<(), Stop> {
        let cell = self.cell(thread, Key::own(node, allocator, thread.thread))?;
        // SAFETY: promised by the caller of `allocated`.
        unsafe { self.count_allocated(thread, cell, bytes) };
        if LiveTable::holds(address) {
            let alone = self.is_alone();
            // SAFETY: promised by the caller of `alone`.
            match unsafe { self.live.insert(address, Live { size: bytes, cell }, alone) } {
                Ok(None) => {}
                // SAFETY: promised by the caller of `allocated`.
                Ok(Some(old)) => unsafe { self.free_was_missed(thread, old)? },
                Err(_) => {
                    return Err(self.file.stop(
                        StopReason::NoMemory,
                        rustix::io::Errno::NOMEM.raw_os_error(),
                    ));
                }
            }
        }
        thread.note_recent(address, cell);
        self.housekeeping(thread);
        Ok(())
    }

    /// # Safety
    /// As `allocated`.
    #[inline(always)]
    pub(crate) unsafe fn count_allocated(&self, thread: &mut ThreadRecord, cell: u32, bytes: u64) {
        // SAFETY: the file is open, and `cell` is this thread's own.
        unsafe {
            let epoch = self.heap_allocate(bytes);
            CellWriter(self.cells.get(cell)).allocated(epoch, bytes);
        }
        // SAFETY: a field of our slot.
        thread.count(|slot| unsafe { &raw mut (*slot).allocations }, 1);
        thread.count_size(bytes);
    }

    /// A block is about to be freed. Before the real free.
    ///
    /// # Errors
    /// No room for a new cell.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    #[inline]
    pub unsafe fn freed(&self, thread: &mut ThreadRecord, address: u64) -> Result<(), Stop> {
        if self.holds_events() {
            // SAFETY: the caller's promise.
            return unsafe { self.event_freed(thread, address) };
        }
        match self.take(address) {
            // SAFETY: the caller's promise.
            Some(block) => unsafe { self.freed_block(thread, block) },
            None => {
                self.unknown_free(thread);
                Ok(())
            }
        }
    }

    /// Takes a block out of the table while it is still allocated (`realloc`), so that whoever gets
    /// its address next finds it free. Its bytes count as live until [`Recorder::freed_block`].
    #[inline]
    pub fn take(&self, address: u64) -> Option<Block> {
        // SAFETY: promised by the caller of `alone`.
        let live = unsafe { self.live.remove(address, self.is_alone()) };
        live.map(|live| Block { address, live })
    }

    /// Puts a taken block back: it was not freed after all.
    ///
    /// # Errors
    /// No memory for the table.
    #[cold]
    pub fn put_back(&self, block: Block) -> Result<(), Stop> {
        // SAFETY: promised by the caller of `alone`.
        match unsafe { self.live.insert(block.address, block.live, self.is_alone()) } {
            Ok(_) => Ok(()),
            Err(_) => Err(self.file.stop(
                StopReason::NoMemory,
                rustix::io::Errno::NOMEM.raw_os_error(),
            )),
        }
    }

    /// Counts a free of a block that is not in the table.
    #[inline]
    pub fn unknown_free(&self, thread: &mut ThreadRecord) {
        // SAFETY: a field of our slot; the shared slot's count may then be off by a few, as it says.
        thread.count(|slot| unsafe { &raw mut (*slot).unknown_frees }, 1);
    }

    /// Counts a taken block as freed.
    ///
    /// # Errors
    /// No room for a new cell.
    ///
    /// # Safety
    /// As [`Recorder::allocated`].
    #[inline]
    pub unsafe fn freed_block(&self, thread: &mut ThreadRecord, block: Block) -> Result<(), Stop> {
        let temporary = thread.was_recent(block.address, block.live.cell);
        // SAFETY: the caller's promise.
        unsafe { self.freed_bytes(thread, block.live.cell, 1, block.live.size, temporary) }
    }

    #[inline]
    pub(crate) unsafe fn freed_bytes(
        &self,
        thread: &mut ThreadRecord,
        cell: u32,
        count: u64,
        bytes: u64,
        temporary: bool,
    ) -> Result<(), Stop> {
        let mut _one_at_a_time = if thread.shared {
            Some(self.shared_thread.lock())
        } else {
            None
        };
        // SAFETY: `cell` came from the table, so the pool gave it out; its key fields never change.
        let (owner, allocator) = unsafe {
            let cell = self.cells.get(cell);
            ((*cell).thread, (*cell).allocator)
        };
        let mine = owner == thread.thread;
        let target = if mine {
            cell
        } else {
            let (target, shared) = self.remote_cell(thread, cell, allocator)?;
            if shared && _one_at_a_time.is_none() {
                // The heap word moves under the lock too, so that the cell sees epochs in order.
                _one_at_a_time = Some(self.shared_thread.lock());
            }
            target
        };
        // SAFETY: the file is open and `target` is written by this thread alone.
        unsafe {
            let epoch = self.heap_free(bytes);
            let writer = CellWriter(self.cells.get(target));
            writer.freed(epoch, count, bytes);
            if temporary && mine {
                writer.temporary(1, bytes);
            }
        }
        if count > 0 {
            // SAFETY: a field of our slot.
            thread.count(|slot| unsafe { &raw mut (*slot).deallocations }, 1);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    unsafe fn free_was_missed(&self, thread: &mut ThreadRecord, old: Live) -> Result<(), Stop> {
        // SAFETY: a field of our slot.
        thread.count(|slot| unsafe { &raw mut (*slot).missed_frees }, 1);
        // The shared thread's lock is held by `allocated` already: go around it.
        let shared = core::mem::replace(&mut thread.shared, false);
        // SAFETY: promised by the caller of `allocated`.
        let result = unsafe { self.freed_bytes(thread, old.cell, 1, old.size, false) };
        thread.shared = shared;
        result
    }

    /// # Safety
    /// The file is open.
    #[inline]
    pub(crate) unsafe fn heap_allocate(&self, bytes: u64) -> u64 {
        // SAFETY: the caller's promise.
        let heap = unsafe { self.file.heap() };
        if self.is_alone() {
            heap.allocate_alone(bytes)
        } else {
            heap.allocate(bytes)
        }
    }

    /// # Safety
    /// The file is open.
    #[inline]
    unsafe fn heap_free(&self, bytes: u64) -> u64 {
        // SAFETY: the caller's promise.
        let heap = unsafe { self.file.heap() };
        if self.is_alone() {
            heap.free_alone(bytes)
        } else {
            heap.free(bytes)
        }
    }

    // ---- helpers ------------------------------------------------------------------------------

    /// The calling thread's cell for `key`. Cost when it is remembered: one multiply, one compare.
    #[inline]
    pub(crate) fn cell(&self, thread: &mut ThreadRecord, key: Key) -> Result<u32, Stop> {
        let word = key.cache_word();
        let entry = *thread.cache_entry(word);
        if entry.word == word {
            return Ok(entry.cell);
        }
        self.find_cell(thread, key)
    }

    /// The cell for frees of another thread's blocks, and whether it is shared. Threads that all free
    /// each other's blocks would make cells by the square of their number; past a limit they share
    /// one per allocating cell, under the lock of the shared thread.
    pub(crate) fn remote_cell(
        &self,
        thread: &mut ThreadRecord,
        cell: u32,
        allocator: u32,
    ) -> Result<(u32, bool), Stop> {
        let own = Key::remote(cell, allocator, thread.thread);
        let is_known = thread.cache_entry(own.cache_word()).word == own.cache_word()
            || self.cells.find(own, None).is_some();
        if is_known || thread.shared {
            return Ok((self.cell(thread, own)?, false));
        }
        if self.remote_cells.load(Ordering::Relaxed) < MOST_REMOTE_CELLS {
            self.remote_cells.fetch_add(1, Ordering::Relaxed);
            return Ok((self.cell(thread, own)?, false));
        }
        let shared = Key::remote(cell, allocator, THREAD_OVERFLOW);
        let found = self.cells.find(shared, None);
        let target = match found {
            Some(target) => Some(target),
            None => {
                let _growth = self.growth.lock();
                self.cells.make(&self.file, shared, None)?
            }
        };
        match target {
            Some(target) => Ok((target, true)),
            None => Err(self.file.stop(StopReason::TooLarge, 0)),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_cell(&self, thread: &mut ThreadRecord, key: Key) -> Result<u32, Stop> {
        let own = key.kind == CellKind::Own as u32;
        // SAFETY: cells are asked for only where there are some, and those of a node by its number.
        let chain = own.then(|| unsafe { self.stacks.cells_of(key.target) });
        let cell = match self.cells.find(key, chain) {
            Some(cell) => cell,
            None => {
                let _growth = self.growth.lock();
                match self.cells.make(&self.file, key, chain)? {
                    Some(cell) => cell,
                    // The pool is full: that many cells are a capture of 400 MB.
                    None => return Err(self.file.stop(StopReason::TooLarge, 0)),
                }
            }
        };
        // Each time here some other page of the capture is touched.
        thread.cold_lookups = thread.cold_lookups.wrapping_add(1);
        if thread.cold_lookups.is_multiple_of(COLD_LOOKUPS) {
            self.file.trim_if_large();
        }
        let word = key.cache_word();
        let entry = thread.cache_entry(word);
        entry.word = word;
        entry.cell = cell;
        Ok(cell)
    }

    /// Counts an allocation that went to the overflow node.
    #[cold]
    pub fn count_overflow_stack(&self, node: u32) {
        if node == NODE_OVERFLOW
            && let Some(own) = self.file.own()
        {
            own.overflow_stacks.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[inline]
    fn housekeeping(&self, thread: &mut ThreadRecord) {
        thread.events = thread.events.wrapping_add(1);
        if thread.events.is_multiple_of(HOUSEKEEPING_EVENTS) {
            self.keep_house();
        }
    }

    #[cold]
    #[inline(never)]
    fn keep_house(&self) {
        if let Some(own) = self.file.own() {
            own.anonymous_bytes
                .store(crate::own_bytes(), Ordering::Relaxed);
        }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}
