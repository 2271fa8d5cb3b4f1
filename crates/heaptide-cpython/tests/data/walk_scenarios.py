"""Compares the walk of `walk_probe` with the frames that Python itself shows, in every situation that has ever surprised a profiler.

Run as `walk_scenarios.py <libwalk_probe.so> [<depth of the recursion>]`; the last line says that all went well. Within a subinterpreter only a part is run."""

import asyncio
import ctypes
import gc
import os
import signal
import sys
import threading
import weakref

LIBRARY = sys.argv[1]
DEPTH = int(sys.argv[2]) if len(sys.argv) > 2 else 5_000
HOLDING = ctypes.PyDLL(LIBRARY)
RELEASING = ctypes.CDLL(LIBRARY)
BUFFER_SIZE = 8 << 20
local = threading.local()
checks = 0
failures = []  # also those that destructors, callbacks and threads would swallow


def text(field):
    return "".join(chr(int(point, 16)) for point in field[1:].split(".") if point)


def number(field):
    return None if field == "-" else int(field)


def read(function):
    if not hasattr(local, "buffer"):
        local.buffer = ctypes.create_string_buffer(BUFFER_SIZE)
    length = function(local.buffer, ctypes.c_size_t(BUFFER_SIZE))
    assert length >= 0, "no room"
    lines = ctypes.string_at(local.buffer, length).decode("ascii").splitlines()
    assert not lines[0].startswith("error"), lines[0]
    return lines


def parse(line):
    name, file, qualified_name, *numbers = line.split(" ")
    return (text(name), text(file), None if qualified_name == "-" else text(qualified_name), *map(number, numbers))


POSITIONS = {}


def columns_of(code, instruction):
    positions = POSITIONS.get(id(code))
    if positions is None:
        positions = POSITIONS[id(code)] = (code, list(code.co_positions()))
    return positions[1][instruction // 2]


def expected(frame):
    code = frame.f_code
    qualified_name, rest = None, (None, None, None)
    if sys.version_info >= (3, 11):
        qualified_name = code.co_qualname
        rest = columns_of(code, frame.f_lasti)[1:]
    instruction = frame.f_lasti
    return (code.co_name, code.co_filename, qualified_name, instruction, frame.f_lineno, *rest, code.co_firstlineno, code.co_flags)


def check(library=HOLDING):
    """Walks, and compares with the frames of Python. Returns the addresses of the first locals, innermost first."""
    global checks
    function = library.heaptide_walk_probe
    if getattr(local, "inside", False):
        return None  # a callback in the middle of a check
    local.inside = True
    try:
        head, *lines = read(function)
        frame = sys._getframe()
        holds_gil, no_state, line, instruction = map(number, head.split(" "))
        assert not no_state, "no thread state"
        assert bool(holds_gil) == (library is HOLDING), f"holds the GIL: {holds_gil}"
        # `read` stands innermost, and has returned by now: the interpreter's functions have said where it was.
        innermost = parse(lines[0])
        assert innermost[0] == "read" and innermost[1] == __file__, innermost
        if line is not None:
            assert innermost[4] == line, (innermost, line)
        if instruction is not None:
            assert innermost[3] == instruction, (innermost, instruction)
        # This frame has gone on since; its line and place are another check's business.
        here = parse(lines[1])
        assert here[:3] == expected(frame)[:3], here
        seen, locals_ = [], [innermost[-1], here[-1]]
        for line in lines[2:]:
            *fields, first_local = parse(line)
            seen.append(tuple(fields))
            locals_.append(first_local)
        shown = []
        frame = frame.f_back
        while frame is not None:
            shown.append(expected(frame))
            frame = frame.f_back
        if seen != shown:
            for got, want in zip(seen, shown):
                assert got == want, f"\n  walk   {got}\n  python {want}"
            raise AssertionError(f"{len(seen)} frames in the walk, {len(shown)} in Python:\n  {seen[:6]}\n  {shown[:6]}")
        checks += 1
        return locals_
    except BaseException as error:
        failures.append(error)
        raise
    finally:
        local.inside = False


def both():
    check(HOLDING)
    check(RELEASING)


# -- scenarios ---------------------------------------------------------------------------------------------------------------------------


def plain_calls():
    def inner(a, *args, b=1, **kwargs):
        x = [a,
             both(),
             b]
        return x

    inner(1, 2, 3, b=4, c=5)
    inner(*range(10), **{"z": 1})


def recursion():
    def recurse(depth):
        if depth == 0:
            return both()
        return recurse(depth - 1)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        recurse(DEPTH)
    finally:
        sys.setrecursionlimit(limit)


def generators():
    def numbers(count):
        both()
        for value in range(count):
            both()
            yield value
        both()

    def delegating():
        yield from numbers(3)
        yield from (value for value in numbers(2) if both() is None)

    assert list(delegating()) == [0, 1, 2, 0, 1]
    sum(numbers(2))

    def with_cleanup():
        try:
            yield 1
        except ValueError:
            both()
            yield 2
        finally:
            both()

    generator = with_cleanup()
    next(generator)
    generator.throw(ValueError())
    generator.close()
    generator = with_cleanup()
    next(generator)
    del generator  # closed by its destructor

    def receiving():
        while True:
            value = yield both()
            if value is None:
                return

    generator = receiving()
    generator.send(None)
    generator.send(1)
    for _ in generator:
        break


def coroutines():
    async def leaf(depth):
        both()
        await asyncio.sleep(0)
        both()
        if depth:
            await leaf(depth - 1)

    async def numbers():
        for value in range(3):
            both()
            yield value
            await asyncio.sleep(0)

    class Manager:
        async def __aenter__(self):
            both()

        async def __aexit__(self, *exception):
            both()

    async def main():
        await asyncio.gather(*(leaf(depth) for depth in range(4)))
        async for _ in numbers():
            both()
        assert [value async for value in numbers()] == [0, 1, 2]
        async with Manager():
            await asyncio.get_running_loop().run_in_executor(None, both)
        task = asyncio.ensure_future(leaf(2))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())

    class Awaitable:
        def __await__(self):
            both()
            yield 1
            both()

    async def stepped():
        await Awaitable()

    coroutine = stepped()
    coroutine.send(None)
    coroutine.close()


