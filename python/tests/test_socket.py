"""Tracking to a socket and reading from it: the program and the reader are processes of their own, as users have it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import EXTRA
from heaptide import AllocatorType, SocketDestination, SocketReader, Tracker
from heaptide._memray import SymbolicSupport, get_symbolic_support

HELPERS = """
import heaptide, os, signal, socket, sys, threading
from heaptide import AllocatorType, SocketDestination, Tracker

port = int(sys.argv[1])

def many(n):
    held = []
    for _ in range(n): held.append(bytearray(1000))
    return held

def barrier(name):
    print(name, flush=True)
    sys.stdin.readline()
"""


class SentReader(SocketReader):
    """One that does not open the capture, as on another machine."""

    _everything_sent = True


READERS = pytest.mark.parametrize("reader_class", [SocketReader, SentReader])


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


class Program:
    """A program that stands at barriers until it is told to go on."""

    def __init__(self, path: Path, text: str, port: int) -> None:
        script = path / "program.py"
        script.write_text(HELPERS + text)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), str(port)],
            cwd=path,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )

    def says(self) -> str:
        assert self.process.stdout is not None and self.process.stderr is not None
        said = self.process.stdout.readline()
        # Nothing at all: it has died.
        return said.strip() or self.process.stderr.read()

    def goes_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ends(self, code: int = 0) -> str:
        rest, errors = self.process.communicate()
        assert self.process.returncode == code, errors
        return rest


@contextlib.contextmanager
def running(path: Path, text: str, port: int) -> Iterator[Program]:
    program = Program(path, text, port)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.communicate()


def held(reader: SocketReader, merge_threads: bool = True) -> list[tuple[str, int, int]]:
    """Name of the thread, number and size of what `many` holds; the name is empty where threads are merged."""
    found = []
    for record in reader.get_current_snapshot(merge_threads=merge_threads):
        stack = record.stack_trace(1)
        # The list that holds them is left out.
        if stack and stack[0][0] == "many" and record.size == record.n_allocations * (1000 + EXTRA):
            name = "" if merge_threads else record.thread_name
            found.append((name, record.n_allocations, record.size))
    return sorted(found)


def of(count: int, name: str = "") -> tuple[str, int, int]:
    return (name, count, count * (1000 + EXTRA))


@READERS
@pytest.mark.parametrize("options", ["", ", memory_interval_ms=0"])
def test_the_heap_is_exact_at_every_barrier(
    tmp_path: Path, port: int, reader_class: type[SocketReader], options: str
) -> None:
    text = f"""
tracker = Tracker(destination=SocketDestination(port){options})
before = many(5)
with tracker:
    kept = many(7)
    barrier("seven")
    del kept[3:]
    barrier("three")
    kept = many(20_000)
    barrier("more")
    kept = many(1)
    del before
barrier("over")
"""
    with running(tmp_path, text, port) as program, reader_class(port) as reader:
        for name, count in (("seven", 7), ("three", 3), ("more", 20_000)):
            assert program.says() == name
            assert held(reader) == [of(count)]
            # Ours is none of the program's.
            threads = {record.thread_name for record in reader.get_current_snapshot(merge_threads=False)}
            assert threads == {"MainThread"}
            assert reader.is_active
            assert reader.pid == program.process.pid
            assert reader.command_line == f"{tmp_path / 'program.py'} {port}"
            assert not reader.has_native_traces
            program.goes_on()
        assert program.says() == "over"
        # The program leaves its block when readers have what was there at its end.
        assert not reader.is_active
        assert held(reader) == held(reader) == [of(1)]
        program.goes_on()
        program.ends()
        assert held(reader) == [of(1)]
    assert not reader.is_active
    assert list(reader.get_current_snapshot(merge_threads=True)) == []
    assert reader.pid == program.process.pid


@READERS
def test_requests_to_pythons_allocators(tmp_path: Path, port: int, reader_class: type[SocketReader]) -> None:
    text = """
def small(n):
    return [bytes(100 + i) for i in range(n)]
