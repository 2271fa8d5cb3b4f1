//! The layout tables against the headers of every interpreter on this machine.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use heaptide_cpython::layout::DebugOffsets;
use heaptide_cpython::{FrameFamily, Layout, MarkLayout, StackLayout, WaitLayout, stack_chunk};

#[test]
fn tables_agree_with_the_headers() {
    for python in support::pythons() {
        check(&python.include, python.base_include.as_deref());
    }
}

fn check(include: &Path, base_include: Option<&Path>) {
    let fields = probe(include, base_include);
    let field = |name: &str| fields.get(name).copied();
    let hexversion = u32::try_from(fields["version"]).unwrap();
    let has_gil = field("gil.disabled").is_none();
    let layout = if has_gil {
        Layout::table(hexversion).unwrap()
    } else {
        Layout::table_without_gil(hexversion).unwrap()
    };

    // Zero in the table: the version has no such field.
    let compare = |name: &str, value: u32| {
        assert_eq!(
            field(name).unwrap_or(0),
            u64::from(value),
            "{name} by {}",
            include.display()
        );
    };
    compare("thread.thread_id", layout.thread.thread_id);
    compare("thread.frame", layout.thread.frame);
    compare("thread.c_frame_current", layout.thread.c_frame_current);
    compare("frame.previous", layout.frame.previous);
    compare("frame.code", layout.frame.code);
    compare("frame.instruction", layout.frame.instruction);
    compare("frame.owner", layout.frame.owner);
    compare("frame.entry", layout.frame.entry);
    compare("frame.locals", layout.frame.locals);
    compare("code.size", layout.code.size);
    compare("code.flags", layout.code.flags);
    compare("code.first_line", layout.code.first_line);
    compare("code.local_count", layout.code.local_count);
    compare("code.name", layout.code.name);
    compare("code.qualified_name", layout.code.qualified_name);
    compare("code.file_name", layout.code.file_name);
    compare("code.line_table", layout.code.line_table);
    compare("code.first_traceable", layout.code.first_traceable);
    compare("code.instructions", layout.code.instructions);
    compare("object.type", layout.object.type_);
    compare("type.flags", layout.object.type_flags);
    compare("bytes.length", layout.object.bytes_length);
    compare("bytes.data", layout.object.bytes_data);
    compare("str.length", layout.object.str_length);
    compare("str.state", layout.object.str_state);
    compare("str.ascii_size", layout.object.str_ascii_size);
    compare("str.compact_size", layout.object.str_compact_size);
    compare("type.dealloc", layout.object.type_dealloc);
    compare("type.name", layout.object.type_name);
    compare("copies.of_frame", layout.copies.of_frame);
    compare("copies.of_code", layout.copies.of_code);
    compare("copies.code_units", layout.copies.code_units);
    compare("copies.of_thread", layout.copies.of_thread);
    compare("copies.thread_number", layout.copies.thread_number);
    compare("copies.thread_status", layout.copies.thread_status);

    // What the code takes for granted.
    let constant = |name: &str, allowed: &[Option<u64>]| {
        assert!(
            allowed.contains(&field(name)),
            "{name} is {:?} by {}",
            field(name),
            include.display()
        );
    };
    constant("owner.generator", &[None, Some(1)]);
    constant("owner.thread", &[None, Some(0)]);
    constant("owner.frame_object", &[None, Some(2)]);
    constant("owner.interpreter", &[None, Some(3)]);
    constant("owner.c_stack", &[None, Some(3), Some(4)]);
    constant("tag.bits", &[None, Some(1), Some(3)]);
    constant("code.unit", &[None, Some(2)]);
    constant("object.size", &[Some(if has_gil { 16 } else { 32 })]);
    constant("copies.attached", &[None, Some(1)]);
    constant("copies.entries", &[None, Some(8)]);
    constant(
        "str.data_pointer",
        &[Some(u64::from(layout.object.str_compact_size))],
    );
    constant(
        "str.kind_mask",
        &[Some(0b111 << layout.object.str_kind_shift)],
    );
    constant(
        "str.compact_mask",
        &[Some(1 << (layout.object.str_kind_shift + 3))],
    );
    constant(
        "str.ascii_mask",
        &[Some(1 << (layout.object.str_kind_shift + 4))],
    );
    constant("type.bytes_flag", &[Some(1 << 27)]);
    constant("type.str_flag", &[Some(1 << 28)]);

    if let Some(marks) = MarkLayout::for_version(hexversion) {
        compare("mark.field", marks.field);
        compare("mark.generator", marks.generator);
    }
    if let Some(waits) = WaitLayout::for_version(hexversion) {
        compare("wait.stack_top", waits.stack_top);
    }
    let stack = StackLayout::for_version(hexversion).unwrap();
    compare("stack.tracing", stack.tracing);
    compare("stack.event", stack.event);
    compare("stack.chunk", stack.chunk);
    let chunk = |offset: u32| [None, Some(u64::from(offset))];
    constant("stack.chunk_previous", &chunk(stack_chunk::PREVIOUS));
    constant("stack.chunk_size", &chunk(stack_chunk::SIZE));
    constant("stack.chunk_top", &chunk(stack_chunk::TOP));
    constant("stack.chunk_data", &chunk(stack_chunk::DATA));

    let debug = DebugOffsets::for_version(hexversion);
    assert_eq!(
        debug.is_some(),
        field("debug.size").is_some(),
        "debug offsets by {}",
        include.display()
    );
    if let Some(debug) = debug {
        compare_debug_offsets(&debug, &fields, layout.family);
    }
}

