"""Native stacks whose right answer is known. Arguments: the sections to run."""
import ctypes
import functools
import itertools
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import types

import native_expected
from native_expected import CALLBACK, COMPARE, INLINED, Library, comprehension, expect, renamed

native_expected.program(__file__)
BASE = Library("native-base")
HELD = BASE.held
NO_CALLBACK = CALLBACK()
# Those without debug information have names and no lines.
BUILDS = ("base", "omit", "framed", "control", "realign", "plain", "stripped", "elsewhere", "now")
WITHOUT_LINES = ("stripped",)
INNER = "nt_inner@inner < nt_middle@middle < "
CHAIN = INNER + "nt_outer@outer < "


# ---- chains and shapes, of every build ----------------------------------------------------------------------------------------


def chains(build):
    build.outer(1001)  # AT:chains
    build.two_lines(1003)  # AT:chains_two_lines
    build.alternate(1005, 50)  # AT:chains_alternate
    build.family(1007)  # AT:chains_family
    build.shapes(1009)  # AT:chains_shapes
    build.returns_by_jump(1011)  # AT:chains_jump
    build.stairs(1013, 30)  # AT:chains_stairs
    build.jumps(1015, 20)  # AT:chains_jumps
    build.temporary(1017, 10)  # AT:chains_temporary
    if not build.name.endswith("plain"):
        build.tail_caller(1019)  # AT:chains_tail
    assert build.unharmed(1021)  # AT:chains_unharmed


def expect_chains(suffix):
    def told(stack, size, marker, count=1, **others):
        expect("%s < chains_%s@%s < builds@builds" % (stack, suffix, marker), size, count, lines=suffix not in WITHOUT_LINES, **others)

    told(CHAIN[:-3], 1001, "chains")
    if suffix in WITHOUT_LINES:
        told("nt_inner@inner < nt_middle@middle < nt_two_lines@first_line", 1003, "chains_two_lines", 2)
    else:
        told("nt_inner@inner < nt_middle@middle < nt_two_lines@first_line", 1003, "chains_two_lines")
        told("nt_inner@inner < nt_middle@middle < nt_two_lines@second_line", 1003, "chains_two_lines")
    for side in ("left", "right"):
        told("nt_leaf@leaf < nt_%s@%s < nt_alternate@alternate_%s" % (side, side, side), 1005, "chains_alternate", 50)
    family = ("calloc", 1), ("realloc", 2), ("posix_memalign", 1), ("aligned_alloc", 64), ("valloc", 1), ("mmap", 4096)
    told("nt_family@malloc", 1007, "chains_family", live=0, temporary=1)
    for name, times in family:
        told("nt_family@" + name, 1007 * times, "chains_family", allocator=name.upper())
    shapes = "variable", "aligned", "aligned_variable", "aligned_arguments", "big", "registers", "late_frame"
    for name in shapes:
        count = 2 if name == "variable" and suffix in WITHOUT_LINES else 1
        told("nt_inner@inner < nt_%s@%s < nt_shapes@shapes_%s" % (name, name, name), 1009, "chains_shapes", count)
    if suffix not in WITHOUT_LINES:
        told("nt_inner@inner < nt_variable@variable < nt_shapes@shapes_variable_again", 1009, "chains_shapes")
    told("nt_inner@inner < nt_many_arguments@many_arguments < nt_pushes@pushes < nt_shapes@shapes_pushes", 1009, "chains_shapes")
    told("nt_never_returns@never_returns < nt_ends_with_call@ends_with_call < nt_returns_by_jump@returns_by_jump", 1011, "chains_jump")
    told("nt_leaf@leaf < nt_returns_by_jump@after_jump", 1011, "chains_jump")
    for depth in range(31):
        above = " < nt_stairs@stairs" * depth
        if suffix in WITHOUT_LINES:
            told("nt_stairs@down" + above, 1013, "chains_stairs", 2)
        else:
            told("nt_stairs@down" + above, 1013, "chains_stairs")
            told("nt_stairs@up" + above, 1013, "chains_stairs")
    told("nt_deep_jump@before_jump" + " < nt_deep_jump@deep_jump" * 20 + " < nt_jumps@jumps", 1015, "chains_jumps")
    told(CHAIN + "nt_jumps@jumped", 1015, "chains_jumps")
    told("nt_temporary@temporary", 1017, "chains_temporary", 10, live=0, temporary=10)
    if suffix != "plain":
        told("nt_leaf@leaf < nt_tail_caller@tail", 1019, "chains_tail")
    told("nt_unharmed@unharmed", 1021, "chains_unharmed")


