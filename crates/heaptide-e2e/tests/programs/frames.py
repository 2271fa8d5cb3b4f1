"""Every kind of Python code that can stand in a stack."""
import functools
import sys

import known
from known import CALLBACK, comprehension, expect, h, hg

known.program(__file__)
M = "MALLOC"


# Plain calls, two callers of one line
def leaf(size):
    return h.malloc(size)  # ALLOC:leaf


def middle():
    leaf(70001)  # ALLOC:middle1
    leaf(70003); leaf(70005)  # ALLOC:middle2


middle()  # ALLOC:calls
for _ in range(2):
    middle()  # ALLOC:calls_again
for caller, times in (("calls", 1), ("calls_again", 2)):
    expect("leaf@leaf < middle@middle1 < <module>@" + caller, M, size=70001, made=times, live=times, peak=times)
    # Two calls on one line are two stacks with equal lines: columns tell them apart where there are any
    expect("leaf@leaf < middle@middle2 < <module>@" + caller, M, made=(2 * times, 140008 * times),
           live=(2 * times, 140008 * times), peak=(2 * times, 140008 * times))

# Lambdas, defaults, keyword and star arguments, closures, partial
twice = lambda size, *rest, key=None: h.malloc(size)  # ALLOC:lambda
twice(71001, 1, 2, key=3)  # ALLOC:call_lambda
expect("<lambda>@lambda < <module>@call_lambda", M, size=71001, made=1, live=1, peak=1)


def outer(size):
    def inner():
        return h.malloc(size)  # ALLOC:closure

    return inner


functools.partial(outer(71003))()  # ALLOC:call_closure
expect("inner@closure < <module>@call_closure", M, size=71003, made=1, live=1, peak=1)


# Decorators: while decorating, and when called
def traced(function):
    h.malloc(72001)  # ALLOC:decorating

    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)  # ALLOC:wrapper

    return wrapper


@traced  # ALLOC:decorator
def decorated(size):  # ALLOC:decorated_def
    return h.malloc(size)  # ALLOC:decorated


decorated(72003)  # ALLOC:call_decorated
# The call of a decorator is on the line of `def` before 3.11
expect("traced@decorating < <module>@" + ("decorator" if sys.version_info >= (3, 11) else "decorated_def"), M, size=72001, made=1, live=1, peak=1)
expect("decorated@decorated < wrapper@wrapper < <module>@call_decorated", M, size=72003, made=1, live=1, peak=1)

# Comprehensions (3.12 inlines all but the generator expression)
[h.malloc(73001 + n) for n in range(3)]  # ALLOC:list
{h.malloc(73011 + n) for n in range(3)}  # ALLOC:set
{n: h.malloc(73021 + n) for n in range(3)}  # ALLOC:dict
list(h.malloc(73031 + n) for n in range(3))  # ALLOC:generator
for kind, base in (("list", 73001), ("set", 73011), ("dict", 73021)):
    sizes = (3, 3 * base + 3)
    expect(comprehension(kind + "comp", kind) + "<module>@" + kind, M, made=sizes, live=sizes, peak=sizes)
expect("<genexpr>@generator < <module>@generator", M, made=(3, 219096), live=(3, 219096), peak=(3, 219096))


def nested():
    return [[h.malloc(73101) for _ in range(2)] for _ in range(3)]  # ALLOC:nested


nested()  # ALLOC:call_nested
expect(comprehension("listcomp", "nested") * 2 + "nested@nested < <module>@call_nested", M, size=73101, made=6, live=6, peak=6)


# Generators: started, resumed from elsewhere, closed, delegated to, abandoned
def numbers():
    try:
        h.malloc(74001)  # ALLOC:gen_first
        got = yield 1
        h.malloc(got)  # ALLOC:gen_second
        yield 2
    finally:
        h.malloc(74005)  # ALLOC:gen_finally


def delegating():
    yield from numbers()  # ALLOC:delegate


def resume(generator):
    return generator.send(74003)  # ALLOC:resume


for make in (numbers, delegating):
    generator = make()
    next(generator)  # ALLOC:gen_start
    resume(generator)  # ALLOC:gen_resume
    generator.close()  # ALLOC:gen_close
one = dict(made=1, live=1, peak=1)
for through in ("", "delegating@delegate < "):
    expect("numbers@gen_first < " + through + "<module>@gen_start", M, size=74001, **one)
    expect("numbers@gen_second < " + through + "resume@resume < <module>@gen_resume", M, size=74003, **one)
# Closing closes the inner generator first, while the outer one is suspended
expect("numbers@gen_finally < <module>@gen_close", M, size=74005, made=2, live=2, peak=2)
abandoned = numbers()
next(abandoned)  # ALLOC:gen_abandon_start
abandoned = None  # ALLOC:gen_abandoned
expect("numbers@gen_first < <module>@gen_abandon_start", M, size=74001, **one)
expect("numbers@gen_finally < <module>@gen_abandoned", M, size=74005, **one)


