/* Prints, as `name value` lines, what the real headers of one interpreter say about every field of the layout table.
   A field that a version does not have is not printed. Compiled by tests/layout.rs, against headers only: nothing is linked. */
#define Py_BUILD_CORE 1
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#if PY_VERSION_HEX < 0x030B0000
#  include <frameobject.h>
#endif
#if PY_VERSION_HEX >= 0x030B0000
#  include "internal/pycore_frame.h"
#endif
#if PY_VERSION_HEX >= 0x030E0000
#  include "internal/pycore_interpframe.h"
#endif
#if PY_VERSION_HEX >= 0x030D0000
#  include "internal/pycore_runtime.h"
#endif

#define FIELD(name, type, member) printf("%s %zu\n", name, offsetof(type, member))
#define SIZE(name, type) printf("%s %zu\n", name, sizeof(type))
#define VALUE(name, value) printf("%s %llu\n", name, (unsigned long long)(value))

/* Where a bit field lies is not something offsetof can say: fill it and look. */
#define BITS(name, member)                                        \
    do {                                                          \
        PyASCIIObject object;                                     \
        uint32_t word;                                            \
        memset(&object, 0, sizeof object);                        \
        object.state.member = ~0u;                                \
        memcpy(&word, (char *)&object + offsetof(PyASCIIObject, state), sizeof word); \
        VALUE(name, word);                                        \
    } while (0)

static void threads(void)
{
    FIELD("thread.thread_id", PyThreadState, thread_id);
#if PY_VERSION_HEX < 0x030B0000
    FIELD("thread.frame", PyThreadState, frame);
#elif PY_VERSION_HEX < 0x030D0000
    FIELD("thread.frame", PyThreadState, cframe);
#  if PY_VERSION_HEX < 0x030C0000
    FIELD("thread.c_frame_current", _PyCFrame, current_frame);
#  else
    FIELD("thread.c_frame_current", _PyCFrame, current_frame);
#  endif
#else
    FIELD("thread.frame", PyThreadState, current_frame);
#endif
}

static void frames(void)
{
#if PY_VERSION_HEX < 0x030B0000
    FIELD("frame.previous", PyFrameObject, f_back);
    FIELD("frame.code", PyFrameObject, f_code);
    FIELD("frame.instruction", PyFrameObject, f_lasti);
    FIELD("frame.locals", PyFrameObject, f_localsplus);
#else
    FIELD("frame.previous", _PyInterpreterFrame, previous);
    FIELD("frame.owner", _PyInterpreterFrame, owner);
    FIELD("frame.locals", _PyInterpreterFrame, localsplus);
#  if PY_VERSION_HEX < 0x030C0000
    FIELD("frame.entry", _PyInterpreterFrame, is_entry);
#  endif
#  if PY_VERSION_HEX < 0x030D0000
    FIELD("frame.code", _PyInterpreterFrame, f_code);
    FIELD("frame.instruction", _PyInterpreterFrame, prev_instr);
#  else
    FIELD("frame.code", _PyInterpreterFrame, f_executable);
    FIELD("frame.instruction", _PyInterpreterFrame, instr_ptr);
#  endif
    VALUE("owner.thread", FRAME_OWNED_BY_THREAD);
    VALUE("owner.generator", FRAME_OWNED_BY_GENERATOR);
    VALUE("owner.frame_object", FRAME_OWNED_BY_FRAME_OBJECT);
#  if PY_VERSION_HEX >= 0x030E0000
    VALUE("owner.interpreter", FRAME_OWNED_BY_INTERPRETER);
#  endif
#  if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030F0000
    VALUE("owner.c_stack", FRAME_OWNED_BY_CSTACK);
#  endif
#endif
#ifdef Py_TAG_BITS
    VALUE("tag.bits", Py_TAG_BITS);
#endif
}

static void marks(void)
{
#if PY_VERSION_HEX < 0x030B0000
    FIELD("mark.field", PyFrameObject, f_trace_lines);
    FIELD("mark.generator", PyFrameObject, f_gen);
#elif PY_VERSION_HEX >= 0x030D0000
    FIELD("mark.field", _PyInterpreterFrame, f_locals);
#else
    FIELD("wait.stack_top", _PyInterpreterFrame, stacktop);
#endif
}

static void stacks(void)
{
    FIELD("stack.tracing", PyThreadState, tracing);
#if PY_VERSION_HEX >= 0x030C0000
    FIELD("stack.event", PyThreadState, what_event);
#endif
#if PY_VERSION_HEX >= 0x030B0000
    FIELD("stack.chunk", PyThreadState, datastack_chunk);
    FIELD("stack.chunk_previous", _PyStackChunk, previous);
    FIELD("stack.chunk_size", _PyStackChunk, size);
    FIELD("stack.chunk_top", _PyStackChunk, top);
    FIELD("stack.chunk_data", _PyStackChunk, data);
#endif
}

