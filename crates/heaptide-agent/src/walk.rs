//! From the interpreter's frame chain to the number of a stack, in step with the last walk.
//!
//! The thread remembers its last walk, root first. A new walk goes from the leaf to the root and
//! looks for the place where it meets the remembered frames; from there both run in lock step, one
//! comparison a frame. Whatever lies above the last difference is interned anew, the rest is
//! known. The memo believes an entry only if frame, code and instruction are what they were and no
//! code object has been destroyed since.
//!
//! Cost: under 1 ns a frame when nothing changed and the frames are in the cache, 5 - 15 ns for
//! each frame that changed. `docs/design/006-cheap-walks.md` has the why.

mod memo;
mod watch;

use core::sync::atomic::Ordering;

use heaptide_cpython::{
    Family, Family39, Family311, Family313, FamilyWithoutGil, FrameFamily, Holder, Layout, Marks,
    Stacks, Waits,
};
use heaptide_format::{NODE_OVERFLOW, NODE_ROOT};
use heaptide_recorder::{ENTERED, Stop};

pub(crate) use self::memo::Memo;
use self::memo::{Detail, ENTERED_BIT, Entry, Step, marked_code};
use self::watch::{AnyWatch, Entries, Marked, NoMarks, StartOfChunk, Waiting, Watch};
use crate::early_stop::{self, EarlyStop};
use crate::known_nodes;
use crate::thread::ThreadState;
use crate::{RECORDER, code, interpreter, names, native};

/// How far the meeting place is looked for in the memo when frames have returned since.
const MEETING_REACH: usize = 6;

/// Shallower stacks are walked as a whole: to ask about chunks would cost more.
const DEEP: usize = 32;

/// Each interned frame may touch other pages of the capture.
const INTERNED_BETWEEN_LOOKS: u32 = 128;
/// So many page faults of a thread, each of which makes up to 16 pages around it resident, are worth a look at how
/// much of the capture is.
const FAULTS_BETWEEN_LOOKS: u64 = 32;

/// Number of the calling thread's Python stack.
///
/// Only for allocations, and only while tracking is on.
#[inline]
pub(crate) fn current_stack(state: &mut ThreadState) -> Result<u32, Stop> {
    if native::is_on() {
        combined_stack(state)
    } else {
        python_stack::<false>(state)
    }
}

/// Wider than what is promised at calls.
#[repr(align(32))]
struct Aligned(#[expect(dead_code, reason = "it takes room")] u8);

/// That of the calling thread's Python stack together with its native one.
#[cold]
#[inline(never)]
fn combined_stack(state: &mut ThreadState) -> Result<u32, Stop> {
    // So that the stack is aligned from here on: programs that call `malloc` with one that is not have got away with it.
    let aligned = Aligned(0);
    core::hint::black_box(&aligned);
    let python = python_stack::<true>(state)?;
    native::combined(state, python)
}

/// `ENTRIES`: nodes tell for which frames the interpreter was entered from C.
#[inline(always)]
fn python_stack<const ENTRIES: bool>(state: &mut ThreadState) -> Result<u32, Stop> {
    // SAFETY: tracking is on.
    let interpreter = unsafe { interpreter::get() };
    // SAFETY: as above.
    let (python, top) = unsafe {
        let python = interpreter::thread_state(interpreter);
        (python, interpreter.top_frame(python))
    };
    if top.is_null() {
        return Ok(NODE_ROOT);
    }
    let generation = code::generation();
    state.memo.be_of(generation);
    let layout = &interpreter.layout;
    let (early_stop, is_checked) = early_stop::mode();
    // SAFETY: `top` is the innermost frame of this thread, which stands still while it is in here, and
    // `python` is the state that has it.
    let node = unsafe {
        match early_stop {
            EarlyStop::AtChunks(stacks) => {
                chunk_walk::<ENTRIES>(stacks, layout, python, top, &mut state.memo)
            }
            EarlyStop::AtWaits(waits, stacks) => {
                waiting_walk::<ENTRIES>(waits, stacks, layout, python, top, &mut state.memo)
            }
            EarlyStop::AtFrames(marks) => {
                early_walk::<ENTRIES>(marks, layout, python, top, &mut state.memo)
            }
            EarlyStop::Nowhere => whole_walk::<ENTRIES>(layout, top, &mut state.memo),
            EarlyStop::InParallel(stacks) => {
                let holder = Holder::of(layout, python);
                state.memo.be_of_holder(holder);
                state.whole.be_of_holder(holder);
                parallel_walk::<ENTRIES>(stacks, layout, python, top, &mut state.memo)
            }
        }
    }?;
    if is_checked {
        state.whole.be_of(generation);
        // SAFETY: as above.
        early_stop::compared(node, unsafe {
            checking_walk::<ENTRIES>(layout, top, &mut state.whole)
        }?);
    }
    after_walk(state, layout, node);
    Ok(node)
}

/// What there is to do now and then.
#[inline(always)]
fn after_walk(state: &mut ThreadState, layout: &Layout, node: u32) {
    if state.memo.interned >= INTERNED_BETWEEN_LOOKS {
        state.memo.interned = 0;
        let faults = page_faults();
        if faults.wrapping_sub(state.memo.faults) >= FAULTS_BETWEEN_LOOKS {
            state.memo.faults = faults;
            RECORDER.file().trim_if_large();
        }
    }
    if !state.named {
        names::name_thread(state, layout);
    }
    if node == NODE_OVERFLOW {
        RECORDER.count_overflow_stack(node);
    }
}

/// Minor page faults of the calling thread.
#[cold]
fn page_faults() -> u64 {
    let mut usage = core::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the structure is large enough. It cannot fail, so errno stays.
    unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init().ru_minflt as u64
    }
}