def class_bodies():
    class Meta(type):
        def __new__(mcls, *args):
            both()
            return super().__new__(mcls, *args)

        def __call__(cls, *args):
            both()
            return super().__call__(*args)

    class Outer(metaclass=Meta):
        both()

        class Inner:
            both()
            value = [check(library) for library in (HOLDING, RELEASING)]

        def __init__(self):
            both()

        def __init_subclass__(cls):
            both()

        def __set_name__(self, owner, name):
            both()

        @property
        def prop(self):
            return both()

        def __getattr__(self, name):
            return both()

    class Derived(Outer):
        attribute = Outer()

    Outer().prop
    Outer().missing


def constructors():
    """Hot enough for the interpreter to put a frame of its own between caller and `__init__`."""

    class Plain:
        def __init__(self, turn):
            if turn % 50 == 0:
                both()

    def make(turn):
        return Plain(turn)

    for turn in range(2_000):
        make(turn)


def lambdas_and_comprehensions():
    (lambda: both())()
    (lambda f=lambda: both(): f())()
    [both() for _ in range(2)]
    {both() for _ in range(2)}
    {both(): both() for _ in range(2)}
    list(both() for _ in range(2))
    [[both() for _ in range(2)] for _ in range(2)]


def executed_code():
    exec("both()", {"both": both})
    eval("[both(), 1][0]", {"both": both})
    exec(compile("\n\n\ndef f():\n    return (1,\n      both())\nf()", "made up.py", "exec"), {"both": both})
    exec(plain_calls.__code__)