def builds():
    for suffix in BUILDS:
        renamed(chains, suffix)(Library("native-" + suffix))  # AT:builds
        expect_chains(suffix)


# ---- depth --------------------------------------------------------------------------------------------------------------------

LEFT = 0


def through():
    global LEFT
    LEFT -= 1
    if LEFT:
        BASE.callback(THROUGH)  # AT:through
    else:
        BASE.leaf(2001)  # AT:through_last


THROUGH = CALLBACK(through)


def python_deep(depth):
    if depth:
        python_deep(depth - 1)  # AT:python_deep
    else:
        BASE.leaf(2003)  # AT:python_deepest


def depth():
    global LEFT
    # 3.12 has a limit of its own, which no program can raise.
    LEFT = levels = 450 if sys.version_info[:2] == (3, 12) else 500
    sys.setrecursionlimit(20000)
    through()  # AT:depth_through
    expect("nt_leaf@leaf < through@through_last" + " < nt_callback@callback < through@through" * (levels - 1) + " < depth@depth_through", 2001)
    BASE.deep(2005, 3000)  # AT:depth_c
    expect("nt_deep@deepest" + " < nt_deep@deep" * 3000 + " < depth@depth_c", 2005)
    python_deep(2000)  # AT:depth_python
    expect("nt_leaf@leaf < python_deep@python_deepest" + " < python_deep@python_deep" * 2000 + " < depth@depth_python", 2003)
    # Again at another depth, which may find what was kept of the last walk.
    for times in (2999, 1, 3000, 17):
        BASE.deep(2007, times)  # AT:depth_again
        expect("nt_deep@deepest" + " < nt_deep@deep" * times + " < depth@depth_again", 2007)


# ---- callbacks ----------------------------------------------------------------------------------------------------------------


def called_back():
    BASE.outer(3001)  # AT:called_back


def compare(one, other):
    BASE.leaf(3003)  # AT:compare
    global compared
    compared += 1
    return one[0] - other[0]


def callbacks():
    global compared
    call = CALLBACK(called_back)
    BASE.callback(call)  # AT:callbacks
    expect(CHAIN + "called_back@called_back < nt_callback@callback < callbacks@callbacks", 3001)
    HELD.callback_deep(call, 7)  # AT:callbacks_deep
    expect(CHAIN + "called_back@called_back < nt_callback_deep@callback_deepest" + " < nt_callback_deep@callback_deep" * 7 + " < callbacks@callbacks_deep", 3001)
    numbers = (ctypes.c_int * 40)(*(number * 17 % 40 for number in range(40)))
    compared = 0
    BASE.qsort(numbers, 40, 4, COMPARE(compare))  # AT:callbacks_qsort
    assert list(numbers) == sorted(numbers) and compared > 40
    expect("nt_leaf@leaf < compare@compare < nt_qsort@qsort < callbacks@callbacks_qsort", 3003, compared)
    # From C to Python to C to Python to C
    inner = CALLBACK(called_back)
    outer = CALLBACK(lambda: HELD.callback(inner))  # AT:callbacks_twice
    HELD.call(functools.partial(BASE.callback, outer))  # AT:callbacks_call
    expect(
        CHAIN + "called_back@called_back < nt_callback@callback < <lambda>@callbacks_twice < nt_callback@callback < nt_call@call < callbacks@callbacks_call", 3001
    )


