"""The ledger of a program whose right answer is known.

A program allocates through `h` (the C helper; the GIL is released during a call) or `hg` (the GIL is held) on lines that carry
a comment `# ALLOC:name`, and declares what a profiler must find with `expect`. It runs in one of two modes:

* `oracle` (plain Python): every call of the helper is wrapped; the wrapper looks at the stack with `sys._getframe` and keeps a
  naive model of heap, peak and temporary blocks. At the end the declared constants must equal the model, cell for cell.
* otherwise `h.malloc` is the bare ctypes function: nothing of ours stands between the program's line and the allocation.

Both modes write `expected.json` next to the program (`finish`). The harness compares the capture with it.

Peaks: the interpreter itself allocates too, but little, so a program's own maximum stands far above all its other totals: each
allocates and frees one block of `TIDE` bytes at the instant that is to be the peak.
"""
import ctypes
import gc
import json
import os
import sys
import sysconfig
import threading

TIDE = 1 << 28
ORACLE = sys.argv[1:2] == ["oracle"]
HERE = os.path.dirname(os.path.abspath(__file__))
STDLIB = os.path.dirname(os.__file__)

_markers = {}
_declared = []
_threads = {}
_names = []
_program = None


def _scan(path):
    with open(path, "rb") as file:
        for number, line in enumerate(file.read().decode("utf-8").split("\n"), 1):
            if "# ALLOC:" in line:
                name = line.rsplit("# ALLOC:", 1)[1].strip()
                assert name not in _markers, "marker %s is not unique" % name
                _markers[name] = (path, number)


def program(path):
    """To be called first, with the program's `__file__`."""
    global _program
    path = os.path.join(HERE, os.path.basename(path))
    if _program is None:
        _program = path
        _threads["main"] = threading.get_native_id()
    _scan(path)
    _warm()
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        # There the collector takes what it works with from malloc, on whatever line it happens to run
        gc.disable()
    # Room in the dictionary of the program's globals, so that no assignment on a measured line makes it grow
    sys._getframe(1).f_globals.update(dict.fromkeys(("_room%d" % n for n in range(200))))


def _warm():
    """Gives pymalloc free pools of every size, so that no arena is mapped on a line that is being measured."""
    blocks = [[bytes(size) for _ in range(4000)] for size in range(16, 480, 16)]
    for row in blocks:
        row[:] = row[::50]
    global _kept
    _kept = blocks


# ---- the model ---------------------------------------------------------------------------------------------------------------


class Block:
    def __init__(self, cell, size, thread, order):
        self.cell, self.size, self.left, self.thread, self.order = cell, size, size, thread, order


class Model:
    """Every event by the book, nothing clever."""

    def __init__(self):
        self.lock = threading.RLock()
        self.cells = {}
        self.blocks = {}
        self.pages = {}
        self.heap = self.peak = 0
        self.at_peak = None
        self.allocations = {}

    def allocate(self, stack, allocator, thread, address, size):
        key = (stack, allocator, thread)
        cell = self.cells.setdefault(key, dict.fromkeys(COUNTERS, 0))
        order = self.allocations[thread] = self.allocations.get(thread, 0) + 1
        cell["allocated_count"] += 1
        cell["allocated_bytes"] += size
        cell["live_count"] += 1
        cell["live_bytes"] += size
        self.heap += size
        if self.heap >= self.peak:
            self.peak, self.at_peak = self.heap, None
        block = Block(key, size, thread, order)
        if allocator == "MMAP":
            assert address % 4096 == 0
            for page in range(address, address + size, 4096):
                self.pages[page] = (block, min(4096, address + size - page))
        else:
            assert address and address not in self.blocks, address
            self.blocks[address] = block

    def _release(self, block, size, thread):
        if self.heap == self.peak and self.at_peak is None:
            self.at_peak = {k: (c["live_count"], c["live_bytes"]) for k, c in self.cells.items()}
        cell = self.cells[block.cell]
        self.heap -= size
        cell["live_bytes"] -= size
        block.left -= size
        if block.left == 0:
            cell["live_count"] -= 1
        if size == block.size and block.thread == thread and self.allocations[thread] - block.order <= 1:
            cell["temporary_count"] += 1
            cell["temporary_bytes"] += size

    def free(self, thread, address):
        if address:
            block = self.blocks.pop(address)
            self._release(block, block.size, thread)

    def unmap(self, thread, address, size):
        gone = {}
        for page in range(address, address + size, 4096):
            block, held = self.pages.pop(page, (None, 0))
            if block is not None:
                gone[id(block)] = (block, gone.get(id(block), (block, 0))[1] + held)
        for block, bytes_gone in gone.values():
            self._release(block, bytes_gone, thread)

    def results(self):
        for key, cell in self.cells.items():
            now = (cell["live_count"], cell["live_bytes"])
            cell["peak_count"], cell["peak_bytes"] = now if self.at_peak is None else self.at_peak.get(key, (0, 0))
        return self.cells


