"""Code that is compiled, run once and freed, over and over: newcomers get the addresses of the dead, never their names."""
import gc

import known
from known import expect, h

known.program(__file__)
ROUNDS = 2000
BODY = "%sdef %s(h):\n%s    return h.posix_memalign(64, %d)\nresult = %s(h)\n"
addresses = set()


def run(number):
    name = "f%d" % number
    source = BODY % ("\n" * (number % 7), name, "    pass\n" * (number % 11), 100000 + number, name)
    code = compile(source, "<gen-%d>" % number, "exec")
    addresses.add(id(code))
    namespace = dict(h=h)
    exec(code, namespace)  # ALLOC:exec
    h.free(namespace["result"])


for number in range(ROUNDS):
    run(number)  # ALLOC:run
    if number % 100 == 0:
        gc.collect()
for number in range(ROUNDS):
    line = number % 7 + number % 11 + 2
    stack = "f%d@<gen-%d>:%d < <module>@<gen-%d>:%d < run@exec < <module>@run" % (number, number, line, number, line + 1)
    expect(stack, "POSIX_MEMALIGN", size=100000 + number, made=1, temporary=1)
# The point of it all: addresses were used again (the oracle keeps the code objects alive, for their columns)
assert known.ORACLE or len(addresses) < ROUNDS // 2, len(addresses)

# The same file and function name with another body: the line tables must not be mixed up either
for shift in range(200):
    namespace = dict(h=h)
    exec(compile(BODY % ("\n" * shift, "same", "", 200000 + shift, "same"), "<same>", "exec"), namespace)  # ALLOC:same
    expect("same@<same>:%d < <module>@<same>:%d < <module>@same" % (shift + 2, shift + 3),
           "POSIX_MEMALIGN", size=200000 + shift, made=1, live=1, peak=1)

# Lambdas made and dropped at one address, with a live generator of dead code between
for number in range(300):
    made = eval("(lambda h: (h.memalign(64, %d) for _ in [0]))" % (300000 + number), {}, {})
    next(made(h))  # ALLOC:next
total = (300, sum(range(300000, 300300)))
expect("<genexpr>@<string>:1 < <module>@next", "MEMALIGN", made=total, live=total, peak=total)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