with Tracker(destination=SocketDestination(port), trace_python_allocators=True):
    kept = small(1000)
    barrier("all")
    del kept[10:]
    barrier("ten")
"""
    with running(tmp_path, text, port) as program, reader_class(port) as reader:
        for name, count in (("all", 1000), ("ten", 10)):
            assert program.says() == name
            size = sum(sys.getsizeof(bytes(100 + i)) for i in range(count))
            records = list(reader.get_current_snapshot(merge_threads=True))
            of_bytes = [record.size for record in records if record.n_allocations == count]
            assert of_bytes == [size]
            assert {record.allocator for record in records} >= {AllocatorType.PYMALLOC_CALLOC}
            program.goes_on()
        program.ends()


@READERS
def test_threads_apart_and_merged(tmp_path: Path, port: int, reader_class: type[SocketReader]) -> None:
    text = """
go = threading.Event()
allocated = threading.Barrier(3)
def work(n):
    kept = many(n)
    allocated.wait()
    go.wait()
with Tracker(destination=SocketDestination(port)):
    workers = [threading.Thread(target=work, args=(n,), name=name) for n, name in ((3, "one"), (4, "other"))]
    for worker in workers: worker.start()
    allocated.wait()
    kept = many(2)
    barrier("all")
    go.set()
    for worker in workers: worker.join()
    barrier("main")
"""
    with running(tmp_path, text, port) as program, reader_class(port) as reader:
        assert program.says() == "all"
        assert held(reader, merge_threads=False) == [of(2, "MainThread"), of(3, "one"), of(4, "other")]
        assert held(reader, merge_threads=True) == [of(2), of(7)]
        threads = {record.tid for record in reader.get_current_snapshot(merge_threads=False)}
        assert program.process.pid in threads and len(threads) >= 3
        program.goes_on()
        assert program.says() == "main"
        assert held(reader, merge_threads=False) == [of(2, "MainThread")]
        program.goes_on()
        program.ends()


@READERS
def test_readers_come_late_go_away_and_come_again(tmp_path: Path, port: int, reader_class: type[SocketReader]) -> None:
    text = """
print("waits", flush=True)
with Tracker(destination=SocketDestination(port)):
    kept = many(2)
    barrier("first")
    kept = many(3)
    barrier("none")
    kept = many(4)
    barrier("two")
print("over")
"""
    with running(tmp_path, text, port) as program:
        assert program.says() == "waits"
        with reader_class(port) as reader:
            assert program.says() == "first"
            assert held(reader) == [of(2)]
        program.goes_on()
        # Nobody reads.
        assert program.says() == "none"
        program.goes_on()
        assert program.says() == "two"
        with reader_class(port) as late, reader as again:
            assert held(late) == held(again) == [of(4)]
            with pytest.raises(ValueError, match="more than once"):
                reader.__enter__()
            program.goes_on()
            assert program.ends() == "over\n"
            assert held(late) == held(again) == [of(4)]
            assert not late.is_active and not again.is_active


@READERS
@pytest.mark.parametrize("death", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "os.abort()"])
def test_a_program_that_dies(tmp_path: Path, port: int, reader_class: type[SocketReader], death: str) -> None:
    text = f"""
with Tracker(destination=SocketDestination(port)):
    kept = many(2)
    barrier("two")
    more = many(5)
    {death}
"""
    with running(tmp_path, text, port) as program, reader_class(port) as reader:
        assert program.says() == "two"
        assert held(reader) == [of(2)]
        program.goes_on()
        program.process.wait()
        assert not reader.is_active
        # What was there when it died, or when it was last asked.
        found = held(reader)
        assert found == ([of(2)] if reader_class is SentReader else [of(2), of(5)])


@READERS
def test_a_program_that_ends_in_its_block(tmp_path: Path, port: int, reader_class: type[SocketReader]) -> None:
    text = """