# ---- frames that are entered from C and from Python in turn -------------------------------------------------------------------


def generator():
    BASE.leaf(4001)  # AT:generator_first
    yield 1
    BASE.leaf(4003)  # AT:generator_second
    yield 2
    BASE.leaf(4005)  # AT:generator_third
    yield 3


def delegating(inner):
    yield from inner  # AT:delegating


@types.coroutine
def suspend():
    yield


async def coroutine():
    BASE.leaf(4007)  # AT:coroutine_first
    await suspend()
    BASE.leaf(4009)  # AT:coroutine_second
    await suspend()


class Special:
    @property
    def value(self):
        BASE.leaf(4101)  # AT:value

    def __str__(self):
        BASE.leaf(4103)  # AT:str
        return ""

    def __lt__(self, other):
        BASE.leaf(4105)  # AT:lt
        return True

    def __iter__(self):
        BASE.leaf(4107)  # AT:iter
        return iter(())

    def __getattr__(self, name):
        BASE.leaf(4109)  # AT:getattr


class Dying:
    def __del__(self):
        BASE.leaf(4111)  # AT:del


def key(value):
    BASE.leaf(4201)  # AT:key
    return value


def turns():
    """One round; many are made, so that the interpreter specialises what it can."""
    resumed = generator()
    HELD.next(resumed)  # AT:turns_next
    next(resumed)  # AT:turns_python
    HELD.next(delegating(resumed))  # AT:turns_delegating
    list(generator())  # AT:turns_list
    for _ in generator(): pass  # AT:turns_for
    for _ in delegating(generator()): pass  # AT:turns_for_delegating
    sum(map(key, generator()))  # AT:turns_map
    waits = coroutine()
    HELD.call(functools.partial(waits.send, None))  # AT:turns_send
    waits.send(None)  # AT:turns_resume
    waits.close()
    special = Special()
    HELD.get(special, b"value")  # AT:turns_get
    special.value  # AT:turns_value
    HELD.text(special)  # AT:turns_text
    str(special)  # AT:turns_str
    HELD.less(special, special)  # AT:turns_less
    special < special  # AT:turns_lt
    HELD.get(special, b"nothing")  # AT:turns_get_nothing
    list(special)  # AT:turns_iter
    dying = Dying()
    address = id(dying)
    HELD.hold(dying)
    del dying
    HELD.drop(address)  # AT:turns_drop
    dying = Dying()
    del dying  # AT:turns_del
    sorted([2, 1], key=key)  # AT:turns_sorted
    HELD.call(functools.partial(sorted, [2, 1], key=key))  # AT:turns_call_sorted
    HELD.call(lambda: [BASE.leaf(4203) for _ in "12"])  # AT:turns_comprehension


def interleaved():
    rounds = 60
    for _ in range(rounds):
        turns()  # AT:interleaved

    def told(stack, size, marker, count=1):
        expect("nt_leaf@leaf < %s < turns@%s < interleaved@interleaved" % (stack, marker), size, rounds * count)

    steps = ("first", 4001), ("second", 4003), ("third", 4005)
    told("generator@generator_first < nt_next@next", 4001, "turns_next")
    told("generator@generator_second", 4003, "turns_python")
    told("generator@generator_third < delegating@delegating < nt_next@next", 4005, "turns_delegating")
    for step, size in steps:
        told("generator@generator_" + step, size, "turns_list")
        told("generator@generator_" + step, size, "turns_for")
        told("generator@generator_%s < delegating@delegating" % step, size, "turns_for_delegating")
        told("generator@generator_" + step, size, "turns_map")
    told("key@key", 4201, "turns_map", 3)
    told("coroutine@coroutine_first < nt_call@call", 4007, "turns_send")
    told("coroutine@coroutine_second", 4009, "turns_resume")
    told("value@value < nt_get@get", 4101, "turns_get")
    told("value@value", 4101, "turns_value")
    told("__str__@str < nt_text@text", 4103, "turns_text")
    told("__str__@str", 4103, "turns_str")
    told("__lt__@lt < nt_less@less", 4105, "turns_less")
    told("__lt__@lt", 4105, "turns_lt")
    told("__getattr__@getattr < nt_get@get", 4109, "turns_get_nothing")
    told("__iter__@iter", 4107, "turns_iter")
    told("__del__@del < nt_drop@drop", 4111, "turns_drop")
    told("__del__@del", 4111, "turns_del")
    told("key@key", 4201, "turns_sorted", 2)
    told("key@key < nt_call@call", 4201, "turns_call_sorted", 2)
    told(comprehension("turns_comprehension") + "<lambda>@turns_comprehension < nt_call@call", 4203, "turns_comprehension", 2)