# Classes: the body, metaclass, methods, properties, operators, __del__, context managers
class Meta(type):
    def __new__(cls, name, bases, namespace):
        h.malloc(75001)  # ALLOC:meta
        return super().__new__(cls, name, bases, namespace)


class Thing(metaclass=Meta):  # ALLOC:class
    h.malloc(75003)  # ALLOC:class_body

    def __init__(self):
        h.malloc(75005)  # ALLOC:init

    def method(self):
        h.malloc(75007)  # ALLOC:method

    @classmethod
    def of_class(cls):
        h.malloc(75009)  # ALLOC:classmethod

    @property
    def value(self):
        h.malloc(75011)  # ALLOC:property

    def __lt__(self, other):
        h.malloc(75013)  # ALLOC:operator
        return False

    def __enter__(self):
        h.malloc(75015)  # ALLOC:enter

    def __exit__(self, *error):
        h.malloc(75017)  # ALLOC:exit

    def __del__(self):
        h.malloc(75019)  # ALLOC:del


thing = Thing()  # ALLOC:make
thing.method()  # ALLOC:call_method
Thing.of_class()  # ALLOC:call_classmethod
thing.value  # ALLOC:get_property
thing < thing  # ALLOC:compare
with thing:  # ALLOC:with
    pass  # ALLOC:with_body
del thing  # ALLOC:delete
expect("__new__@meta < <module>@class", M, size=75001, **one)
expect("Thing@class_body < <module>@class", M, size=75003, **one)
for function, marker, caller, size in (
    ("__init__", "init", "make", 75005), ("method", "method", "call_method", 75007),
    ("of_class", "classmethod", "call_classmethod", 75009), ("value", "property", "get_property", 75011),
    ("__lt__", "operator", "compare", 75013), ("__enter__", "enter", "with", 75015),
    ("__exit__", "exit", "with" if sys.version_info >= (3, 10) else "with_body", 75017), ("__del__", "del", "delete", 75019),
):
    expect("%s@%s < <module>@%s" % (function, marker, caller), M, size=size, **one)


# C that calls back into Python: sort keys, map, a ctypes callback, three levels deep
def key(number):
    h.malloc(76001)  # ALLOC:key
    return -number


sorted([3, 1, 2], key=key)  # ALLOC:sorted
list(map(key, [1, 2]))  # ALLOC:map
expect("key@key < <module>@sorted", M, size=76001, made=3, live=3, peak=3)
expect("key@key < <module>@map", M, size=76001, made=2, live=2, peak=2)


def level3():
    h.malloc(76003)  # ALLOC:level3


def level2():
    sorted([1], key=lambda n: hg.call(called3))  # ALLOC:level2


called3, called2 = CALLBACK(level3), CALLBACK(level2)
h.call(called2)  # ALLOC:callback
expect("level3@level3 < <lambda>@level2 < level2@level2 < <module>@callback", M, size=76003, **one)


# Exceptions: in a handler, in finally, and after an unwinding through several frames
def raises():
    raise KeyError


def handles():
    try:
        raises()
    except KeyError:
        h.malloc(77001)  # ALLOC:except
    finally:
        h.malloc(77003)  # ALLOC:finally
    h.malloc(77005)  # ALLOC:after


handles()  # ALLOC:handles
for marker, size in (("except", 77001), ("finally", 77003), ("after", 77005)):
    expect("handles@%s < <module>@handles" % marker, M, size=size, **one)


# Recursion, also mutual: one stack per depth
def down(depth):
    if depth:
        across(depth - 1)  # ALLOC:down
    else:
        h.malloc(78001)  # ALLOC:bottom


def across(depth):
    down(depth)  # ALLOC:across


down(5)  # ALLOC:recursion
expect("down@bottom < " + "across@across < down@down < " * 5 + "<module>@recursion", M, size=78001, **one)
for depth in (1, 2, 3):
    down(depth)  # ALLOC:recursion_by_depth
    expect("down@bottom < " + "across@across < down@down < " * depth + "<module>@recursion_by_depth", M, size=78001, **one)

# eval, exec, and code of another file name
eval("h.malloc(79001)")  # ALLOC:eval
exec(compile("def made():\n\n    h.malloc(79003)\nmade()", "made up.py", "exec"))  # ALLOC:exec
expect("<module>@<string>:1 < <module>@eval", M, size=79001, **one)
expect("made@made up.py:3 < <module>@made up.py:4 < <module>@exec", M, size=79003, **one)

# A long function: the line number needs more than one step of the table, forwards and back
source = "def long():\n" + "    x = 1\n" * 700 + "    h.malloc(79005)\n" + "    x = 2\n" * 300 + "    h.malloc(79007)\nlong()"
exec(compile(source, "long.py", "exec"))  # ALLOC:long
expect("long@long.py:702 < <module>@long.py:1004 < <module>@long", M, size=79005, **one)
expect("long@long.py:1003 < <module>@long.py:1004 < <module>@long", M, size=79007, **one)


def fill(a, b):
    return b


fill(  # the call's own line differs between versions; the argument's does not
    1,
    h.malloc(79009),  # ALLOC:argument
)
expect("<module>@argument", M, size=79009, **one)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