static void codes(void)
{
    SIZE("code.size", PyCodeObject);
    FIELD("code.flags", PyCodeObject, co_flags);
    FIELD("code.first_line", PyCodeObject, co_firstlineno);
    FIELD("code.name", PyCodeObject, co_name);
    FIELD("code.file_name", PyCodeObject, co_filename);
#if PY_VERSION_HEX < 0x030A0000
    FIELD("code.line_table", PyCodeObject, co_lnotab);
#else
    FIELD("code.line_table", PyCodeObject, co_linetable);
#endif
#if PY_VERSION_HEX < 0x030B0000
    FIELD("code.local_count", PyCodeObject, co_nlocals);
#else
    FIELD("code.local_count", PyCodeObject, co_nlocalsplus);
    FIELD("code.qualified_name", PyCodeObject, co_qualname);
    FIELD("code.first_traceable", PyCodeObject, _co_firsttraceable);
    FIELD("code.instructions", PyCodeObject, co_code_adaptive);
    SIZE("code.unit", _Py_CODEUNIT);
#endif
}

static void objects(void)
{
    SIZE("object.size", PyObject);
    FIELD("object.type", PyObject, ob_type);
    FIELD("type.flags", PyTypeObject, tp_flags);
    FIELD("type.dealloc", PyTypeObject, tp_dealloc);
    FIELD("type.name", PyTypeObject, tp_name);
    VALUE("type.bytes_flag", Py_TPFLAGS_BYTES_SUBCLASS);
    VALUE("type.str_flag", Py_TPFLAGS_UNICODE_SUBCLASS);
    FIELD("bytes.length", PyVarObject, ob_size);
    FIELD("bytes.data", PyBytesObject, ob_sval);
    FIELD("str.length", PyASCIIObject, length);
    FIELD("str.state", PyASCIIObject, state);
    SIZE("str.ascii_size", PyASCIIObject);
    SIZE("str.compact_size", PyCompactUnicodeObject);
    FIELD("str.data_pointer", PyUnicodeObject, data);
    BITS("str.kind_mask", kind);
    BITS("str.compact_mask", compact);
    BITS("str.ascii_mask", ascii);
}

static void copies(void)
{
#ifdef Py_GIL_DISABLED
    VALUE("gil.disabled", 1);
    FIELD("copies.of_frame", _PyInterpreterFrame, tlbc_index);
    FIELD("copies.of_code", PyCodeObject, co_tlbc);
    FIELD("copies.code_units", PyVarObject, ob_size);
    FIELD("copies.of_thread", _PyThreadStateImpl, tlbc_index);
    FIELD("copies.thread_number", PyThreadState, id);
    FIELD("copies.thread_status", PyThreadState, state);
    FIELD("copies.entries", _PyCodeArray, entries);
    VALUE("copies.attached", _Py_THREAD_ATTACHED);
#endif
}

static void debug_offsets(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    SIZE("debug.size", _Py_DebugOffsets);
    FIELD("debug.version", _Py_DebugOffsets, version);
    FIELD("debug.free_threaded", _Py_DebugOffsets, free_threaded);
    FIELD("debug.thread_current_frame", _Py_DebugOffsets, thread_state.current_frame);
    FIELD("debug.thread_thread_id", _Py_DebugOffsets, thread_state.thread_id);
    FIELD("debug.frame_previous", _Py_DebugOffsets, interpreter_frame.previous);
    FIELD("debug.frame_executable", _Py_DebugOffsets, interpreter_frame.executable);
    FIELD("debug.frame_instr_ptr", _Py_DebugOffsets, interpreter_frame.instr_ptr);
    FIELD("debug.frame_localsplus", _Py_DebugOffsets, interpreter_frame.localsplus);
    FIELD("debug.frame_owner", _Py_DebugOffsets, interpreter_frame.owner);
#  if PY_VERSION_HEX >= 0x030E0000
    FIELD("debug.frame_tlbc_index", _Py_DebugOffsets, interpreter_frame.tlbc_index);
    FIELD("debug.code_co_tlbc", _Py_DebugOffsets, code_object.co_tlbc);
#  endif
    FIELD("debug.code_size", _Py_DebugOffsets, code_object.size);
    FIELD("debug.code_filename", _Py_DebugOffsets, code_object.filename);
    FIELD("debug.code_name", _Py_DebugOffsets, code_object.name);
    FIELD("debug.code_qualname", _Py_DebugOffsets, code_object.qualname);
    FIELD("debug.code_linetable", _Py_DebugOffsets, code_object.linetable);
    FIELD("debug.code_firstlineno", _Py_DebugOffsets, code_object.firstlineno);
    FIELD("debug.code_co_code_adaptive", _Py_DebugOffsets, code_object.co_code_adaptive);
    FIELD("debug.object_size", _Py_DebugOffsets, pyobject.size);
    FIELD("debug.object_type", _Py_DebugOffsets, pyobject.ob_type);
    FIELD("debug.type_flags", _Py_DebugOffsets, type_object.tp_flags);
    FIELD("debug.bytes_length", _Py_DebugOffsets, bytes_object.ob_size);
    FIELD("debug.bytes_data", _Py_DebugOffsets, bytes_object.ob_sval);
    FIELD("debug.str_state", _Py_DebugOffsets, unicode_object.state);
    FIELD("debug.str_length", _Py_DebugOffsets, unicode_object.length);
    FIELD("debug.str_ascii_size", _Py_DebugOffsets, unicode_object.asciiobject_size);
#endif
}

int main(void)
{
    VALUE("version", PY_VERSION_HEX);
    threads();
    frames();
    marks();
    stacks();
    codes();
    objects();
    copies();
    debug_offsets();
    return 0;
}