# ---- random interleavings, with a shadow of the stack -------------------------------------------------------------------------

SHADOW = []
SEEN = {}
RANDOM = random.Random(20)


def grow(depth):
    if not depth:
        SHADOW.append("grow@grow_leaf")
        stack = tuple(SHADOW)
        SEEN[stack] = SEEN.get(stack, 0) + 1
        BASE.leaf(5001)  # AT:grow_leaf
        SHADOW.pop()
        return
    way = RANDOM.choice(WAYS)
    SHADOW.append("grow@grow")
    way(depth - 1)  # AT:grow
    SHADOW.pop()


class Grows:
    def __init__(self, depth, dies=False):
        self.depth, self.dies = depth, dies

    @property
    def value(self):
        SHADOW.append("value@grows_value")
        grow(self.depth)  # AT:grows_value
        SHADOW.pop()

    def __str__(self):
        SHADOW.append("__str__@grows_str")
        grow(self.depth)  # AT:grows_str
        SHADOW.pop()
        return ""

    def __lt__(self, other):
        SHADOW.append("__lt__@grows_lt")
        grow(self.depth)  # AT:grows_lt
        SHADOW.pop()
        return True

    def __del__(self):
        if self.dies:
            SHADOW.append("__del__@grows_del")
            grow(self.depth)  # AT:grows_del
            SHADOW.pop()


def growing(depth):
    SHADOW.append("growing@growing")
    grow(depth)  # AT:growing
    SHADOW.pop()
    yield


def growing_from(depth):
    SHADOW.append("growing_from@growing_from")
    yield from growing(depth)  # AT:growing_from
    SHADOW.pop()


async def growing_coroutine(depth):
    SHADOW.append("growing_coroutine@growing_coroutine")
    grow(depth)  # AT:growing_coroutine
    SHADOW.pop()


async def awaiting(depth):
    SHADOW.append("awaiting@awaiting")
    await growing_coroutine(depth)  # AT:awaiting
    SHADOW.pop()


def by_python(depth):
    SHADOW.append("by_python@by_python")
    grow(depth)  # AT:by_python
    SHADOW.pop()


def by_call(depth):
    SHADOW.extend(("by_call@by_call", "nt_call@call"))
    HELD.call(functools.partial(grow, depth))  # AT:by_call
    del SHADOW[-2:]


def by_callback(depth):
    SHADOW.extend(("by_callback@by_callback", "nt_callback@callback"))
    BASE.callback(CALLBACK(functools.partial(grow, depth)))  # AT:by_callback
    del SHADOW[-2:]


def by_deep_callback(depth):
    SHADOW.extend(("by_deep_callback@by_deep_callback",) + ("nt_callback_deep@callback_deep",) * 3 + ("nt_callback_deep@callback_deepest",))
    HELD.callback_deep(CALLBACK(functools.partial(grow, depth)), 3)  # AT:by_deep_callback
    del SHADOW[-5:]


def by_next(depth):
    kept = len(SHADOW)
    SHADOW.extend(("by_next@by_next", "nt_next@next"))
    HELD.next(RANDOM.choice((growing, growing_from))(depth))  # AT:by_next
    # Still waiting, it has not said that it is gone.
    del SHADOW[kept:]