def callbacks():
    sorted(range(3), key=lambda value: both() or value)
    list(map(lambda value: both(), range(2)))
    list(filter(lambda value: both(), range(2)))
    import functools
    sorted(range(3), key=functools.cmp_to_key(lambda a, b: both() or a - b))
    functools.partial(both)()
    functools.reduce(lambda a, b: both(), range(3))
    functools.lru_cache(None)(both)()
    import re
    re.sub("a", lambda match: both() or "b", "aa")

    class Item:
        def __eq__(self, other):
            both()
            return False

        __hash__ = object.__hash__

        def __repr__(self):
            both()
            return "item"

        def __index__(self):
            both()
            return 1

    Item() in [Item()]
    repr([Item()])
    f"{Item()!r}"
    range(Item())


def ctypes_callbacks():
    libc = ctypes.CDLL(None)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))

    @compare
    def order(a, b):
        both()
        return a[0] - b[0]

    values = (ctypes.c_int * 4)(3, 1, 2, 0)
    libc.qsort(values, 4, ctypes.sizeof(ctypes.c_int), order)
    assert list(values) == [0, 1, 2, 3]


def decorators():
    import functools

    def decorator(function):
        both()

        @functools.wraps(function)
        def wrapper(*args):
            both()
            return function(*args)

        return wrapper

    @decorator
    @decorator
    def decorated(value):
        both()

    decorated(1)


def names():
    def with_names(name, file):
        code = compile("both()", file, "exec").replace(co_name=name)
        exec(code, {"both": both})

    class Text(str):
        pass

    for name in ("имя", "é", "名前", "😀", "\udcff", "a\udc80😀", "x" * 10_000, "", Text("sub"), Text("имя"), "a\0b"):
        with_names(name, "file.py")
    for file in ("файл.py", "/é/x.py", "😀.py", os.fsdecode(b"/tmp/\xff\xfe.py"), Text("sub.py"), Text("файл.py")):
        with_names("name", file)
    exec("def имя(аргумент): return аргумент()\nимя(both)", {"both": both})
    exec("class Класс:\n  def é(self): both()\nКласс().é()", {"both": both})


def destructors():
    class Doomed:
        def __del__(self):
            both()

    def leaves_locals():
        first, second = Doomed(), [Doomed()]
        return 1

    def raises():
        doomed = Doomed()
        raise KeyError

    Doomed()
    leaves_locals()
    try:
        raises()
    except KeyError:
        pass

    def generator():
        doomed = Doomed()
        yield 1

    running = generator()
    next(running)
    del running
    cycle = Doomed()
    cycle.itself = cycle
    del cycle
    gc.collect()
    target = Doomed()
    reference = weakref.ref(target, lambda reference: both())
    del target


def incomplete_frames():
    """A collection in the middle of a call's first instructions, when cells and generator objects are being made."""

    def on_collection(phase, info):
        check()

    def closure(a, b, c):
        def inner():
            return a, b, c, d

        d = [1]
        return inner

    def generator(a):
        yield lambda: a

    async def coroutine(a):
        return lambda: a

    def keywords(*args, **kwargs):
        return lambda: (args, kwargs)

    threshold = gc.get_threshold()
    gc.callbacks.append(on_collection)
    gc.set_threshold(1)
    try:
        kept = []
        for turn in range(60):
            kept.append(closure(1, [2], {}))
            kept.append(list(generator([turn])))
            kept.append(coroutine([turn]))
            kept.append(keywords([turn], key=[turn]))
            kept.append([[value] for value in range(2)])
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(on_collection)
    for thing in kept:
        if hasattr(thing, "close"):
            thing.close()


def first_locals():
    def takes(value):
        firsts = check()
        assert firsts[2] == id(value), (value, firsts[2], id(value))

    def takes_nothing():
        assert check()[2] == 0

    def deleted(value):
        del value
        assert check()[2] == 0

    def in_a_cell(value):
        first = check()[2]
        assert (first == 0) == (sys.version_info < (3, 11)), "a cell, or nothing"
        assert first != id(value)
        return lambda: value

    for function in (takes, deleted, in_a_cell):
        for value in (None, True, 1, 10**30, "text", [], object()):
            function(value)
    takes_nothing()


def immortal_code():
    """References to immortal objects are tagged from 3.14 on."""
    if sys.version_info < (3, 12):
        return
    namespace = {"both": both}
    exec("def immortal(): return both()", namespace)
    ctypes.c_uint32.from_address(id(namespace["immortal"].__code__)).value = 0xC000_0000
    namespace["immortal"]()


