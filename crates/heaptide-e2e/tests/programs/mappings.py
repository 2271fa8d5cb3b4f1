"""Mappings are accounted by range: whatever part of them ends, and in whatever way."""
import threading

import known
from known import expect, h

known.program(__file__)
PAGE = 4096


def pages(name, made, live=0, temporary=0, thread="main", stack=None):
    """One mapping of so many pages, of which so many are left."""

    def pair(figure):
        return (1 if figure else 0, figure * PAGE)

    figures = dict(made=pair(made), live=pair(live), peak=pair(live), temporary=pair(temporary))
    expect(stack or "<module>@" + name, "MMAP", thread=thread, **figures)


# A part from the front, from the end, out of the middle; the rest piece by piece
front = h.mmap(40 * PAGE)  # ALLOC:front
h.munmap(front, 7 * PAGE)
expect("<module>@front", "MMAP", made=(1, 40 * PAGE), peak=(1, 33 * PAGE))
end = h.mmap(41 * PAGE)  # ALLOC:end
h.munmap(end + 30 * PAGE, 11 * PAGE)
pages("end", 41, 30)
middle = h.mmap(42 * PAGE)  # ALLOC:middle
h.munmap(middle + 10 * PAGE, 5 * PAGE)
h.munmap(middle + 20 * PAGE, 5 * PAGE)
h.munmap(middle + 15 * PAGE, 5 * PAGE)
pages("middle", 42, 27)
gone = h.mmap(43 * PAGE)  # ALLOC:gone
for first, last in ((10, 20), (0, 5), (30, 43), (5, 10), (20, 30)):
    h.munmap(gone + first * PAGE, (last - first) * PAGE)
pages("gone", 43)

# One call over several mappings, by parts and whole
room = h.mmap(100 * PAGE)  # ALLOC:room
h.mmap_fixed(room + 20 * PAGE, 10 * PAGE)  # ALLOC:second
h.mmap_fixed(room + 30 * PAGE, 10 * PAGE)  # ALLOC:third
h.munmap(room + 15 * PAGE, 20 * PAGE)
pages("room", 100, 75)
pages("second", 10, temporary=10)
pages("third", 10, 5)
many = h.mmap(100 * PAGE)  # ALLOC:many
for number in range(0, 100, 2):
    h.mmap_fixed(many + number * PAGE, PAGE)  # ALLOC:striped
h.munmap(many + 10 * PAGE, 80 * PAGE)
pages("many", 100, 10)
expect("<module>@striped", "MMAP", size=PAGE, made=50, live=10, peak=10)

# A mapping in the place of another: of all of it, of its front, of its end, of its middle, of the ends of two
all_of_it = h.mmap(30 * PAGE)  # ALLOC:all_of_it
h.mmap_fixed(all_of_it, 30 * PAGE)  # ALLOC:over_all
pages("all_of_it", 30, temporary=30)
pages("over_all", 30, 30)
parts = h.mmap(60 * PAGE)  # ALLOC:parts
h.mmap_fixed(parts, 10 * PAGE)  # ALLOC:over_front
h.mmap_fixed(parts + 50 * PAGE, 10 * PAGE)  # ALLOC:over_end
h.mmap_fixed(parts + 25 * PAGE, 10 * PAGE)  # ALLOC:over_middle
h.mmap_fixed(parts + 30 * PAGE, 25 * PAGE)  # ALLOC:over_two
pages("parts", 60, 15)
pages("over_front", 10, 10)
pages("over_end", 10, 5)
pages("over_middle", 10, 5)
pages("over_two", 25, 25)
# Lengths that the kernel rounds up to whole pages: what was asked for counts, all pages end
odd = h.mmap(5000)  # ALLOC:odd
h.munmap(odd, 5000)
expect("<module>@odd", "MMAP", size=5000, made=1, temporary=1)
rounded = h.mmap(10 * PAGE)  # ALLOC:rounded
h.mmap_fixed(rounded, 5000)  # ALLOC:over_odd
pages("rounded", 10, 8)
expect("<module>@over_odd", "MMAP", size=5000, made=1, live=1, peak=1)