def by_for(depth):
    SHADOW.append("by_for@by_for")
    for _ in RANDOM.choice((growing, growing_from))(depth): pass  # AT:by_for
    SHADOW.pop()


def by_list(depth):
    SHADOW.append("by_list@by_list")
    list(RANDOM.choice((growing, growing_from))(depth))  # AT:by_list
    SHADOW.pop()


def by_map(depth):
    SHADOW.append("by_map@by_map")
    list(map(grow, [depth]))  # AT:by_map
    SHADOW.pop()


def by_sorted(depth):
    SHADOW.append("by_sorted@by_sorted")
    sorted([depth], key=grow)  # AT:by_sorted
    SHADOW.pop()


def by_comprehension(depth):
    SHADOW.append("by_comprehension@by_comprehension")
    if not INLINED:
        SHADOW.append("<listcomp>@by_comprehension")
    [grow(depth) for _ in "1"]  # AT:by_comprehension
    del SHADOW[-1 if INLINED else -2:]


def by_property(depth):
    SHADOW.append("by_property@by_property")
    Grows(depth).value  # AT:by_property
    SHADOW.pop()


def by_get(depth):
    grows = Grows(depth)
    SHADOW.extend(("by_get@by_get", "nt_get@get"))
    HELD.get(grows, b"value")  # AT:by_get
    del SHADOW[-2:]


def by_text(depth):
    grows = Grows(depth)
    SHADOW.extend(("by_text@by_text", "nt_text@text"))
    HELD.text(grows)  # AT:by_text
    del SHADOW[-2:]


def by_less(depth):
    grows = Grows(depth)
    SHADOW.extend(("by_less@by_less", "nt_less@less"))
    HELD.less(grows, grows)  # AT:by_less
    del SHADOW[-2:]


def by_drop(depth):
    grows = Grows(depth, dies=True)
    address = id(grows)
    HELD.hold(grows)
    del grows
    SHADOW.extend(("by_drop@by_drop", "nt_drop@drop"))
    HELD.drop(address)  # AT:by_drop
    del SHADOW[-2:]


def by_del(depth):
    grows = Grows(depth, dies=True)
    SHADOW.append("by_del@by_del")
    del grows  # AT:by_del
    SHADOW.pop()


def by_coroutine(depth):
    SHADOW.append("by_coroutine@by_coroutine")
    waits = RANDOM.choice((growing_coroutine, awaiting))(depth)
    try:
        waits.send(None)  # AT:by_coroutine
    except StopIteration:
        pass
    SHADOW.pop()


def by_exec(depth):
    SHADOW.append("by_exec@by_exec")
    exec("grow(depth)", {"grow": grow, "depth": depth})  # AT:by_exec
    SHADOW.pop()


def by_raise(depth):
    """Leaves frames of C by an exception that its callers pass on."""
    SHADOW.extend(("by_raise@by_raise", "raises@raises"))
    try:
        next(map(raises, [depth]))  # AT:by_raise
    except ZeroDivisionError:
        pass
    del SHADOW[-2:]


def raises(depth):
    grow(depth)  # AT:raises
    1 // 0


WAYS = [way for name, way in list(globals().items()) if name.startswith("by_")]


def randomly():
    for number in range(500):
        SHADOW[:] = ["randomly@randomly"]
        grow(number % 9)  # AT:randomly
        assert SHADOW == ["randomly@randomly"], SHADOW
    for stack, count in SEEN.items():
        expect("nt_leaf@leaf < " + " < ".join(reversed(stack)), 5001, count)


# ---- threads ------------------------------------------------------------------------------------------------------------------


def in_python_thread():
    for _ in range(20):
        BASE.outer(6001)  # AT:in_python_thread


def called_in_thread():
    BASE.outer(6003)  # AT:called_in_thread