/// # Safety
/// `top` is the innermost frame of this thread, and `layout` is its interpreter's.
#[inline(always)]
unsafe fn any_walk<W: AnyWatch>(
    layout: &Layout,
    watch: &W,
    top: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // SAFETY: the caller's promise; the family is the layout's own.
    unsafe {
        match layout.family {
            FrameFamily::V3_9 => walk::<Family39, W>(layout, watch, top, memo),
            FrameFamily::V3_11 => walk::<Family311, W>(layout, watch, top, memo),
            FrameFamily::V3_13 => walk::<Family313, W>(layout, watch, top, memo),
            FrameFamily::WithoutGil => walk_without_gil(layout, watch, top, memo),
        }
    }
}

/// # Safety
/// As [`any_walk`].
#[inline(always)]
unsafe fn watched_walk<const ENTRIES: bool, W: AnyWatch>(
    layout: &Layout,
    watch: W,
    top: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // SAFETY: the caller's promise.
    unsafe {
        if ENTRIES {
            any_walk(layout, &Entries(watch), top, memo)
        } else {
            any_walk(layout, &watch, top, memo)
        }
    }
}

/// In an interpreter without the GIL, by a memo that knows the holder.
///
/// # Safety
/// As [`any_walk`].
#[inline(never)]
unsafe fn walk_without_gil<W: AnyWatch>(
    layout: &Layout,
    watch: &W,
    top: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // SAFETY: the caller's promise; whether the thread is attached was read when this walk began, and stays so.
    unsafe {
        if memo.holder.attached {
            walk::<FamilyWithoutGil<true>, W>(layout, watch, top, memo)
        } else {
            walk::<FamilyWithoutGil<false>, W>(layout, watch, top, memo)
        }
    }
}

/// A walk of an interpreter without the GIL.
///
/// # Safety
/// As [`chunk_walk`].
#[inline(never)]
unsafe fn parallel_walk<const ENTRIES: bool>(
    stacks: Option<&Stacks>,
    layout: &Layout,
    python: *const u8,
    top: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // SAFETY: the caller's promise.
    unsafe {
        match stacks {
            Some(stacks) => chunk_walk::<ENTRIES>(stacks, layout, python, top, memo),
            None => whole_walk::<ENTRIES>(layout, top, memo),
        }
    }
}