COUNTERS = (
    "allocated_count",
    "allocated_bytes",
    "live_count",
    "live_bytes",
    "peak_count",
    "peak_bytes",
    "temporary_count",
    "temporary_bytes",
)
_model = Model()


_columns = {}


def _column(frame):
    """First column of the present instruction, counted from 0, where the interpreter knows it (3.11 and later)."""
    code = frame.f_code
    if not hasattr(code, "co_positions"):
        return None
    # Holding the code object keeps its id from being used again
    if id(code) not in _columns:
        _columns[id(code)] = (code, [position[2] for position in code.co_positions()])
    return _columns[id(code)][1][frame.f_lasti // 2]


def _stack(frame):
    rows = []
    while frame is not None:
        code = frame.f_code
        qualified = getattr(code, "co_qualname", None)
        rows.append((code.co_name, qualified, code.co_filename, frame.f_lineno, _column(frame)))
        frame = frame.f_back
    return tuple(rows)


def _thread_name():
    return "main" if threading.get_native_id() == _threads["main"] else threading.current_thread().name


# ---- the helper ----------------------------------------------------------------------------------------------------------------

_P, _Z, _I = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
CALLBACK = ctypes.CFUNCTYPE(None)
_SIGNATURES = {
    "malloc": (_P, [_Z]),
    "malloc_by_data": (_P, [_Z]),
    "malloc_by_got": (_P, [_Z]),
    "calloc": (_P, [_Z, _Z]),
    "realloc": (_P, [_P, _Z]),
    "reallocarray": (_P, [_P, _Z, _Z]),
    "posix_memalign": (_P, [_Z, _Z]),
    "aligned_alloc": (_P, [_Z, _Z]),
    "memalign": (_P, [_Z, _Z]),
    "valloc": (_P, [_Z]),
    "pvalloc": (_P, [_Z]),
    "free": (None, [_P]),
    "free_by_data": (None, [_P]),
    "mmap": (_P, [_Z]),
    "mmap_fixed": (_P, [_P, _Z]),
    "mremap": (_P, [_P, _Z, _Z]),
    "mremap_fixed": (_P, [_P, _Z, _Z, _P]),
    "mremap_twin": (_P, [_P, _Z]),
    "mremap_keeping": (_P, [_P, _Z]),
    "mmap_shared": (_P, [_Z]),
    "mmap_file": (_P, [_I, _Z, _I]),
    "munmap": (_I, [_P, _Z]),
    "mapping_failures": (_I, [_P, _Z]),
    "failures": (_I, []),
    "realloc_fails": (_P, [_P]),
    "munmap_fails": (_I, [_P, _Z]),
    "errno_kept": (_I, [_Z]),
    "many": (None, [_Z, _Z, _P]),
    "free_many": (None, [_Z, _P]),
    "churn": (None, [_Z, _Z]),
    "windows": (None, [_Z]),
    "tie": (None, [_Z]),
    "grow": (_P, [_Z, _Z]),
    "many_in_pthread": (_I, [ctypes.c_char_p, _Z, _Z, _P]),
    "free_in_pthread": (_I, [_Z, _P]),
    "call_in_pthread": (_I, [ctypes.c_char_p, CALLBACK]),
    "call": (None, [CALLBACK]),
    "thread_sequence": (None, [_Z, _Z]),
    "thread_tie": (None, [_Z, _P]),
    "page": (_P, [ctypes.c_char_p]),
    "storm": (ctypes.c_uint64, [_P, _I, ctypes.c_uint64, ctypes.c_uint64]),
    "start_storm": (_I, [_P, _I, ctypes.c_uint64, ctypes.c_uint64]),
    "leak": (None, [_P, _I, _Z]),
    "segv": (None, []),
    "abort": (None, []),
    "exit_now": (None, [_I]),
    "exit": (None, [_I]),
    "kill_self": (None, [_I]),
    "overflow": (_I, [_I]),
    "signal_storm": (ctypes.c_uint64, [ctypes.c_uint64, ctypes.c_long]),
    "fork": (_I, [_Z, _Z]),
}


class Helper:
    """The functions of the helper without their prefix, as plain attributes, so that a call allocates nothing on the way."""

    def __init__(self, library):
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, "ht_" + name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
            wrapper = getattr(Watched, name, None)
            if ORACLE and wrapper is not None:
                setattr(self, name, wrapper(function))


def _watch(model):
    """A maker of wrappers: calls the real function, then tells `model(events, result, *arguments)` what happened."""

    def make(function):
        def call(*arguments):
            with _model.lock:
                stack, thread = _stack(sys._getframe(1)), _thread_name()
                if "free" in model.__name__:
                    model(stack, thread, None, *arguments)
                    return function(*arguments)
                result = function(*arguments)
                model(stack, thread, result, *arguments)
                return result

        return call

    return staticmethod(make)


def _allocates(allocator, size_of):
    def model(stack, thread, result, *arguments):
        _model.allocate(stack, allocator, thread, result, size_of(*arguments))

    return _watch(model)


_synthetic = iter(range(1, 1 << 40))


class Watched:
    malloc = _allocates("MALLOC", lambda size: size)
    malloc_by_data = _allocates("MALLOC", lambda size: size)
    malloc_by_got = _allocates("MALLOC", lambda size: size)
    calloc = _allocates("CALLOC", lambda count, size: count * size)
    posix_memalign = _allocates("POSIX_MEMALIGN", lambda alignment, size: size)
    aligned_alloc = _allocates("ALIGNED_ALLOC", lambda alignment, size: size)
    memalign = _allocates("MEMALIGN", lambda alignment, size: size)
    valloc = _allocates("VALLOC", lambda size: size)
    pvalloc = _allocates("PVALLOC", lambda size: size)
    mmap = _allocates("MMAP", lambda size: size)

    @_watch
    def realloc(stack, thread, result, block, size):
        _model.free(thread, block)
        _model.allocate(stack, "REALLOC", thread, result, size)

    @_watch
    def reallocarray(stack, thread, result, block, count, size):
        _model.free(thread, block)
        _model.allocate(stack, "REALLOC", thread, result, count * size)

    @_watch
    def mmap_fixed(stack, thread, result, address, size):
        _model.unmap(thread, address, size)
        _model.allocate(stack, "MMAP", thread, address, size)

    @_watch
    def mremap(stack, thread, result, block, old_size, new_size):
        _model.unmap(thread, block, old_size)
        _model.allocate(stack, "MMAP", thread, result, new_size)

    @_watch
    def mremap_fixed(stack, thread, result, block, old_size, new_size, place):
        _model.unmap(thread, block, old_size)
        _model.unmap(thread, place, new_size)
        _model.allocate(stack, "MMAP", thread, result, new_size)

    mremap_twin = _allocates("MMAP", lambda block, size: size)

    @_watch
    def mremap_keeping(stack, thread, result, block, size):
        if result:
            _model.allocate(stack, "MMAP", thread, result, size)

    mmap_shared = _allocates("MMAP", lambda size: size)
    mmap_file = _allocates("MMAP", lambda file, size, shared: size)

    @_watch
    def munmap(stack, thread, result, block, size):
        _model.unmap(thread, block, size)

    @_watch
    def free(stack, thread, result, block):
        _model.free(thread, block)

    @_watch
    def free_by_data(stack, thread, result, block):
        _model.free(thread, block)

    @_watch
    def many(stack, thread, result, count, size, out):
        for block in out:
            _model.allocate(stack, "MALLOC", thread, block, size)

    @_watch
    def free_many(stack, thread, result, count, blocks):
        for block in blocks[:count]:
            _model.free(thread, block)

    @_watch
    def errno_kept(stack, thread, result, size):
        _run(stack, thread, [("MALLOC", 0, size), (None, 0)])

    @_watch
    def churn(stack, thread, result, pairs, size):
        for _ in range(pairs):
            _run(stack, thread, [("MALLOC", 0, size), (None, 0)])

    @_watch
    def windows(stack, thread, result, size):
        m, c = "MALLOC", "CALLOC"
        _run(stack, thread, [(m, 0, size), (None, 0), (m, 1, size), (c, 2, size), (None, 1)])
        _run(stack, thread, [(m, 3, size), (c, 4, size), (c, 5, size), (None, 3), (None, 4), (None, 5)])
        # The block made by the first calloc: its free comes three allocations later
        _model.free(thread, ("block", 2, size, stack))

    @_watch
    def tie(stack, thread, result, size):
        for number, allocator in enumerate(("MALLOC", "CALLOC", "MEMALIGN")):
            _run(stack, thread, [(allocator, number, size), (None, number)])

    @_watch
    def grow(stack, thread, result, size, steps):
        events = [("MALLOC", 0, size)]
        for step in range(steps):
            events += [(None, step), ("REALLOC", step + 1, size * (step + 2))]
        _run(stack, thread, events)

    @_watch
    def many_in_pthread(stack, thread, result, name, count, size, out):
        for block in out:
            _model.allocate((), "MALLOC", name.decode(), block, size)

    @_watch
    def free_in_pthread(stack, thread, result, count, blocks):
        for block in blocks[:count]:
            _model.free(("a pthread", next(_synthetic)), block)

    @_watch
    def thread_tie(stack, thread, result, size, thread_ids):
        for name in ("tie 0", "tie 1"):
            _run((), name, [("MALLOC", 0, size), (None, 0)])


def _run(stack, thread, events):
    """Events whose addresses nobody sees: `(allocator, name of the block, size)` or `(None, name of the block)`."""
    sizes = {}
    for event in events:
        if event[0] is None:
            _model.free(thread, ("block", event[1], sizes[event[1]], stack))
        else:
            sizes[event[1]] = event[2]
            _model.allocate(stack, event[0], thread, ("block", event[1], event[2], stack), event[2])


_path = os.path.join(HERE, "helper.so")
h = Helper(ctypes.CDLL(_path))
hg = Helper(ctypes.PyDLL(_path))


def blocks(count):
    return (ctypes.c_void_p * count)()


def note_thread(name=None, thread_id=None):
    """Tells the harness the kernel's id of a thread: of this one, or of one that the helper made. Without a name it goes by
    the one it has in Python, and the profiler must know it by that."""
    if name is None:
        name = threading.current_thread().name
        _names.append(name)
    _threads[name] = thread_id or threading.get_native_id()


# ---- what is to be found -------------------------------------------------------------------------------------------------------

INLINED = sys.version_info >= (3, 12)


def comprehension(kind, marker):
    """The frame of a list, set or dict comprehension, which 3.12 and later do not have."""
    return "" if INLINED else "<%s>@%s < " % (kind, marker)


def _frames(stack):
    """`"inner@marker < outer@marker*3 < f@<file>:7"`: functions with their lines, innermost first."""
    for part in stack.split(" < ") if stack else []:
        part, _, times = part.partition("*") if not part.endswith("*") else (part, "", "")
        function, _, place = part.rpartition("@")
        if place in _markers:
            file, line = _markers[place]
        else:
            file, _, line = place.rpartition(":")
            assert line.isdigit(), "no marker %r" % place
            line = int(line)
        for _ in range(int(times or 1)):
            yield function, file, line


def expect(stack, allocator, made, size=None, live=0, peak=0, temporary=0, thread="main", observed=True):
    """One cell. Figures are counts of blocks of `size` bytes each, or pairs (count, bytes).

    `observed=False`: the blocks are not made by the helper's functions, so the oracle cannot see them.
    """

    def pair(figure):
        return figure if isinstance(figure, tuple) else (figure, figure * (size or 0))

    figures = (pair(made), pair(live), pair(peak), pair(temporary))
    counters = dict(zip(COUNTERS, (number for figure in figures for number in figure)))
    _declared.append((tuple(_frames(stack)), allocator, thread, counters, observed))


def tide(stack):
    """Declares the block that makes the peak: `h.free(h.malloc(known.TIDE))`."""
    expect(stack, "MALLOC", made=1, size=TIDE, peak=1, temporary=1)


def _own(stack):
    """The frames that are not the standard library's, as `expect` names them."""
    return tuple(
        (function, file, line)
        for function, _, file, line, _ in stack
        if not file.startswith(STDLIB) and not file.startswith("<frozen")
    )


def _text(text):
    """As heaptide prints names that are not Unicode: undecodable bytes as \\xNN, other lone surrogates as \\uNNNN."""

    def one(character):
        number = ord(character)
        if 0xDC80 <= number <= 0xDCFF:
            return "\\x%02x" % (number - 0xDC00)
        return "\\u%04x" % number if 0xD800 <= number <= 0xDFFF else character

    return "".join(map(one, text))


def finish():
    """Writes `expected.json`; in oracle mode first compares what was declared with what was seen."""
    cells, errors = [], []
    declared = {}
    for stack, allocator, thread, counters, observed in _declared:
        key = (stack, allocator, thread)
        if key in declared:
            errors.append("declared twice: %r" % (key,))
        declared[key] = counters
        if not (ORACLE and observed):
            rows = [dict(function=f, qualified_name=None, file=_text(n), line=l, column=None) for f, n, l in stack]
            cells.append(dict(stack=rows, allocator=allocator, thread=thread, observed=observed, **counters))
    if ORACLE:
        seen = _model.results()
        places = {}
        for (stack, allocator, thread), counters in seen.items():
            key = (_own(stack), allocator, thread)
            # Two calls on one line differ in their columns only; the declared cell is their sum
            before = places.get(key, dict.fromkeys(COUNTERS, 0))
            places[key] = {name: before[name] + counters[name] for name in COUNTERS}
            rows = [dict(function=f, qualified_name=q, file=_text(n), line=l, column=c) for f, q, n, l, c in stack]
            cells.append(dict(stack=rows, allocator=allocator, thread=thread, observed=True, **counters))
        observed = {key: counters for key, counters in declared.items() if key in places}
        unobserved = [key for key in declared if key not in places]
        for stack, allocator, thread, _, was_observed in _declared:
            if was_observed and (stack, allocator, thread) in unobserved:
                errors.append("declared, not seen: %r %s %s" % (stack[:6], allocator, thread))
        for key, counters in places.items():
            if key not in observed:
                errors.append("seen, not declared: %r %s %s %r" % (key[0][:6], key[1], key[2], counters))
            elif observed[key] != counters:
                errors.append("%r %s %s: declared %r, seen %r" % (key[0][:6], *key[1:], observed[key], counters))
    markers = sorted((_text(file), line) for file, line in _markers.values())
    result = dict(cells=cells, errors=errors, threads=_threads, markers=markers, names=_names)
    with open(os.path.join(HERE, "expected.json"), "w") as file:
        json.dump(result, file)