# mremap: smaller where it is, larger, moved, onto what is mapped already, a part of a mapping
shrinking = h.mmap(80 * PAGE)  # ALLOC:shrinking
assert h.mremap(shrinking, 80 * PAGE, 7 * PAGE) == shrinking  # ALLOC:shrunk
pages("shrinking", 80, temporary=80)
pages("shrunk", 7, 7)
growing = h.mmap(11 * PAGE)  # ALLOC:growing
assert h.mremap(growing, 11 * PAGE, 900 * PAGE)  # ALLOC:grown
pages("growing", 11, temporary=11)
pages("grown", 900, 900)
place = h.mmap(50 * PAGE)  # ALLOC:place
moving = h.mmap(20 * PAGE)  # ALLOC:moving
assert h.mremap_fixed(moving, 20 * PAGE, 30 * PAGE, place + 10 * PAGE)  # ALLOC:moved
pages("place", 50, 20)
pages("moving", 20, temporary=20)
pages("moved", 30, 30)
splitting = h.mmap(70 * PAGE)  # ALLOC:splitting
assert h.mremap(splitting + 20 * PAGE, 30 * PAGE, 100 * PAGE)  # ALLOC:split_off
pages("splitting", 70, 40)
pages("split_off", 100, 100)
growing = h.mmap(4 * PAGE)  # ALLOC:start_small
for size in range(4, 400, 4):
    growing = h.mremap(growing, size * PAGE, (size + 4) * PAGE)  # ALLOC:step_by_step
pages("start_small", 4, temporary=4)
total, last = sum(range(8, 404, 4)), 400
expect(
    "<module>@step_by_step", "MMAP", made=(99, total * PAGE), live=(1, last * PAGE), peak=(1, last * PAGE),
    temporary=(98, (total - last) * PAGE),
)
# Shared pages mapped twice, and pages that leave their old place mapped
shared = h.mmap_shared(17 * PAGE)  # ALLOC:shared
twin = h.mremap_twin(shared, 17 * PAGE)  # ALLOC:twin
h.munmap(shared, 17 * PAGE)
pages("shared", 17, temporary=17)
pages("twin", 17, 17)
keeping = h.mmap(18 * PAGE)  # ALLOC:keeping
if h.mremap_keeping(keeping, 18 * PAGE):  # ALLOC:kept
    pages("kept", 18, 18)
pages("keeping", 18, 18)

# What fails leaves everything as it was, temporary or not
steady = h.mmap(23 * PAGE)  # ALLOC:steady
assert h.mapping_failures(steady, 23 * PAGE) == 0
assert h.mapping_failures(steady + 5 * PAGE, 7 * PAGE) == 0
pages("steady", 23, 23)
brief = h.mmap(24 * PAGE)  # ALLOC:brief
assert h.mapping_failures(brief + 5 * PAGE, 7 * PAGE) == 0
assert h.mapping_failures(brief, 24 * PAGE) == 0
h.munmap(brief, 24 * PAGE)
pages("brief", 24, temporary=24)

# Files count as far as they are mapped
with open(__file__, "rb") as file:
    h.mmap_file(file.fileno(), 1234, 0)  # ALLOC:private_file
    h.mmap_file(file.fileno(), PAGE, 1)  # ALLOC:shared_file
expect("<module>@private_file", "MMAP", size=1234, made=1, live=1, peak=1)
expect("<module>@shared_file", "MMAP", size=PAGE, made=1, live=1, peak=1)

# A mapping of one thread, cut by another
made = []


def maker():
    known.note_thread("maker")
    made.append(h.mmap(90 * PAGE))  # ALLOC:maker


def cutter():
    h.munmap(made[0] + 10 * PAGE, 10 * PAGE)
    h.mmap_fixed(made[0] + 30 * PAGE, 10 * PAGE)  # ALLOC:cutter
    known.note_thread("cutter")


for target in (maker, cutter):
    thread = threading.Thread(target=target, name=target.__name__)
    thread.start()
    thread.join()
pages("maker", 90, 70, thread="maker", stack="maker@maker")
pages("cutter", 10, 10, thread="cutter", stack="cutter@cutter")

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
h.munmap(front + 7 * PAGE, 33 * PAGE)
known.finish()