/// # Safety
/// As [`any_walk`].
#[inline(never)]
unsafe fn whole_walk<const ENTRIES: bool>(
    layout: &Layout,
    top: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // SAFETY: the caller's promise.
    unsafe { watched_walk::<ENTRIES, _>(layout, NoMarks, top, memo) }
}

/// # Safety
/// As [`any_walk`].
#[cold]
unsafe fn checking_walk<const ENTRIES: bool>(
    layout: &Layout,
    top: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // SAFETY: the caller's promise.
    unsafe { whole_walk::<ENTRIES>(layout, top, memo) }
}

/// A walk that ends at the start of the newest chunk of the thread's stack, if that was there at the last
/// walk already.
///
/// # Safety
/// As [`any_walk`]; `python` is the thread state that has the frame.
#[inline(always)]
unsafe fn chunk_walk<const ENTRIES: bool>(
    stacks: &Stacks,
    layout: &Layout,
    python: *const u8,
    top: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // SAFETY: the caller's promise.
    unsafe {
        if memo.length >= DEEP
            && let Some(chunk) = stacks.newest(python, memo.mark())
        {
            watched_walk::<ENTRIES, _>(layout, StartOfChunk(chunk), top, memo)
        } else {
            watched_walk::<ENTRIES, _>(layout, NoMarks, top, memo)
        }
    }
}

/// A walk that ends at the first frame that has been waiting since it was marked, and marks those that it passes.
/// (Frames that others called from C are passed, so that of many in a row only a chunk's are.)
///
/// # Safety
/// As [`chunk_walk`], of an interpreter whose frames are [`FrameFamily::V3_11`].
#[inline(always)]
unsafe fn waiting_walk<const ENTRIES: bool>(
    waits: &Waits,
    stacks: &Stacks,
    layout: &Layout,
    python: *const u8,
    top: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // SAFETY: the caller's promise.
    unsafe {
        if !waits.are_valid(python) {
            return whole_walk::<ENTRIES>(layout, top, memo);
        }
        let mark = memo.mark();
        let chunk = (memo.length >= DEEP)
            .then(|| stacks.newest(python, mark))
            .flatten()
            .map(StartOfChunk);
        let watch = Waiting { waits, mark, chunk };
        if ENTRIES {
            walk::<Family311, _>(layout, &Entries(watch), top, memo)
        } else {
            walk::<Family311, _>(layout, &watch, top, memo)
        }
    }
}

/// A walk that ends at the first frame that has provably stayed on the stack, and marks those that
/// it passes. A whole one where marks would not tell the truth.
///
/// # Safety
/// As [`any_walk`]; `python` is the thread state that has the frame.
#[inline(never)]
unsafe fn early_walk<const ENTRIES: bool>(
    marks: &Marks,
    layout: &Layout,
    python: *const u8,
    top: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // SAFETY: the caller's promise; `pthread_self` takes nothing and keeps nothing.
    unsafe {
        if !marks.are_valid(layout, python, libc::pthread_self()) {
            return whole_walk::<ENTRIES>(layout, top, memo);
        }
        watched_walk::<ENTRIES, _>(layout, Marked { marks, python }, top, memo)
    }
}

/// Follows the frames for as long as they are the remembered ones (of which `ahead` are left), and
/// returns where that ends: the last frame, the next one, and what is left. That a frame is to be shown was found out when it was remembered.
///
/// This is the loop that costs by the frame, hence by value: offsets in registers. Each frame is
/// read at its *remembered* address, once the chain is seen to lead there. The processor foresees
/// that it does, so the loads of one frame need not wait for those of the last; following the chain
/// itself would take the latency of a load, from wherever the frame lies, for every frame.
///
/// # Safety
/// As `walk`; the memo holds `ahead` entries.
#[inline(always)]
unsafe fn in_step<F: Family, W: Watch<F>>(
    layout: Layout,
    watch: &W,
    mut callee: *const u8,
    mut frame: *const u8,
    steps: *const Step,
    details: *const Detail,
    mut ahead: usize,
) -> (*const u8, *const u8, usize) {
    // SAFETY: there is a step before the first, at which this ends: it equals no frame. A frame is
    // only read after it has equalled what the chain leads to, so the caller's promise holds for it.
    unsafe {
        let mut step = steps.wrapping_add(ahead).wrapping_sub(1);
        loop {
            let remembered = (*step).frame;
            if remembered != frame.addr() {
                break;
            }
            let here: *const u8 = core::ptr::with_exposed_provenance(opaque(remembered));
            let read = F::read_step(&layout, here);
            if read.instruction != (*step).instruction {
                break;
            }
            if W::ENTRIES || !F::INSTRUCTION_TELLS_CODE {
                let code = F::read_code_of(&layout, here);
                let code = marked_code::<F, W>(&layout, here, read.previous, code);
                if code != (*details.add(ahead - 1)).code {
                    break;
                }
            }
            if watch.has_stayed(&layout, callee, here) {
                // And so has all that it stands on.
                return (here, core::ptr::null(), 0);
            }
            ahead -= 1;
            step = step.sub(1);
            callee = here;
            frame = read.previous;
        }
    }
    (callee, frame, ahead)
}

