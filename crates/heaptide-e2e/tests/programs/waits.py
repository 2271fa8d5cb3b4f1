"""Random programs that wait in every way there is: functions of random bodies that call one another, fail, suspend, and come back.

Run under HEAPTIDE_EARLY_STOP=check, which compares each walk with a whole one. Arguments: a seed, and how many programs.
"""
import random
import sys

DEEPEST = 9


class Fails(Exception):
    pass


def alloc(n=1):
    return bytes(600 + n)


class Thing:
    """Does everything by a function of the program that is running."""

    run = None

    @property
    def value(self):
        return self.run(1)

    @property
    def method(self):
        self.run(2)
        return self.call

    def call(self, *args, **named):
        return self.run(len(args))

    def __getitem__(self, index):
        return self.run(index)

    def __call__(self, *args):
        return self.run(3)

    def __enter__(self):
        return self.run(4)

    def __exit__(self, *_):
        self.run(5)
        return False

    def __add__(self, other):
        return self.run(6)

    def __iter__(self):
        yield self.run(7)
        yield self.run(8)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.run(9)

    def __del__(self):
        self.run(10)


class Watching(Thing):
    def __getattribute__(self, name):
        if name == "run" or name.startswith("__"):
            return object.__getattribute__(self, name)
        object.__getattribute__(self, "run")(11)
        return object.__getattribute__(self, name)


EXPRESSIONS = (
    "{f}(d - 1)",
    "alloc({k})",
    "t.value",
    "t.method({k})",
    "t.method(*[1, 2], key=alloc())",
    "t[{k}]",
    "t({k}, 2)",
    "t + {k}",
    "t.missing",
    "w.value",
    "w.call(1, 2)",
    "w.missing",
    "len([{f}(d - 1) for _ in (1, 2)])",
    "sum({f}(d - 1) for _ in (1, 2))",
    "list(gen_{f}(d - 1))",
    "takes({k}, 2, {f}(d - 1))",
    "takes(1, 2, 3, t.value, {f}(d - 1))",
    "takes(1, 2, 3, 4, t.method())",
    "takes(*(1, {f}(d - 1)))",
    "sorted((2, 1), key=lambda n: (alloc(n), n)[1])",
    "(lambda: {f}(d - 1))()",
    "max(map({f}, (d - 1, d - 2)))",
    "next(iter(t))",
    "f'{{t.value}} {{t[1]}}'",
    "Thing()",
    "exec(body_{f}, globals(), dict(d=d - 1))",
)

STATEMENTS = (
    ("{e}",),
    ("x = {e}",),
    ("takes({e}, {e}, {e})",),
    ("try:", "    {e}", "    {e}", "except Fails:", "    {e}"),
    ("try:", "    takes(1, 2, {e}, {e})", "except Fails:", "    pass"),
    ("try:", "    {e}", "finally:", "    alloc()"),
    ("for i in gen_{f}(d - 1):", "    {e}"),
    ("for i in (1, 2):", "    for j in held[0]:", "        {e}"),
    ("with t:", "    {e}"),
    ("if flip():", "    {e}", "else:", "    {e}"),
    ("if flip():", "    raise Fails",),
    ("for i in range(3):", "    try:", "        {e}", "    except Fails:", "        continue"),
    ("it = gen_{f}(d - 1)", "next(it, None)", "{e}", "next(it, None)"),
    ("g = gen_{f}(d - 1)", "try:", "    next(g, None)", "    g.throw(Fails())", "except (Fails, StopIteration):", "    pass"),
    ("del x",),
)


def takes(*values, **named):
    return len(values)


def program(dice):
    names = [f"f{number}" for number in range(6)]

    def expression():
        return dice.choice(EXPRESSIONS).format(f=dice.choice(names), k=dice.randrange(9))

    def block(count, indent):
        lines = []
        for _ in range(count):
            for line in dice.choice(STATEMENTS):
                while "{e}" in line:
                    line = line.replace("{e}", expression(), 1)
                lines.append(indent + line.replace("{f}", dice.choice(names)))
        return lines

    source = []
    for name in names:
        for kind in ("", "gen_"):
            source.append(f"def {kind}{name}(d):")
            source.append("    x = alloc(d)")
            source.append("    if d <= 0 or spent():")
            source.append("        return 0" if not kind else "        return")
            source.extend(block(dice.randrange(1, 5), "    "))
            if kind:
                source.append("    yield alloc()")
                source.extend(block(1, "    "))
                source.append("    yield d")
            else:
                source.append("    return d")
        source.append(f"body_{name} = compile('alloc()\\nx = {name}(d - 1)', '<body>', 'exec')")
    return "\n".join(source)


def play(seed):
    dice = random.Random(seed)
    left = [600]

    def spent():
        left[0] -= 1
        return left[0] < 0

    def flip():
        return dice.random() < 0.4

    names = {
        "Fails": Fails,
        "Thing": Thing,
        "alloc": alloc,
        "flip": flip,
        "spent": spent,
        "takes": takes,
        "held": [iter(())],
        "t": Thing(),
        "w": Watching(),
    }
    exec(compile(program(dice), f"<program {seed}>", "exec"), names)
    turns = [0]

    def run(number):
        alloc(number)
        turns[0] += 1
        if turns[0] % 7 == 0:
            raise Fails
        return names[f"f{turns[0] % 6}"](2) if turns[0] % 3 == 0 else alloc(2) and 2

    Thing.run = staticmethod(run)
    failed = 0
    # The same program often enough that the interpreter has specialized it, from several callers.
    for turn in range(6):
        left[0] = 600
        turns[0] = turn
        for number in range(6):
            try:
                names[f"f{number}"](DEEPEST)
            except (Fails, TypeError, AttributeError, UnboundLocalError, ValueError, RuntimeError):
                failed += 1
    Thing.run = staticmethod(lambda number: 2)
    names.clear()
    return failed


if __name__ == "__main__":
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    sys.unraisablehook = lambda _: None
    print(sum(play(seed + number) for number in range(count)))
