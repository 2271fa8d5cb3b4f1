//! `heaptide parse --json`: every record, one JSON object a line.

use std::io::{self, Write};

use heaptide_capture::{Capture, EventVisitor, Liveness, NativeSymbol, Table, signal_name};
use heaptide_engine::{Entry, Profile, StackId};
use heaptide_format::{
    Event, Mode, Moment, NO_THREAD, Origin, Outcome, PythonAllocator, PythonDomain, Receiver,
    SegmentKind, Site, State, StopReason, histogram_bounds,
};
use serde_json::Value;

use crate::SCHEMA_VERSION;
use crate::object::{Field, Object, object, write_line};
use crate::stats_json::warnings;

/// What `parse` shows.
#[derive(Clone, Copy, Debug)]
pub struct ParseOptions {
    /// Innermost frames of a stack that are printed; the output for deep recursion would else grow
    /// with the square of the depth.
    pub max_stack_frames: usize,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            max_stack_frames: 1000,
        }
    }
}

/// Every record, one JSON object a line.
///
/// # Errors
/// When writing fails.
pub fn parse_json(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: ParseOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    for_each_record(capture, profile, liveness, options, &mut |record| {
        write_line(out, &record)
    })
}

/// Hands every record to `emit`: those of the file in the order of their kinds, cells last.
pub(crate) fn for_each_record(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: ParseOptions,
    emit: &mut dyn FnMut(Object) -> io::Result<()>,
) -> io::Result<()> {
    emit(header(capture))?;
    emit(lifecycle(capture, liveness))?;
    emit(heap(capture))?;
    emit(own_cost(capture))?;
    for (key, value) in capture.metadata.iter() {
        let text = heaptide_capture::escape_bytes(value);
        emit(object! { "record": "metadata", "key": key.name(), "value": text })?;
    }
    for segment in &capture.segments {
        emit(object! {
            "record": "segment",
            "offset": segment.offset,
            "kind": segment.kind.map(SegmentKind::name),
            "raw_kind": segment.raw_kind,
            "in_blocks": segment.in_blocks,
            "capacity": segment.capacity,
            "first_index": segment.first_index,
            "record_bytes": segment.record_bytes,
            "readable": segment.readable,
        })?;
    }
    for (number, text) in capture.definitions.strings() {
        emit(
            object! { "record": "string", "id": number, "text": text.map(|text| text.display.clone()) },
        )?;
    }
    for (number, code) in capture.definitions.codes() {
        let string = |number: u32| capture.definitions.string(number);
        emit(object! {
            "record": "code",
            "id": number,
            "function": code.and_then(|code| string(code.fixed.name)),
            "qualified_name": code.and_then(|code| string(code.fixed.qualified_name)),
            "file": code.and_then(|code| string(code.fixed.file_name)),
            "first_line": code.map(|code| code.fixed.first_line),
            "flags": code.map(|code| code.fixed.flags),
            "line_table_bytes": code.map(|code| code.line_table.len()),
        })?;
    }
    let has_native = capture.identity.holds_native_stacks();
    for (number, node) in capture.nodes.iter() {
        if has_native && node.flags & heaptide_format::NODE_COMBINED != 0 {
            emit(object! {
                "record": "combined_node",
                "id": number,
                "parent": node.parent,
                "native_node": node.code,
            })?;
            continue;
        }
        emit(object! {
            "record": "node",
            "id": number,
            "parent": node.parent,
            "code": (node.code != heaptide_format::NO_CODE).then_some(node.code),
            "last_instruction": node.last_instruction,
            "flags": node.flags,
        })?;
    }
    for (number, module) in capture.modules.iter() {
        emit(object! {
            "record": "module",
            "id": number,
            "file": capture.definitions.string(module.file_name),
            "base": format!("{:#x}", module.base),
            "build_id": module.known_build_id().map(hex),
        })?;
    }
    for (number, node) in capture.native_nodes.iter() {
        let functions = capture.symbols.at(node.module, node.address).iter();
        emit(object! {
            "record": "native_node",
            "id": number,
            "parent": node.parent,
            "module": (node.module != heaptide_format::NO_MODULE).then_some(node.module),
            "address": format!("{:#x}", node.address),
            "functions": Field::List(functions.map(native_function).collect()),
        })?;
    }
    for (number, thread) in capture.threads.iter() {
        emit(object! {
            "record": "thread",
            "id": number,
            "thread_id": thread.thread_id,
            "slot": thread.slot,
            "first_seen_unix_ns": thread.first_seen_unix_ns,
            "os_name": padded(&thread.os_name),
            "python_name": padded(&thread.python_name),
        })?;
    }
    for (number, slot) in capture.slots.iter() {
        emit(slot_record(number, slot))?;
    }
    for sample in &capture.samples {
        emit(object! {
            "record": "sample",
            "unix_ns": sample.unix_ns,
            "resident_bytes": sample.resident_bytes,
            "heap_bytes": sample.heap_bytes,
            "cgroup_bytes": sample.cgroup_bytes,
            "cgroup_limit_bytes": sample.cgroup_limit_bytes,
        })?;
    }
    objects(capture, emit)?;
    for entry in &profile.entries {
        emit(cell(profile, entry, options))?;
    }
    for warning in warnings(profile) {
        let mut record = object! { "record": "warning" };
        record.0.extend(warning.0);
        emit(record)?;
    }
    Ok(())
}