tracker = Tracker(destination=SocketDestination(port))
tracker.__enter__()
kept = many(2)
barrier("two")
kept += many(1)
"""
    with running(tmp_path, text, port) as program, reader_class(port) as reader:
        assert program.says() == "two"
        assert held(reader) == [of(2)]
        program.goes_on()
        program.ends()
        assert not reader.is_active
        assert held(reader) == [of(1), of(2)]


@READERS
def test_forked_children_serve_nobody(tmp_path: Path, port: int, reader_class: type[SocketReader]) -> None:
    text = """
import subprocess
with Tracker(destination=SocketDestination(port)):
    kept = many(2)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            more = many(50)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    subprocess.run(["true"], check=True)
    barrier("forked")
    pause = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(pause[1])
        os.read(pause[0], 1)
        os._exit(0)
    kept += many(1)
# The child is there yet, and nothing waits for it.
barrier("over")
os.close(pause[1])
os.waitpid(child, 0)
"""
    with running(tmp_path, text, port) as program, reader_class(port) as reader:
        assert program.says() == "forked"
        assert held(reader) == [of(2)]
        program.goes_on()
        assert program.says() == "over"
        assert not reader.is_active
        assert held(reader) == [of(1), of(2)]
        program.goes_on()
        program.ends()


def test_a_tracker_on_the_same_port_again(tmp_path: Path, port: int) -> None:
    text = """
for n in (2, 3, 4):
    with Tracker(destination=SocketDestination(port)):
        kept = many(n)
        barrier(n)
        if n == 3: many(5)
    print("over", flush=True)
"""
    with running(tmp_path, text, port) as program:
        for count in (2, 3, 4):
            with SocketReader(port) as reader:
                assert program.says() == str(count)
                assert held(reader) == [of(count)]
                program.goes_on()
                assert program.says() == "over"
        program.ends()


def test_a_port_that_is_in_use(tmp_path: Path, port: int) -> None:
    refused = "Failed to bind to host and port"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match=refused):
        Tracker(destination=SocketDestination(port))
    text = """
with Tracker(destination=SocketDestination(port)):
    barrier("tracks")
"""
    with running(tmp_path, text, port) as program, SocketReader(port) as reader:
        assert program.says() == "tracks"
        with pytest.raises(OSError, match="Failed to bind to host and port"):
            Tracker(destination=SocketDestination(port))
        assert reader.is_active
        program.goes_on()
        program.ends()


@READERS
def test_native_stacks(tmp_path: Path, port: int, reader_class: type[SocketReader]) -> None:
    """Where the interpreter's functions have names; elsewhere stacks are Python's."""
    text = """
with Tracker(destination=SocketDestination(port), native_traces=True):
    kept = many(7)
    barrier("seven")
    kept += many(2)
    barrier("nine")
