"""All that can happen to a frame between two allocations. Run with PYTHONMALLOC=malloc, so that every object is one, under
HEAPTIDE_EARLY_STOP=check, which compares every walk with a whole one. Prints the same with and without the profiler."""
import asyncio
import builtins
import gc
import os
import signal
import sys
import threading
import traceback

try:
    import greenlet
except ImportError:
    greenlet = None

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
seen = []


def make(n=3):
    return [object() for _ in range(n)], bytes(n * 100), {n: str(n)}


def recurse(depth, fan=1):
    make()
    if depth:
        for _ in range(fan):
            recurse(depth - 1, fan)
            make(1)
    return make(2)


def generator(depth):
    make()
    if depth:
        yield from generator(depth - 1)
    for i in range(3):
        make(i)
        yield make(i)


def resume(it):
    return next(it, None), make()


def resume_deeper(it, depth):
    make()
    return resume_deeper(it, depth - 1) if depth else resume(it)


def generators():
    its = [generator(d) for d in range(6)]
    for turn in range(12):
        for d, it in enumerate(its):
            (resume if turn & 1 else lambda it: resume_deeper(it, d))(it)
            make()
    thrown = generator(3)
    next(thrown)
    try:
        thrown.throw(KeyError(make()))
    except KeyError:
        make()
    never_ran = generator(2)
    try:
        never_ran.throw(ValueError)
    except ValueError:
        make()
    its = None
    gc.collect()


async def step(depth):
    make()
    if depth:
        await step(depth - 1)
    await asyncio.sleep(0)
    return make()


async def streams():
    async def many(n):
        for i in range(n):
            yield make(i)
            await asyncio.sleep(0)

    return [len(item) async for item in many(4)]


async def together():
    await asyncio.gather(*(step(d) for d in range(8)), streams())


def raises(depth):
    local = make()
    if depth:
        try:
            raises(depth - 1)
        finally:
            make()
    raise RuntimeError(local)


def exceptions():
    try:
        raises(12)
    except RuntimeError as error:
        kept = error
        make()
    frames = [frame for frame, _ in traceback.walk_tb(kept.__traceback__)]
    seen.append([frame.f_code.co_name for frame in frames].count("raises"))
    recurse(5)
    traceback.format_exception(type(kept), kept, kept.__traceback__)
    traceback.clear_frames(kept.__traceback__)
    make()
    del kept, frames
    recurse(3)


def kept_alive(depth):
    frame = sys._getframe()
    make()
    inner = kept_alive(depth - 1) if depth else []
    return [frame, *inner]


def class_bodies():
    class Outer:
        first = make()

        class Inner:
            second = recurse(3)
            third = [make() for _ in range(2)]

        fourth = make(4)

    namespace = {"make": make, "recurse": recurse}
    exec("x = make(); recurse(4); y = [make() for _ in range(3)]\ndef f():\n    return recurse(2)\nf(); f()", namespace)
    exec(compile("recurse(2); make()", "<run>", "exec"), namespace, {})
    eval("recurse(3)", namespace)
    exec(recurse_once.__code__, globals())
    exec(recurse_once.__code__, globals(), {})
    return Outer


def recurse_once():
    make()
    recurse(2)
    make()


def locals_of_all_kinds(value):
    other = make()
    names = sorted(locals())
    frame = sys._getframe()
    frame.f_locals["value"] = make()
    recurse(2)
    names += sorted(frame.f_locals)
    names.append(repr(frame.f_trace_lines))
    caller = frame.f_back
    caller.f_locals.get("missing")
    recurse(2)
    del other
    seen.append(names)


def traced():
    events = []

    def jump(frame, event, argument):
        make()
        recurse(2)
        if event == "line" and frame.f_code is jumps.__code__ and frame.f_lineno == jumps.__code__.co_firstlineno + 3:
            frame.f_lineno = jumps.__code__.co_firstlineno + 5
            recurse(2)
        events.append(event)
        return jump

    def jumps():
        a = make()
        recurse(1)
        a = make()
        recurse(1)
        return recurse(2), a

    sys.settrace(jump)
    jumps()
    sys.settrace(None)
    recurse(3)
    sys.setprofile(lambda *_: make())
    recurse(3)
    list(generator(2))
    sys.setprofile(None)
    recurse(2)
    if hasattr(sys, "monitoring"):
        tool = sys.monitoring.DEBUGGER_ID
        sys.monitoring.use_tool_id(tool, "test")
        sys.monitoring.register_callback(tool, sys.monitoring.events.PY_START, lambda *_: recurse(1) and None)
        sys.monitoring.set_events(tool, sys.monitoring.events.PY_START)
        list(generator(1))
        sys.monitoring.set_events(tool, 0)
        sys.monitoring.free_tool_id(tool)
    seen.append(len(events) > 5)


class Dies:
    def __del__(self):
        recurse(3)


def destructors(depth):
    local = Dies()
    make()
    if depth:
        destructors(depth - 1)
    local = None
    make()


def imports():
    real = builtins.__import__

    def watching(name, globals=None, locals=None, *rest):
        seen.append(locals is None)
        recurse(1)
        return real(name, globals, locals, *rest)

    def importer():
        make()
        import os as again

        recurse(1)
        return again

    builtins.__import__ = watching
    try:
        importer()
    finally:
        builtins.__import__ = real


def signals():
    signal.signal(signal.SIGUSR1, lambda *_: recurse(4))
    for _ in range(5):
        make()
        os.kill(os.getpid(), signal.SIGUSR1)
        recurse(2)


def forks():
    sys.stdout.flush()
    child = os.fork()
    if not child:
        recurse(3)
        os._exit(0)
    os.waitpid(child, 0)
    recurse(3)