fn compare_debug_offsets(
    debug: &DebugOffsets,
    fields: &BTreeMap<String, u64>,
    family: FrameFamily,
) {
    let compare = |name: &str, value: usize| {
        assert_eq!(
            fields[&format!("debug.{name}")],
            value as u64,
            "{name} in _Py_DebugOffsets of {:#x}",
            fields["version"]
        );
    };
    compare("version", 8);
    compare("free_threaded", 16);
    compare("thread_current_frame", debug.thread_current_frame);
    compare("thread_thread_id", debug.thread_thread_id);
    compare("frame_previous", debug.frame_previous);
    compare("frame_executable", debug.frame_executable);
    compare("frame_instr_ptr", debug.frame_instr_ptr);
    compare("frame_localsplus", debug.frame_localsplus);
    compare("frame_owner", debug.frame_owner);
    compare("code_size", debug.code_size);
    compare("code_filename", debug.code_filename);
    compare("code_name", debug.code_name);
    compare("code_qualname", debug.code_qualname);
    compare("code_linetable", debug.code_linetable);
    compare("code_firstlineno", debug.code_firstlineno);
    compare("code_co_code_adaptive", debug.code_co_code_adaptive);
    if family == FrameFamily::WithoutGil {
        compare("frame_tlbc_index", debug.frame_tlbc_index);
        compare("code_co_tlbc", debug.code_co_tlbc);
    }
    compare("object_size", debug.object_size);
    compare("object_type", debug.object_type);
    compare("type_flags", debug.type_flags);
    compare("bytes_length", debug.bytes_length);
    compare("bytes_data", debug.bytes_data);
    compare("str_state", debug.str_state);
    compare("str_length", debug.str_length);
    compare("str_ascii_size", debug.str_ascii_size);
}

/// Compiles the probe against the headers and runs it.
fn probe(include: &Path, base_include: Option<&Path>) -> BTreeMap<String, u64> {
    let directory = tempfile::tempdir().unwrap();
    let binary = directory.path().join("probe");
    let mut compiler = Command::new("gcc");
    compiler
        .arg("-w")
        .arg("-o")
        .arg(&binary)
        .arg("-I")
        .arg(include)
        .arg("-I")
        .arg(include.join("internal"));
    if let Some(base) = base_include {
        // Behind the system's own: another root's C library headers must not be mixed with ours.
        compiler.arg("-idirafter").arg(base);
    }
    compiler.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/layout_probe.c"));
    let output = compiler.output().expect("gcc runs");
    assert!(
        output.status.success(),
        "{}: {}",
        include.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let output = Command::new(&binary).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').expect("name and value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}
