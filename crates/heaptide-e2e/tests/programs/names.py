"""Names beyond ASCII: the file (the harness gives it one), functions, classes. Latin-1, BMP and astral identifiers."""
import known
from known import expect, h

known.program(__file__)
M = "MALLOC"


def straße():
    h.malloc(86001)  # ALLOC:latin


def 分配():
    h.malloc(86003)  # ALLOC:bmp


def 𐤀𐤁():
    h.malloc(86005)  # ALLOC:astral


class Größe:  # ALLOC:class
    h.malloc(86007)  # ALLOC:class_body


straße()  # ALLOC:call_latin
分配()  # ALLOC:call_bmp
𐤀𐤁()  # ALLOC:call_astral
each = dict(made=1, live=1, peak=1)
expect("straße@latin < <module>@call_latin", M, size=86001, **each)
expect("分配@bmp < <module>@call_bmp", M, size=86003, **each)
expect("𐤀𐤁@astral < <module>@call_astral", M, size=86005, **each)
expect("Größe@class_body < <module>@class", M, size=86007, **each)

# File names of code that no file has: a lone surrogate, which is not UTF-8, and a very long one
for file in ("<\udc80\udcff>", "<" + "長" * 3000 + ">"):
    exec(compile("def made(): h.malloc(86009)\nmade()", file, "exec"))  # ALLOC:exec
    expect("made@%s:1 < <module>@%s:2 < <module>@exec" % (file, file), M, size=86009, **each)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