/// Creations and destructions of Python objects in their order, and those that survived.
fn objects(capture: &Capture, emit: &mut dyn FnMut(Object) -> io::Result<()>) -> io::Result<()> {
    if capture.identity.holds_object_events() {
        let mut order = capture.events.in_order();
        let mut objects = Objects {
            capture,
            emit: &mut *emit,
            thread: 0,
            emitted: Ok(()),
        };
        while objects.emitted.is_ok() && order.visit_some(&mut objects) {}
        objects.emitted?;
    }
    for (number, survivor) in capture.survivors.iter().flat_map(Table::iter) {
        emit(object! {
            "record": "surviving_object",
            "id": number,
            "address": format!("{:#x}", survivor.address),
            "thread": (survivor.thread != NO_THREAD).then_some(survivor.thread),
            "node": survivor.node,
            "type": capture.definitions.string(survivor.type_name),
        })?;
    }
    Ok(())
}

/// Tells the events of objects as records.
struct Objects<'a> {
    capture: &'a Capture,
    emit: &'a mut dyn FnMut(Object) -> io::Result<()>,
    /// Who is told of.
    thread: u32,
    emitted: io::Result<()>,
}

impl Receiver for Objects<'_> {
    fn allocated(&mut self, _address: u64, _site: &Site) {}

    fn freed(&mut self, _address: u64) {}

    fn has_room(&self) -> bool {
        self.emitted.is_ok()
    }
}

impl EventVisitor for Objects<'_> {
    fn place(&mut self, _moment: Moment, _stream: usize, thread: u32) {
        self.thread = thread;
    }

    fn rare(&mut self, event: Event) {
        let record = match event {
            Event::ObjectMade {
                address,
                node,
                type_name,
            } => object! {
                "record": "object_record",
                "address": format!("{address:#x}"),
                "is_created": true,
                "thread": self.thread,
                "node": node,
                "type": self.capture.definitions.string(type_name),
            },
            Event::ObjectGone { address } => object! {
                "record": "object_record",
                "address": format!("{address:#x}"),
                "is_created": false,
                "thread": self.thread,
            },
            Event::Allocated { .. }
            | Event::Freed { .. }
            | Event::FreeUndone
            | Event::Unmapped { .. }
            | Event::UnmapUndone => return,
        };
        if self.emitted.is_ok() {
            self.emitted = (self.emit)(record);
        }
    }

    fn read(&mut self, _bytes: u64) {}
}

fn padded(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    heaptide_capture::escape_bytes(&bytes[..end])
}