def threads():
    running = [threading.Thread(target=in_python_thread) for _ in range(8)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    expect(CHAIN + "in_python_thread@in_python_thread", 6001, 160, main=False, end="")
    call = CALLBACK(called_in_thread)
    for _ in range(10):
        BASE.in_thread(6005, NO_CALLBACK, 0)
        BASE.in_thread(0, call, 0)
    expect(CHAIN + "nt_thread@thread", 6005, 10, main=False, end="")
    expect(CHAIN + "called_in_thread@called_in_thread < nt_thread@thread_callback", 6003, 10, main=False, end="")


def small_threads():
    """Threads with little stack: whoever unwinds must make do with it, too."""
    sizes = 16384, 20480, 32768, 65536
    for size in sizes:
        for _ in range(20):
            BASE.in_thread(6007, NO_CALLBACK, size)
    expect(CHAIN + "nt_thread@thread", 6007, 20 * len(sizes), main=False, end="")


# ---- signals ------------------------------------------------------------------------------------------------------------------


def python_handler(number, frame):
    BASE.leaf(7001)  # AT:python_handler


def signals():
    signal.signal(signal.SIGUSR2, python_handler)
    os.kill(os.getpid(), signal.SIGUSR2); sum(range(9)); sum(range(9))  # AT:signals_python
    expect("nt_leaf@leaf < python_handler@python_handler < signals@signals_python", 7001)
    HELD.check_signals(signal.SIGUSR2)  # AT:signals_check
    expect("nt_leaf@leaf < python_handler@python_handler < nt_check_signals@check_signals < signals@signals_check", 7001)
    sizes = 8192, 16384, 65536
    for size in (0, *sizes):
        BASE.raise_(7003, size)  # AT:signals_c
    for size in sizes:
        expect("nt_raise@raise_stack < signals@signals_c", size, allocator="MMAP", live=0, temporary=1)
    expect("nt_rare@rare < nt_handler@handler < nt_raise@raise < signals@signals_c", 7003, 4, allocator="MEMALIGN", loose=True)
    BASE.outer(7005)  # AT:signals_after
    expect(CHAIN + "signals@signals_after", 7005)


def spin(build):
    return build.spin(7007, 500, 50_000)  # AT:spin


def storms():
    """Handlers that come at any instruction: it is told which functions there are, not where they are."""
    for suffix in ("base", "omit", "framed", "plain", "realign"):
        count = renamed(spin, suffix)(Library("native-" + suffix))  # AT:storms
        stack = "nt_rare@rare < nt_anywhere@anywhere < nt_spin_innermost@leaf < nt_spin_inner@leaf < nt_spin@leaf < spin_%s@spin < storms@storms"
        expect(stack % suffix, 7007, count, allocator="MEMALIGN", lines=False, loose=True)


# ---- stacks that are not the thread's, and code that nothing is known of ------------------------------------------------------


def contexts():
    BASE.in_context(8001)  # AT:contexts
    expect("nt_in_context@context_stack < contexts@contexts", 256 << 10, allocator="MMAP", live=0)
    told = "nt_rare@rare < nt_context@%s < contexts@contexts"
    expect(told % "context", 8001, allocator="MEMALIGN", loose=True)
    expect(told % "context_again", 8001, allocator="MEMALIGN", loose=True)
    expect(CHAIN + "nt_in_context@between_contexts < contexts@contexts", 8001)
    expect(CHAIN + "nt_in_context@after_context < contexts@contexts", 8001)


def machine_code(decoy):
    number = ctypes.c_uint64(decoy).value.to_bytes(8, "little")
    call = b"\xff\xd6"
    return dict(
        framed=b"\x55\x48\x89\xe5" + call + b"\x5d\xc3",
        frameless=b"\x48\x83\xec\x08" + call + b"\x48\x83\xc4\x08\xc3",
        far=b"\x48\x81\xec\x08\x10\x00\x00" + call + b"\x48\x81\xc4\x08\x10\x00\x00\xc3",
        cleared=b"\x55\x31\xed" + call + b"\x5d\xc3",
        garbage=b"\x55\x48\xbd\xef\xbe\xad\xde\xef\xbe\xad\xde" + call + b"\x5d\xc3",
        decoy=b"\x55\x48\xbd" + number + call + b"\x5d\xc3",
        # The frame pointer leads to itself, to a little further on, to far beyond the stack.
        itself=b"\x55\x48\x89\xe5\x48\x83\xec\x10\x48\x89\x65\xf0\x48\x8d\x6d\xf0" + call + b"\x48\x83\xc4\x10\x5d\xc3",
        beyond=b"\x55\x48\x8d\xac\x24\x00\x00\x00\x40" + call + b"\x5d\xc3",
        odd=b"\x55\x48\x8d\x6c\x24\x03" + call + b"\x5d\xc3",
    )


def unknown_code(address, library):
    library.through(address, 8003)  # AT:unknown_code
    library.through_framed(address, 8005)  # AT:unknown_code_framed
    library.outer(8007)  # AT:unknown_code_after


def unknown():
    code = machine_code(BASE.decoy())
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for build in ("base", "framed"):
        library = Library("native-" + build)
        for index, (name, body) in enumerate(code.items()):
            memory[256 * index : 256 * index + len(body)] = body
            suffix = "%s_%s" % (build, name)
            for _ in range(3):
                renamed(unknown_code, suffix)(start + 256 * index, library)  # AT:unknown
            told = "nt_rare@rare < nt_through%s@through%s < unknown_code_%s@unknown_code%s < unknown@unknown"
            for size, framed in ((8003, ""), (8005, "_framed")):
                expect(told % (framed, framed, suffix, framed), size, 3, allocator="MEMALIGN", loose=True)
            expect(CHAIN + "unknown_code_%s@unknown_code_after < unknown@unknown" % suffix, 8007, 3)


def uninformed(library):
    library.through(0, 8009)  # AT:uninformed
    BASE.outer(8011)  # AT:uninformed_after


def without_tables():
    """Libraries without unwind information, or without the table that it is found by."""
    for build in ("untabled", "untabled_framed", "unindexed"):
        library = Library("native-" + build)
        for _ in range(3):
            renamed(uninformed, build)(library)  # AT:without_tables
        end = " < uninformed_%s@uninformed < without_tables@without_tables" % build
        expect("nt_rare@rare < nt_through@through_none" + end, 8009, 3, allocator="MEMALIGN", loose=True)
        expect(CHAIN + "uninformed_%s@uninformed_after < without_tables@without_tables" % build, 8011, 3)


# ---- C++ ----------------------------------------------------------------------------------------------------------------------


def exceptions():
    library = Library("native-throws")
    for _ in range(5):
        library.catcher(9001, 4)  # AT:exceptions
    throws = "nt_thrower@throws" + " < nt_thrower@thrower" * 4
    expect("nt_cpp_leaf@cpp_leaf < %s < nt_catcher@tries < exceptions@exceptions" % throws, 9001, 5)
    expect("nt_cpp_leaf@cpp_leaf < nt_catcher@catches < exceptions@exceptions", 9001, 5)
    expect("nt_cpp_leaf@cpp_leaf < nt_catcher@caught < exceptions@exceptions", 9001, 5)
    # The destructors run in frames whose line is the compiler's choice: they are told by `lines=False`.
    # The destructors run in frames whose line is the compiler's choice.
    for left in range(1, 6):
        stack = "nt_cpp_leaf@cpp_leaf < nt_cleanup@cleanup" + " < nt_thrower@thrower" * left + " < nt_catcher@tries < exceptions@exceptions"
        expect(stack, 9001, 5, lines=False)


# ---- requests to Python's allocators ------------------------------------------------------------------------------------------


def requests():
    HELD.requests(11_001)  # AT:requests
    for domain in ("raw", "mem", "object"):
        expect("nt_requests@request_%s < requests@requests" % domain, 11_001, allocator="PYMALLOC_MALLOC", domain=domain)


# ---- processes ----------------------------------------------------------------------------------------------------------------


def forks():
    BASE.outer(12_001)  # AT:forks_before
    child = os.fork()
    if not child:
        native_expected.forget()
        BASE.outer(12_003)  # AT:forks_child
        expect(CHAIN + "forks@forks_child", 12_003)
        BASE.in_thread(12_005, NO_CALLBACK, 0)
        expect(CHAIN + "nt_thread@thread", 12_005, main=False, end="")
        native_expected.finish()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert BASE.fork(12_007) == 0  # AT:forks_c
    last = ctypes.c_int.in_dll(BASE.loaded, "nt_last_child").value
    kept = native_expected._expected[:]
    native_expected.forget()
    expect(CHAIN + "nt_fork@forked < forks@forks_c", 12_007)
    native_expected.finish(last)
    native_expected._expected[:] = kept
    BASE.outer(12_009)  # AT:forks_after
    expect(CHAIN + "forks@forks_before", 12_001)
    expect(CHAIN + "forks@forks_after", 12_009)


def children():
    BASE.outer(12_101)  # AT:children
    subprocess.check_call([sys.executable, os.path.abspath(__file__), "callbacks"])
    expect(CHAIN + "children@children", 12_101)


# ---- greenlets ----------------------------------------------------------------------------------------------------------------


def greenlets():
    import greenlet

    def first():
        BASE.outer(14_001)  # AT:greenlet_first
        HELD.call(two.switch)
        BASE.outer(14_003)  # AT:greenlet_first_again
        two.switch()

    def second():
        BASE.outer(14_005)  # AT:greenlet_second
        one.switch()
        HELD.call(called_back)  # AT:greenlet_second_again

    one, two = greenlet.greenlet(first), greenlet.greenlet(second)
    one.switch()
    BASE.outer(14_007)  # AT:greenlets
    expect(CHAIN + "first@greenlet_first", 14_001, end="")
    expect(CHAIN + "first@greenlet_first_again", 14_003, end="")
    expect(CHAIN + "second@greenlet_second", 14_005, end="")
    expect(CHAIN + "called_back@called_back < nt_call@call < second@greenlet_second_again", 3001, end="")
    expect(CHAIN + "greenlets@greenlets", 14_007)


# ---- libraries that come and go -----------------------------------------------------------------------------------------------


def comes(library):
    library.nt_enter(13_001)  # AT:comes


def goes():
    import _ctypes

    names = ("alpha", "beta", "gamma")
    for round_number, name in itertools.product(range(20), names):
        library = ctypes.CDLL(os.path.join(native_expected.HERE, "native-%s.so" % name))
        library.nt_enter.argtypes = [ctypes.c_size_t]
        renamed(comes, name)(library)  # AT:goes
        _ctypes.dlclose(library._handle)
    for name in names:
        stack = "nt_%s_inner@comes_inner < nt_work@comes_work < nt_%s_outer@comes_outer < nt_enter@comes_enter < comes_%s@comes < goes@goes"
        expect(stack % (name, name, name), 13_001, 20)


def replaced():
    import _ctypes

    path = os.path.join(native_expected.HERE, "native-replaced.so")
    for name in ("alpha", "beta", "alpha", "beta"):
        with open(os.path.join(native_expected.HERE, "native-%s.so" % name), "rb") as source, open(path + ".new", "wb") as copy:
            copy.write(source.read())
        os.replace(path + ".new", path)
        library = ctypes.CDLL(path)
        library.nt_enter.argtypes = [ctypes.c_size_t]
        renamed(comes, "replaced")(library)  # AT:replaced
        _ctypes.dlclose(library._handle)
    # The others have no names, as their file is not there any more.
    stack = "nt_beta_inner@comes_inner < nt_work@comes_work < nt_beta_outer@comes_outer < nt_enter@comes_enter < comes_replaced@comes < replaced@replaced"
    expect(stack, 13_001, 2)


for section in sys.argv[1:]:
    globals()[section]()  # AT:run
BASE.tide(native_expected.TIDE)  # AT:the_tide
expect("nt_tide@tide", native_expected.TIDE, live=0, temporary=1, end=" < <module>@the_tide")
native_expected.finish()