def greenlets():
    if greenlet is None:
        return

    def down(depth, base):
        # 90 frames more for each: those of the later ones have chunks of their own.
        make()
        if depth:
            return down(depth - 1, base)
        for _ in range(4):
            base.switch()
            recurse(2)

    here = greenlet.getcurrent()
    many = [greenlet.greenlet(down) for _ in range(6)]
    for depth, one in enumerate(many):
        one.switch(depth * 90, here)
    for turn in range(5):
        for one in many:
            if not one.dead:
                one.switch()
            recurse(turn)


def recompiled(number):
    namespace = {"make": make}
    exec(f"def f(n):\n    make(n)\n    return f(n - 1) if n else make({number})", namespace)
    namespace["f"](3)


def at_depth(depth, work):
    make()
    return at_depth(depth - 1, work) if depth else work()


def wander(depth, targets):
    """Goes down and up to one depth after the other, over the bounds of the stack's chunks (about 110 frames each)."""
    make(1)
    while targets and targets[-1] >= depth:
        if targets[-1] == depth:
            targets.pop()
            make(1)
        else:
            wander(depth + 1, targets)


def depths(count, deepest):
    return [number * number * 37 % deepest if number % 3 else 90 + number % 40 for number in range(count)]


def suspended_deep(depth):
    """Generators that are resumed now here, now there, far down."""
    its = [generator(d) for d in range(4)]
    for turn in range(3):
        for it in its:
            at_depth(depth + turn * 50, lambda: resume(it))
            at_depth(7, lambda: resume_deeper(it, depth))


def deep():
    # Each frame around the bound between two chunks is once the first of the second.
    for depth in range(80, 140):
        at_depth(depth, lambda: recurse(3))
        at_depth(depth, traced)
    for depth in (130, 400):
        for work in (generators, exceptions, class_bodies, lambda: destructors(60), lambda: asyncio.run(together()), imports):
            at_depth(depth, work)
        suspended_deep(depth)
        frames = at_depth(depth, lambda: kept_alive(30))
        at_depth(depth, make)
        del frames
        at_depth(depth, make)
    wander(0, depths(40, 400))
    try:
        at_depth(1_000_000, make)
    except RecursionError:
        recurse(200)


# Not an attribute of a class: the interpreter would give up what it has specialized whenever that is set.
failing = [False]


class Attributes:
    """Attributes, items and operators that are Python functions, and fail when told to."""

    @property
    def as_property(self):
        fails()
        return make

    def __getitem__(self, index):
        fails()
        return recurse(1)

    def __add__(self, other):
        fails()
        return recurse(1)


class Watching(Attributes):
    def __getattribute__(self, name):
        fails()
        return make


def fails(*_):
    make(1)
    if failing[0]:
        raise ValueError(make(1))
    return 5


def takes(*values, **named):
    make(1)
    return len(values)


def waits(form, before, one, iterators):
    """Waits with the same depth of the value stack in many ways, whose operands stay or go; after an exception nothing is pushed."""
    # A call that fails, with as many words below as the form that follows, or others.
    try:
        if before == 1:
            takes(1, 2, fails())
        elif before == 2:
            takes(1, 2, 3, fails())
        elif before == 3:
            takes(1, 2, 3, 4, fails())
    except ValueError:
        pass
    try:
        if form == 0:
            takes(1, 2, 3, one.as_property())
        elif form == 1:
            takes(1, 2, 3, one[1], one.as_property)
        elif form == 2:
            takes(1, 2, 3, 4, one + 1)
        elif form == 3:
            takes(1, 2, *[3, 4, fails()], key=fails())
        elif form == 4:
            # Nothing is allocated on the way to the generator, which waits with no operand gone.
            first, second, third, last = iterators
            for a in first:
                for b in second:
                    for c in third:
                        for d in last:
                            pass
        elif form == 5:
            takes(1, [d for d in iterators[-1]])
        elif form == 6:
            takes(1, 2, 3, (lambda: fails)()(1), one.as_property(2))
        else:
            takes(1, 2, 3, f"{one.as_property} {one[2]}")
    except ValueError:
        pass


def waits_here(form, before, one, iterators):
    waits(form, before, one, iterators)


def waits_there(form, before, one, iterators):
    waits(form, before, one, iterators)


def yields():
    yield fails()
    yield fails()


def all_waits():
    for one in (Attributes(), Watching()):
        for form in range(8):
            for before in (1, 2, 3):
                # Often enough that the interpreter has specialized all.
                for turn in range(40):
                    failing[0] = turn > 20 and turn % 3 > 0
                    its = [(iter((1,)), iter((2,)), iter((3,)), yields()) for _ in range(5)]
                    waits_here(form, before, one, its[0])
                    waits_there(form, 0, one, its[1])
                    waits_here(form, 0, one, its[2])
                    waits_there(form, turn % 4, one, its[3])
                    waits_here(form, 0, one, its[4])
    failing[0] = False


def everything():
    for number in range(ROUNDS):
        recurse(20)
        recurse(4, 2)
        generators()
        asyncio.run(together())
        exceptions()
        frames = kept_alive(10)
        recurse(3)
        del frames
        class_bodies()
        locals_of_all_kinds(number)
        traced()
        destructors(5)
        imports()
        recompiled(number)
        sorted(range(20), key=lambda n: (recurse(1), n)[1])
        recurse(150)


sys.setrecursionlimit(5000)
everything()
all_waits()
at_depth(40, all_waits)
deep()
if threading.current_thread() is threading.main_thread():
    signals()
    forks()
    greenlets()


def in_thread():
    recurse(60)
    wander(0, depths(20, 300))
    at_depth(200, greenlets)
    generators()
    exceptions()
    destructors(3)
    greenlets()


threads = [threading.Thread(target=in_thread) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(seen[:6], all(seen))