fn native_function(symbol: &NativeSymbol) -> Object {
    object! {
        "function": symbol.function.clone(),
        "file": symbol.file.clone(),
        "line": symbol.line,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(capture: &Capture) -> Object {
    let identity = &capture.identity;
    object! {
        "record": "header",
        "schema_version": SCHEMA_VERSION,
        "format_version": identity.version,
        "mode": Mode::from_raw(identity.mode).map(Mode::name),
        "file_bytes": capture.file_bytes,
        "required_features": identity.required_features,
        "optional_features": identity.optional_features,
        "page_bytes": identity.page_bytes,
        "pid": identity.pid,
        "parent_pid": identity.parent_pid,
        "created_unix_ns": identity.created_unix_ns,
        "boot_id": hex(&identity.boot_id),
        "pid_namespace": identity.pid_namespace,
        "process_start_ticks": identity.process_start_ticks,
        "sample_weight": identity.sample_weight,
        "memory_interval_ms": identity.memory_interval_ms,
        "temporary_threshold": identity.temporary_threshold,
        "stack_node_budget": identity.stack_node_budget,
        "trace_python_allocators": identity.traces_python_allocators(),
        "track_object_lifetimes": identity.tracks_objects(),
        "group_id": (identity.group_id != [0; 16]).then(|| hex(&identity.group_id)),
        "origin": Origin::from_raw(identity.origin).map(Origin::name),
        "origin_unix_ns": identity.origin_unix_ns,
        "root_pid": identity.root_pid,
    }
}

fn lifecycle(capture: &Capture, liveness: &Liveness) -> Object {
    let lifecycle = &capture.lifecycle;
    let outcome = Outcome::from_raw(lifecycle.outcome);
    let signal = (outcome == Some(Outcome::Signaled)).then(|| signal_name(lifecycle.outcome_value));
    object! {
        "record": "lifecycle",
        "status": liveness.word(),
        "status_text": liveness.to_string(),
        "state": State::from_raw(lifecycle.state).map(State::name),
        "stop_reason": StopReason::from_raw(lifecycle.stop_reason).map(StopReason::name),
        "stop_errno": lifecycle.stop_errno,
        "python_version": format!("{:#010x}", lifecycle.python_version),
        "python_allocator": PythonAllocator::from_raw(lifecycle.python_allocator).map(PythonAllocator::name),
        "main_thread_id": lifecycle.main_thread_id,
        "tracking_start_unix_ns": lifecycle.tracking_start_unix_ns,
        "tracking_end_unix_ns": lifecycle.tracking_end_unix_ns,
        "heartbeat_unix_ns": lifecycle.heartbeat_unix_ns,
        "exec_unix_ns": lifecycle.exec_unix_ns,
        "allocated_end": lifecycle.allocated_end,
        "outcome": outcome.map(Outcome::name),
        "outcome_value": lifecycle.outcome_value,
        "signal": signal,
        "oom_kills": lifecycle.oom_kills,
        "ended_unix_ns": lifecycle.ended_unix_ns,
    }
}

fn heap(capture: &Capture) -> Object {
    object! {
        "record": "heap",
        "headroom": capture.heap.headroom,
        "epoch": capture.heap.epoch,
        "peak_bytes": capture.heap.peak_bytes,
        "live_bytes": capture.live_bytes(),
    }
}

fn own_cost(capture: &Capture) -> Object {
    let own = &capture.own;
    object! {
        "record": "own_cost",
        "anonymous_bytes": own.anonymous_bytes,
        "mapped_bytes": own.mapped_bytes,
        "folded_stacks": own.folded_stacks,
        "overflow_stacks": own.overflow_stacks,
        "truncated_stacks": own.truncated_stacks,
        "dropped_code": own.dropped_code,
        "patched_objects": own.patched_objects,
        "patched_slots": own.patched_slots,
        "overflow_threads": own.overflow_threads,
        "early_stops_compared": own.early_stops_compared,
        "early_stop_mismatches": own.early_stop_mismatches,
    }
}

fn slot_record(number: u32, slot: &heaptide_format::Slot) -> Object {
    let histogram: Vec<Object> = slot
        .histogram
        .iter()
        .enumerate()
        .filter(|&(_, &count)| count > 0)
        .map(|(bin, &count)| {
            let (low, high) = histogram_bounds(bin);
            object! { "min_bytes": low, "max_bytes": high, "count": count }
        })
        .collect();
    object! {
        "record": "slot",
        "id": number,
        "thread": slot.thread,
        "allocations": slot.allocations,
        "deallocations": slot.deallocations,
        "missed_reentrant": slot.missed_reentrant,
        "unknown_frees": slot.unknown_frees,
        "missed_frees": slot.missed_frees,
        "timed_events": slot.timed_events,
        "timed_ns": slot.timed_ns,
        "histogram": Field::List(histogram),
    }
}

fn cell(profile: &Profile, entry: &Entry, options: ParseOptions) -> Object {
    let thread = &profile.threads[entry.thread as usize];
    let figures = &entry.figures;
    let stacks = profile
        .stacks
        .walk(entry.stack)
        .take(options.max_stack_frames);
    let frames: Vec<Object> = stacks.map(|stack| frame(profile, stack)).collect();
    let cut = frames.len() == options.max_stack_frames
        && profile
            .stacks
            .walk(entry.stack)
            .nth(options.max_stack_frames)
            .is_some();
    object! {
        "record": "cell",
        "stack": Field::List(frames),
        "stack_cut": cut,
        "allocator": entry.allocator.name(),
        "domain": entry.allocator.python_domain().map(PythonDomain::name),
        "thread": thread.number,
        "thread_id": thread.thread_id,
        "thread_name": thread.name.as_str(),
        "allocated_count": figures.allocated.count,
        "allocated_bytes": figures.allocated.bytes,
        "live_count": figures.live.count,
        "live_bytes": figures.live.bytes,
        "peak_count": figures.peak.count,
        "peak_bytes": figures.peak.bytes,
        "temporary_count": figures.temporary.count,
        "temporary_bytes": figures.temporary.bytes,
    }
}

fn frame(profile: &Profile, stack: StackId) -> Object {
    let stacks = &profile.stacks;
    let node = stacks.nodes[stack.index()];
    let frame = &stacks.frames[node.frame.index()];
    let location = stacks.locations[frame.location.index()];
    let mut object = object! {
        "function": stacks.text(location.function),
        "qualified_name": stacks.text(frame.qualified_name),
        "file": stacks.text(location.file),
        "line": location.line,
        "end_line": frame.position.end_line,
        "column": frame.position.column,
        "end_column": frame.position.end_column,
    };
    if node.folded {
        object.0.push(("folded", Field::Value(Value::Bool(true))));
    }
    object
}