/// The same address, of which the compiler does not know that it has just been compared with another,
/// which it might read in its place.
#[inline(always)]
fn opaque(mut address: usize) -> usize {
    // SAFETY: no instruction at all.
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags));
    }
    address
}

/// # Safety
/// `frame` is a frame of this thread, `F` and `layout` fit the interpreter.
#[inline(always)]
unsafe fn walk<F: Family, W: Watch<F>>(
    layout: &Layout,
    watch: &W,
    mut frame: *const u8,
    memo: &mut Memo,
) -> Result<u32, Stop> {
    // Remembered frames that may still lie ahead: `0..ahead`. Of these, `ahead..run` have just been
    // met in an unbroken row. What was walked before the row is in `fresh`, leaf first.
    let mut ahead = memo.length;
    let mut run = memo.length;
    let mut fresh = 0usize;
    let mut reaches = true;
    let mut callee = core::ptr::null();
    loop {
        // SAFETY: `ahead <= length`, and the chain is that of this thread's frames.
        (callee, frame, ahead) = unsafe {
            in_step::<F, W>(
                *layout,
                watch,
                callee,
                frame,
                memo.steps(),
                memo.details(),
                ahead,
            )
        };
        if frame.is_null() {
            break;
        }
        // SAFETY: as above.
        let raw = unsafe { F::read_raw(layout, frame) };
        let next = raw.previous;
        // SAFETY: the frame was just read.
        if !unsafe { F::is_shown(layout, &raw) } {
            (callee, frame) = (frame, next);
            continue;
        }
        // Out of step: what was met in the row stands on something else now, so it is no prefix.
        while fresh + (run - ahead) + 1 > memo.capacity {
            if !memo.grow(fresh) {
                return truncated(memo, fresh);
            }
        }
        for position in (ahead..run).rev() {
            // SAFETY: there is room for `fresh + (run - ahead) + 1` entries; positions are remembered ones.
            unsafe { *memo.fresh().add(fresh) = memo.entry(position) };
            fresh += 1;
        }
        // The frame may be remembered further on (callees have returned), here (it has moved on), or
        // not at all (it is new: a call, or a generator resumed elsewhere).
        // SAFETY: the frame is on the stack and shown.
        let entry = unsafe { Entry::new::<F, W>(layout, frame, &raw, memo.holder.copy) };
        // SAFETY: the frame is shown; all of this walk will be remembered.
        let has_stayed = unsafe { watch.has_stayed(layout, callee, frame) };
        let mut met = memo.meet(frame, ahead, MEETING_REACH);
        if has_stayed {
            // Many callees may have returned. It may as well be remembered nowhere (marked by a walk of
            // another greenlet's stack, say); all that is left is not gone through for each such frame.
            if met.is_none() && reaches {
                met = memo.meet(frame, ahead, usize::MAX);
                reaches = met.is_some();
            }
            if let Some(met) = met {
                // What it stands on is as remembered; where it is itself was read just now.
                // SAFETY: `met < length`; room was made above.
                unsafe {
                    let known = memo.entry(met);
                    if entry.equals(&known.step, &known.detail) {
                        return intern(memo, met + 1, fresh);
                    }
                    *memo.fresh().add(fresh) = entry;
                }
                return intern(memo, met, fresh + 1);
            }
        }
        if let Some(met) = met {
            ahead = met + 1;
            // SAFETY: `met < length`.
            let known = unsafe { memo.entry(met) };
            if entry.equals(&known.step, &known.detail) {
                run = ahead;
                ahead -= 1;
                (callee, frame) = (frame, next);
                continue;
            }
            ahead = met;
        }
        run = ahead;
        // SAFETY: room was made above.
        unsafe { *memo.fresh().add(fresh) = entry };
        fresh += 1;
        (callee, frame) = (frame, next);
    }
    let mut prefix = run;
    if ahead > 0 {
        // The row did not reach the root of what is remembered. Line the two up from the root instead.
        while fresh + (run - ahead) > memo.capacity {
            if !memo.grow(fresh) {
                return truncated(memo, fresh);
            }
        }
        for position in (ahead..run).rev() {
            // SAFETY: room was made.
            unsafe { *memo.fresh().add(fresh) = memo.entry(position) };
            fresh += 1;
        }
        prefix = 0;
        // SAFETY: positions stay below `fresh` and `length`.
        unsafe {
            while prefix < fresh
                && prefix < memo.length
                && (*memo.fresh().add(fresh - 1 - prefix))
                    .equals(&*memo.steps().add(prefix), &*memo.details().add(prefix))
            {
                prefix += 1;
            }
        }
        fresh -= prefix;
    }
    intern(memo, prefix, fresh)
}