def tracing():
    def tracer(frame, event, argument):
        check()
        return tracer

    def traced():
        for value in range(2):
            [value for _ in range(2)]
        return sum(value for value in range(2))

    def never_started(value):
        yield lambda: value

    def throws():
        try:
            never_started(1).throw(KeyError())
        except KeyError:
            pass

    old = sys.gettrace()
    sys.settrace(tracer)
    traced()
    throws()
    sys.settrace(old)
    sys.setprofile(lambda frame, event, argument: check())
    traced()
    throws()
    len([])
    sys.setprofile(None)


def signals():
    old = signal.signal(signal.SIGUSR1, lambda number, frame: both())
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
        sum(value for value in range(100))
    signal.signal(signal.SIGUSR1, old)


def imports():
    import importlib
    import tempfile
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "heaptide_walked.py"), "w") as module:
            module.write("import builtins\nbuiltins.heaptide_both()\n\ndef __getattr__(name):\n    return builtins.heaptide_both\n")
        import builtins
        builtins.heaptide_both = both
        sys.path.insert(0, directory)
        try:
            import heaptide_walked
            heaptide_walked.anything()
            importlib.reload(heaptide_walked)
        finally:
            sys.path.remove(directory)
            del builtins.heaptide_both


def threads():
    barrier = threading.Barrier(4)

    def busy(library):
        barrier.wait()
        for turn in range(60):
            firsts = check(library)
            assert firsts[-1] == id(threading.current_thread()), "the Thread is the first local of its outermost frame"
            sum(value for value in range(50))
            if turn % 20 == 0:
                both()

    def run(library):
        try:
            busy(library)
        except BaseException as error:
            failures.append(error)
            raise

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    workers = [threading.Thread(target=run, args=(library,)) for library in (HOLDING, RELEASING) * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.setswitchinterval(old)

    import _thread
    done = threading.Event()
    _thread.start_new_thread(lambda: (both(), done.set()), ())
    assert done.wait(60)


def foreign_threads():
    for library in (HOLDING, RELEASING):
        lines = read(library.heaptide_walk_probe_on_foreign_thread)
        assert lines == ["0 1 - -"], lines


def after_fork():
    child = os.fork()
    if child == 0:
        status = 1
        try:
            both()
            threads()
            status = bool(failures)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


# -- subinterpreters ---------------------------------------------------------------------------------------------------------------------


def run(*scenarios):
    for scenario in scenarios:
        before = checks
        scenario()
        if failures:
            raise failures[0]
        print(f"  {'in a subinterpreter: ' * (__name__ == 'within')}{scenario.__name__}: {checks - before} walks", flush=True)


def subinterpreters():
    script = "import sys; sys.argv = %r; name = __name__; exec(compile(open(%r).read(), %r, 'exec'), {'__name__': 'within', '__file__': %r})"
    script %= (sys.argv, __file__, __file__, __file__)
    if sys.version_info >= (3, 13):
        import _interpreters
        identifier = _interpreters.create("legacy")
        failure = _interpreters.exec(identifier, script)
        assert failure is None, failure
        _interpreters.destroy(identifier)
    else:
        import _xxsubinterpreters
        identifier = _xxsubinterpreters.create(isolated=False)
        _xxsubinterpreters.run_string(identifier, script)
        _xxsubinterpreters.destroy(identifier)
    both()


if __name__ == "within":
    if sys.version_info < (3, 12):
        RELEASING = HOLDING  # documented: without the GIL it is the stack of the thread's first interpreter
    run(plain_calls, generators, class_bodies, lambdas_and_comprehensions, destructors, threads, foreign_threads)

if __name__ == "__main__":
    run(plain_calls, recursion, generators, coroutines, class_bodies, constructors, lambdas_and_comprehensions, executed_code, callbacks,
        ctypes_callbacks, decorators, names, destructors, incomplete_frames, first_locals, immortal_code, tracing, signals, imports, threads, foreign_threads, after_fork,
        subinterpreters)
    print("all scenarios passed")
