"""Coroutines: what stands in the stack is what runs, resumed by the event loop or by hand."""
import asyncio
import sys

import known
from known import comprehension, expect, h

known.program(__file__)
M = "MALLOC"
ONE = dict(made=1, live=1, peak=1)


async def leaf(size):
    h.malloc(size)  # ALLOC:before_await
    await asyncio.sleep(0)
    h.malloc(size + 2)  # ALLOC:after_await
    return size


async def middle(size):
    return await leaf(size)  # ALLOC:await


class Manager:
    async def __aenter__(self):
        h.malloc(80101)  # ALLOC:aenter

    async def __aexit__(self, *error):
        await asyncio.sleep(0)
        h.malloc(80103)  # ALLOC:aexit


async def counter():
    for number in range(2):
        h.malloc(80201 + number)  # ALLOC:agen
        yield number
        await asyncio.sleep(0)


async def main():
    await middle(80001)  # ALLOC:direct
    await asyncio.gather(*[middle(80011 + 10 * n) for n in range(3)])
    async with Manager():  # ALLOC:with
        await asyncio.sleep(0)  # ALLOC:with_body
    async for number in counter():  # ALLOC:for
        h.malloc(80301 + number)  # ALLOC:for_body
    [h.malloc(80401) async for _ in counter()]  # ALLOC:comprehension
    await asyncio.get_running_loop().run_in_executor(None, in_executor)
    try:
        await asyncio.wait_for(stuck(), 0.001)  # ALLOC:wait_for
    except asyncio.TimeoutError:
        pass


def in_executor():
    known.note_thread("executor")
    if known.ORACLE:
        import threading

        threading.current_thread().name = "executor"
    h.malloc(80501)  # ALLOC:executor


async def stuck():
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        h.malloc(80601)  # ALLOC:cancelled
        raise


asyncio.run(main())  # ALLOC:run
RUN = " < <module>@run"
for marker, size in (("before_await", 80001), ("after_await", 80003)):
    expect("leaf@%s < middle@await < main@direct%s" % (marker, RUN), M, size=size, **ONE)
# The tasks of gather stand on the loop, not on main; the three differ in their sizes only
before = (3, 80011 + 80021 + 80031)
after = (3, before[1] + 6)
expect("leaf@before_await < middle@await" + RUN, M, made=before, live=before, peak=before)
expect("leaf@after_await < middle@await" + RUN, M, made=after, live=after, peak=after)
expect("__aenter__@aenter < main@with" + RUN, M, size=80101, **ONE)
# 3.9 leaves a `with` on the last line of its body
expect("__aexit__@aexit < main@" + ("with" if sys.version_info >= (3, 10) else "with_body") + RUN, M, size=80103, **ONE)
two = (2, 160403)
expect("counter@agen < main@for" + RUN, M, made=two, live=two, peak=two)
listcomp = comprehension("listcomp", "comprehension")
expect("counter@agen < " + listcomp + "main@comprehension" + RUN, M, made=two, live=two, peak=two)
expect("main@for_body" + RUN, M, made=(2, 160603), live=(2, 160603), peak=(2, 160603))
expect(listcomp + "main@comprehension" + RUN, M, size=80401, made=2, live=2, peak=2)
expect("in_executor@executor", M, size=80501, thread="executor", **ONE)
# wait_for makes a task of its own for it before 3.12
expect("stuck@cancelled" + (" < main@wait_for" if sys.version_info >= (3, 12) else "") + RUN, M, size=80601, **ONE)


# Driven by hand, without a loop
class Awaitable:
    def __await__(self):
        h.malloc(80701)  # ALLOC:await_method
        yield
        h.malloc(80703)  # ALLOC:await_resumed


async def by_hand():
    await Awaitable()  # ALLOC:by_hand


coroutine = by_hand()
coroutine.send(None)  # ALLOC:send1
try:
    coroutine.send(None)  # ALLOC:send2
except StopIteration:
    pass
expect("__await__@await_method < by_hand@by_hand < <module>@send1", M, size=80701, **ONE)
expect("__await__@await_resumed < by_hand@by_hand < <module>@send2", M, size=80703, **ONE)

h.free(h.malloc(known.TIDE))  # ALLOC:tide
known.tide("<module>@tide")
known.finish()