"""
    with running(tmp_path, text, port) as program, reader_class(port) as reader:
        for name, expected in (("seven", 7), ("nine", 9)):
            assert program.says() == name
            assert reader.has_native_traces
            # The interpreter comes to call a function of C by another way.
            assert sum(count for _, count, _ in held(reader)) == expected
            for record in reader.get_current_snapshot(merge_threads=True):
                if record.size != record.n_allocations * (1000 + EXTRA):
                    continue
                native, hybrid = (
                    [frame[0] for frame in stack()] for stack in (record.native_stack_trace, record.hybrid_stack_trace)
                )
                assert len(native) > 5
                if get_symbolic_support() is not SymbolicSupport.NONE:
                    assert hybrid.index("many") > 1
                if get_symbolic_support() is SymbolicSupport.TOTAL:
                    above = hybrid[: hybrid.index("many")]
                    assert {"PyByteArray_Resize", "_PyBytes_Resize"} & set(above) and above == native[: len(above)]
            program.goes_on()
        program.ends()


def test_addresses_and_ports(port: int) -> None:
    with pytest.raises(OSError, match="Failed to resolve host IP and port"):
        Tracker(destination=SocketDestination(port, address="no such address"))
    with pytest.raises(OSError, match="Failed to bind to host and port"):
        # A documentation address, which nobody has.
        Tracker(destination=SocketDestination(port, address="192.0.2.1"))
    for wrong in (-1, 65536):
        with pytest.raises(OverflowError):
            Tracker(destination=SocketDestination(wrong))
        with pytest.raises(OverflowError), SocketReader(wrong):
            pass
    with pytest.raises(TypeError):
        SocketReader("1")  # type: ignore[arg-type]


def test_a_reader_that_is_not_connected() -> None:
    reader = SocketReader(port=1)
    assert (reader.command_line, reader.pid, reader.is_active) == (None, None, False)
    assert not reader.has_native_traces
    assert list(reader.get_current_snapshot(merge_threads=False)) == []


def test_something_else_that_listens(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:
        # It is accepted by the system, and finds this when it looks.
        greeting = subprocess.Popen(
            [sys.executable, "-c", f"import heaptide\nwith heaptide.SocketReader({port}): pass"],
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"220 mail.example.org ESMTP and a text that is long enough\r\n")
            _, errors = greeting.communicate()
    assert f"OSError: Could not read from port {port}: what listens at this port is no tracker of heaptide" in errors


@pytest.mark.parametrize(
    "waits", ["Tracker(destination=SocketDestination(port))", "heaptide.SocketReader(port).__enter__()"]
)
def test_waiting_can_be_interrupted(tmp_path: Path, port: int, waits: str) -> None:
    # A shell starts what is in its background with the signal ignored, and children inherit that.
    text = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("waits", flush=True)
    {waits}
except KeyboardInterrupt:
    print("interrupted")
"""
    with running(tmp_path, text, port) as program:
        assert program.says() == "waits"
        program.process.send_signal(signal.SIGINT)
        assert program.ends() == "interrupted\n"


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"ASK1\x40\0\0\0"])
def test_who_connects_and_does_not_read_holds_nothing_up(tmp_path: Path, port: int, said: bytes) -> None:
    text = """
with Tracker(destination=SocketDestination(port)):
    kept = many(2)
    barrier("two")
print("over")
"""
    with running(tmp_path, text, port) as program, SentReader(port) as reader:
        assert program.says() == "two"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(said)
            assert held(reader) == [of(2)]
            program.goes_on()
            assert program.ends() == "over\n"
            assert not reader.is_active
            assert held(reader) == [of(2)]


def test_descriptors_that_the_program_closes_are_not_used(tmp_path: Path, port: int) -> None:
    text = """
with Tracker(destination=SocketDestination(port)):
    kept = many(2)
    barrier("two")
    os.closerange(3, 4096)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    taken = [number for number in range(600, 800) if os.dup2(theirs.fileno(), number) == number]
    barrier("closed")
    for number in taken: os.write(number, b"x")
    theirs.close()
print(len(ours.recv(1000)) == len(taken))
for number in taken: os.close(number)
print(ours.recv(1000) == b"")
"""
    with running(tmp_path, text, port) as program, SentReader(port) as reader:
        assert program.says() == "two"
        assert held(reader) == [of(2)]
        program.goes_on()
        assert program.says() == "closed"
        assert held(reader) == [of(2)]
        program.goes_on()
        assert program.ends() == "True\nTrue\n"
        assert not reader.is_active


def test_nothing_is_left_behind(tmp_path: Path, port: int) -> None:
    text = """
def files():
    with open("/proc/self/maps") as maps:
        return {line.split(maxsplit=5)[5].strip() for line in maps if "served.tide" in line}
def sockets():
    links = []
    for name in os.listdir("/proc/self/fd"):
        try: links.append(os.readlink("/proc/self/fd/" + name))
        except FileNotFoundError: pass
    return [link for link in links if link.startswith("socket:")]
threads = len(os.listdir("/proc/self/task"))
with Tracker(destination=SocketDestination(port)):
    found = files()
    barrier(len(sockets()))
print([path.endswith(" (deleted)") and os.path.exists(os.path.dirname(path)) for path in found])
print(files(), sockets(), len(os.listdir("/proc/self/task")) - threads)
"""
    with running(tmp_path, text, port) as program, SocketReader(port):
        # One that listens and one that is connected.
        assert program.says() == "2"
        program.goes_on()
        assert program.ends() == "[False]\nset() [] 0\n"
