"""Every function that makes or gives back memory, each on a line of its own, with the GIL released and held."""
import known
from known import expect, h, hg

known.program(__file__)
PAGE = 4096


def every_function(x, held):
    if not held:
        x.free(x.malloc(70001))  # ALLOC:malloc
        x.free(x.calloc(7, 10003))  # ALLOC:calloc
        x.free(x.posix_memalign(64, 70005))  # ALLOC:posix_memalign
        x.free(x.aligned_alloc(64, 70016))  # ALLOC:aligned_alloc
        x.free(x.memalign(128, 70009))  # ALLOC:memalign
        x.free(x.valloc(70011))  # ALLOC:valloc
        x.free(x.pvalloc(70013))  # ALLOC:pvalloc
        x.free(x.realloc(None, 70015))  # ALLOC:realloc
        x.free(x.reallocarray(None, 5, 14005))  # ALLOC:reallocarray
        x.munmap(x.mmap(19 * PAGE), 19 * PAGE)  # ALLOC:mmap
        x.free(x.malloc_by_got(70017))  # ALLOC:malloc_by_got
        x.free_by_data(x.malloc_by_data(70019))  # ALLOC:malloc_by_data
    else:
        x.free(x.malloc(80001))  # ALLOC:held_malloc
        x.free(x.calloc(7, 11003))  # ALLOC:held_calloc
        x.free(x.realloc(None, 80015))  # ALLOC:held_realloc
        x.munmap(x.mmap(21 * PAGE), 21 * PAGE)  # ALLOC:held_mmap
    x.free(None)


for _ in range(3):
    every_function(h, False)  # ALLOC:released
    every_function(hg, True)  # ALLOC:held
for name, size in dict(
    malloc=70001, calloc=70021, posix_memalign=70005, aligned_alloc=70016, memalign=70009, valloc=70011, pvalloc=70013,
    realloc=70015, mmap=19 * PAGE,
).items():
    expect("every_function@%s < <module>@released" % name, name.upper(), size=size, made=3, temporary=3)
expect("every_function@reallocarray < <module>@released", "REALLOC", size=70025, made=3, temporary=3)
expect("every_function@malloc_by_got < <module>@released", "MALLOC", size=70017, made=3, temporary=3)
expect("every_function@malloc_by_data < <module>@released", "MALLOC", size=70019, made=3, temporary=3)
expect("every_function@held_malloc < <module>@held", "MALLOC", size=80001, made=3, temporary=3)
expect("every_function@held_calloc < <module>@held", "CALLOC", size=77021, made=3, temporary=3)
expect("every_function@held_realloc < <module>@held", "REALLOC", size=80015, made=3, temporary=3)
expect("every_function@held_mmap < <module>@held", "MMAP", size=21 * PAGE, made=3, temporary=3)


# Sizes of zero, and an alignment that the C library must keep
zero = h.malloc(0)  # ALLOC:zero
h.free(zero)
expect("<module>@zero", "MALLOC", size=0, made=1, temporary=1)
aligned = h.memalign(65536, 3)  # ALLOC:aligned
assert aligned % 65536 == 0
expect("<module>@aligned", "MEMALIGN", size=3, made=1, live=1, peak=1)

# What fails leaves no trace
assert h.failures() == 0  # ALLOC:failures
block = h.malloc(90001)  # ALLOC:survivor
assert h.realloc_fails(block) == block  # ALLOC:realloc_fails
expect("<module>@survivor", "MALLOC", size=90001, made=1, live=1, peak=1)
assert h.errno_kept(90003) == 1  # ALLOC:errno
expect("<module>@errno", "MALLOC", size=90003, made=1, temporary=1)

# realloc: the old block goes, a new one comes, on the line that asked
start = h.malloc(1 << 20)  # ALLOC:realloc_start
bigger = h.realloc(start, 40 << 20)  # ALLOC:realloc_bigger
smaller = h.realloc(bigger, 2 << 20)  # ALLOC:realloc_smaller
expect("<module>@realloc_start", "MALLOC", size=1 << 20, made=1, temporary=1)
expect("<module>@realloc_bigger", "REALLOC", size=40 << 20, made=1, temporary=1)
expect("<module>@realloc_smaller", "REALLOC", size=2 << 20, made=1, live=1, peak=1)
grown = h.grow(10007, 9)  # ALLOC:grow
expect("<module>@grow", "MALLOC", size=10007, made=1, temporary=1)
expect("<module>@grow", "REALLOC", made=(9, 10007 * 54), live=(1, 100070), peak=(1, 100070), temporary=(8, 10007 * 44))

# Many blocks, churn, and the three windows of a temporary block
many = known.blocks(1000)
h.many(1000, 1021, many)  # ALLOC:many
expect("<module>@many", "MALLOC", size=1021, made=1000, live=400, peak=1000)
h.churn(1000, 1031)  # ALLOC:churn
expect("<module>@churn", "MALLOC", size=1031, made=1000, temporary=1000)
h.windows(1033)  # ALLOC:windows
expect("<module>@windows", "MALLOC", size=1033, made=3, temporary=2)
expect("<module>@windows", "CALLOC", size=1033, made=3, temporary=2)
first, second, third = (h.malloc(1039 + 2 * n) for n in range(3))  # ALLOC:not_temporary
h.free(first)
expect("<genexpr>@not_temporary < <module>@not_temporary", "MALLOC", made=(3, 3123), live=(2, 2084), peak=(2, 2084))

# Mappings are accounted by range: a hole, both ends, a part taken over, and one moved
hole = h.mmap(100 * PAGE)  # ALLOC:hole
h.many(3, 1, known.blocks(3))  # ALLOC:spacer
expect("<module>@spacer", "MALLOC", size=1, made=3, live=3, peak=3)
assert h.munmap_fails(hole, 100 * PAGE)
h.munmap(hole + 10 * PAGE, 20 * PAGE)
h.munmap(hole, 5 * PAGE)
h.munmap(hole + 90 * PAGE, 10 * PAGE)
h.munmap(hole + 12 * PAGE, 2 * PAGE)
expect("<module>@hole", "MMAP", made=(1, 100 * PAGE), live=(1, 65 * PAGE), peak=(1, 65 * PAGE))
under = h.mmap(50 * PAGE)  # ALLOC:under
h.mmap_fixed(under + 10 * PAGE, 30 * PAGE)  # ALLOC:over
expect("<module>@under", "MMAP", made=(1, 50 * PAGE), live=(1, 20 * PAGE), peak=(1, 20 * PAGE))
expect("<module>@over", "MMAP", size=30 * PAGE, made=1, live=1, peak=1)
before = h.mmap(300 * PAGE)  # ALLOC:before_move
h.many(3, 2, known.blocks(3))  # ALLOC:spacer2
expect("<module>@spacer2", "MALLOC", size=2, made=3, live=3, peak=3)
after = h.mremap(before, 300 * PAGE, 7000 * PAGE)  # ALLOC:moved
expect("<module>@before_move", "MMAP", size=300 * PAGE, made=1)
expect("<module>@moved", "MMAP", size=7000 * PAGE, made=1, live=1, peak=1)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
h.free_many(600, many)
later = h.malloc(12345677)  # ALLOC:after_the_peak
expect("<module>@after_the_peak", "MALLOC", size=12345677, made=1, live=1)
known.finish()