/// Interns `fresh` frames on top of the first `prefix` remembered ones and remembers the whole.
#[inline(always)]
fn intern(memo: &mut Memo, prefix: usize, fresh: usize) -> Result<u32, Stop> {
    while prefix + fresh > memo.capacity {
        if !memo.grow(fresh) {
            return truncated(memo, fresh);
        }
    }
    memo.interned += fresh as u32;
    let was = memo.length;
    // Should anything below fail, nothing half done may be believed.
    memo.length = prefix;
    // SAFETY: `prefix + fresh <= capacity`, and the two areas do not overlap.
    unsafe {
        let mut node = if prefix == 0 {
            NODE_ROOT
        } else {
            (*memo.details().add(prefix - 1)).node
        };
        // What stood where the first of them stands now.
        let mut before = (prefix < was).then(|| *memo.details().add(prefix));
        for position in (0..fresh).rev() {
            let Entry { step, mut detail } = *memo.fresh().add(position);
            let next = match before.take() {
                Some(before)
                    if before.code == detail.code && known_nodes::is_child(before.node, node) =>
                {
                    RECORDER.node_next_to(before.node, detail.offset)
                }
                _ => None,
            };
            node = match next {
                Some(next) => next,
                None => {
                    known_nodes::find(memo.known(), memo.stamp, node, detail.code, detail.offset)?
                }
            };
            detail.node = node;
            *memo.steps().add(memo.length) = step;
            *memo.details().add(memo.length) = detail;
            memo.length += 1;
        }
        Ok(node)
    }
}

/// A stack too deep to hold: the innermost frames count, as a stack of their own.
#[cold]
#[inline(never)]
fn truncated(memo: &mut Memo, fresh: usize) -> Result<u32, Stop> {
    memo.length = 0;
    if let Some(own) = RECORDER.file().own() {
        own.truncated_stacks.fetch_add(1, Ordering::Relaxed);
    }
    let mut node = NODE_ROOT;
    for position in (0..fresh).rev() {
        // SAFETY: `fresh` entries have been written.
        let Detail { code, offset, .. } = unsafe { *memo.fresh().add(position) }.detail;
        node = RECORDER.node(node, number(code)?, offset)?;
    }
    Ok(node)
}

/// Number of a code object as [`Detail::code`] and the recorder have it.
#[inline]
pub(crate) fn number(code: usize) -> Result<u32, Stop> {
    let number = code::number(code & !ENTERED_BIT)?;
    Ok(if code & ENTERED_BIT == 0 {
        number
    } else {
        number | ENTERED
    })
}
