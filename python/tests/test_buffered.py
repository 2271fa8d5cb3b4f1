"""Captures that a process of its own writes: `FileDestination(buffered=True)`."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import heaptide
from heaptide import FileDestination, FileFormat, FileReader, Tracker
from test_tracker import HELPERS

Piece = Callable[[str], str]

BUFFERED = (
    HELPERS
    + """
import gc, signal, subprocess, time
def tracker(name, **options):
    destination = {key: options.pop(key) for key in ("overwrite", "compress_on_exit") if key in options}
    return Tracker(destination=FileDestination(name, buffered=True, **destination), **options)

def held_in():
    with open("/proc/self/maps") as maps:
        names = {line.split()[5] for line in maps if "/heaptide-" in line and " rw-s " in line}
    return {os.path.dirname(name) for name in names}
"""
)

parametrized = pytest.mark.parametrize("file_format", list(FileFormat))
FUNCTION = [f"FileFormat({number})" for number in FileFormat]


class Ended:
    """A process that is no child of ours, and is waited for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.descriptor = os.pidfd_open(pid)

    def wait(self) -> None:
        ready, _, _ = select.select([self.descriptor], [], [], 120)
        assert ready, f"{self.pid} does not end"
        os.close(self.descriptor)


def writers(destination: Path) -> list[int]:
    """The processes that write to a file, by their command line."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(words) > 2 and words[1].startswith(b"--write-capture=") and os.fsencode(destination) in words:
                found.append(int(entry.name))
    return found


def leaked(path: Path) -> int:
    """What `many` of the helpers holds."""
    return sum(
        record.n_allocations
        for record in FileReader(path).get_leaked_allocation_records()
        if record.size >= 1001 * record.n_allocations
        and record.stack_trace(1)
        and record.stack_trace(1)[0][0] == "many"
    )


@pytest.fixture
def unmappable(tmp_path: Path) -> Iterator[Path]:
    """A directory in which no file can be mapped shared."""
    helper = Path(__file__).parents[2] / "crates/heaptide-e2e/tests/helper/unmappable_fs.py"
    if not helper.exists() or os.geteuid() != 0:
        pytest.skip("file systems cannot be mounted here")
    directory = tmp_path / "disk"
    directory.mkdir()
    with subprocess.Popen([sys.executable, str(helper), str(directory)], text=True, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        if server.stdout.readline() != "ready\n":
            pytest.skip("FUSE mounts are not allowed here")
        yield directory
        subprocess.run(["umount", "-l", str(directory)], check=True)


needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="processes that are no children cannot be waited for"
)


@parametrized
def test_everything_arrives(in_process: Piece, file_format: FileFormat) -> None:
    printed = in_process(
        BUFFERED
        + f"""
with tracker("x.tide", file_format=FileFormat({file_format})):
    kept = many(7)
    worker = threading.Thread(target=many, args=(3,), name="worker")
    worker.start()
    worker.join()
    directories = held_in()
    there = os.listdir(".")
reader = FileReader("x.tide")
print(found("x.tide"), found("x.tide", "get_total_allocation_records"), reader.status, len(reader.warnings))
print(len(directories), [os.path.exists(one) for one in directories], "x.tide" in there)
"""
    )
    lines = printed.splitlines()
    assert lines[0] == "7 10 finished (tracking ended, the program still runs) 0"
    assert lines[1] == "1 [False] True"


def test_it_is_as_small_as_others_or_as_large(in_process: Piece) -> None:
    printed = in_process(
        BUFFERED
        + """
sizes, counts = {}, set()
# Addresses that nobody has had yet take less room.
kept = [many(50) for _ in range(400)]
for small in (True, False):
    for buffered in (True, False):
        name = f"{small}-{buffered}.tide"
        with Tracker(destination=FileDestination(name, compress_on_exit=small, buffered=buffered)):
            kept = [many(50) for _ in range(400)]
        sizes[small, buffered] = os.stat(name).st_size
        counts.add(found(name))
# Besides what is counted there are the arenas of small objects.
print(min(counts) >= 20_000, max(counts) < 20_020)
print(sizes[True, True] * 2 < sizes[False, True], 0.8 < sizes[True, True] / sizes[True, False] < 1.25)
"""
    )
    assert printed == "True True\nTrue True\n"


def test_one_after_the_other_and_over_the_one_before(in_process: Piece) -> None:
    printed = in_process(
        BUFFERED
        + """
for i in range(20):
    with tracker("x.tide", overwrite=True):
        kept = many(i + 1)
    assert found("x.tide") == i + 1, i
    del kept
print(sorted(os.listdir(".")))
"""
    )
    assert printed == "['piece.py', 'x.tide']\n"


def test_the_program_does_not_see_the_writer(in_process: Piece) -> None:
    printed = in_process(
        BUFFERED
        + """
heard = []
signal.signal(signal.SIGCHLD, lambda *_: heard.append("SIGCHLD"))
def children():
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
seen = [children()]
before = set(os.listdir("/proc/self/fd"))
with tracker("x.tide"):
    seen.append(children())
    kept = many(2)
    done = subprocess.run([sys.executable, "-c", ""], close_fds=False)
    heard.clear()
    child = os.fork()
    if child == 0:
        os._exit(7)
    seen.append(os.wait() == (child, 7 << 8))
    heard.clear()
    seen.append(children())
seen.append(children())
gc.collect()
print(seen, heard, set(os.listdir("/proc/self/fd")) - before, found("x.tide"))
"""
    )
    assert printed == "[None, None, True, None, None] [] set() 2\n"


def test_the_writer_has_nothing_of_the_program(tmp_path: Path) -> None:
    script = tmp_path / "piece.py"
    script.write_text(
        BUFFERED
        + """
import socket
there = socket.socket()
os.set_inheritable(there.fileno(), True)
t = tracker("x.tide")
t.__enter__()
kept = many(3)
writer = next(int(n) for n in os.listdir("/proc") if n.isdigit() and n != str(os.getpid())
              and os.path.abspath("x.tide").encode() in open(f"/proc/{n}/cmdline", "rb").read())
links = {n: os.readlink(f"/proc/{writer}/fd/{n}") for n in os.listdir(f"/proc/{writer}/fd")}
print(links["1"], links["2"], links["0"].startswith("socket:"), os.readlink(f"/proc/{writer}/cwd"))
strangers = [link for n, link in links.items() if n not in "012" and not link.startswith(("/", "anon_inode:"))]
files = [link for link in links.values() if link.startswith("/") and "x.tide" not in link and link != "/dev/null"]
print(strangers, files)
with open(f"/proc/{writer}/stat") as stat: fields = stat.read().rsplit(")", 1)[1].split()
print(int(fields[1]) != os.getpid(), int(fields[3]) == writer, open(f"/proc/{writer}/environ").read() == "")
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    # Its output comes to an end although the program was killed and its writer may still be at work.
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.splitlines() == ["/dev/null /dev/null True /", "[] []", "True True True"]
    finish(tmp_path / "x.tide")
    assert leaked(tmp_path / "x.tide") == 3


def finish(destination: Path) -> None:
    """Waits for the end of whoever writes there."""
    for pid in writers(destination):
        try:
            Ended(pid).wait()
        except ProcessLookupError:
            continue


STORM = """
import random, threading
random.seed(int(sys.argv[1]))
def storm(kept):
    while True:
        kept.append(bytearray(700 + random.randrange(1000)))
        if len(kept) > 3000: kept.clear()
first = tracker("x.tide", file_format=FileFormat(int(sys.argv[2])))
first.__enter__()
print(*held_in(), flush=True)
kept = many(100)
print("ready", flush=True)
for _ in range(7): threading.Thread(target=storm, args=([],), daemon=True).start()
storm([])
"""


@pytest.fixture
def storm(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Path]]]:
    """Starts a program of eight threads that records until it is killed, and has `many` hold 100 blocks."""
    script = tmp_path / "storm.py"
    script.write_text(BUFFERED + STORM)
    programs = []

    def start(seed: int, file_format: FileFormat) -> tuple[subprocess.Popen[str], Path]:
        (tmp_path / "x.tide").unlink(missing_ok=True)
        program = subprocess.Popen(
            [sys.executable, str(script), str(seed), str(int(file_format))],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
        )
        programs.append(program)
        assert program.stdout is not None
        directory = Path(program.stdout.readline().strip())
        assert program.stdout.readline() == "ready\n"
        return program, directory

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def odd(path: Path) -> list[str]:
    """Warnings but for that of events in flight, which a kill may leave."""
    return [text for text in FileReader(path).warnings if not re.search("under way", text)]


@needs_pidfd
@parametrized
def test_file_systems_without_shared_mappings(unmappable: Path, in_process: Piece, file_format: FileFormat) -> None:
    printed = in_process(
        BUFFERED
        + f"""
import select
options = dict(follow_fork=True, file_format=FileFormat({file_format}))
try:
    Tracker("disk/x.tide", **options)
except OSError as error:
    print("shared mappings" in str(error), os.listdir("disk"))
for _ in range(3):
    with tracker("disk/x.tide", overwrite=True, **options):
        kept = many(60)
        child = os.fork()
        if child == 0:
            more = many(70)
            os._exit(0)
        os.waitpid(child, 0)
    print(found("disk/x.tide"), found(f"disk/x.tide.{{child}}"), FileReader("disk/x.tide").warnings)
child = os.fork()
if child == 0:
    t = tracker("disk/y.tide", **options)
    t.__enter__()
    held = many(80)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
for n in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{{n}}/cmdline", "rb") as words: mine = os.path.abspath("disk/y.tide").encode() in words.read()
        writer = os.pidfd_open(int(n)) if mine else None
    except OSError:
        continue
    if mine: select.select([writer], [], [])
print(found("disk/y.tide"))
"""
    )
    assert printed.splitlines() == ["True []", *["60 70 []"] * 3, "80"]


@needs_pidfd
@parametrized
def test_a_killed_program_loses_nothing(
    storm: Callable[..., tuple[subprocess.Popen[str], Path]], tmp_path: Path, file_format: FileFormat
) -> None:
    for seed in range(12):
        program, directory = storm(seed, file_format)
        (pid,) = writers(tmp_path / "x.tide")
        writer = Ended(pid)
        # The instant to die at, after what has to be found.
        select.select([], [], [], seed % 5 * 0.05)
        program.kill()
        assert program.wait() == -signal.SIGKILL
        writer.wait()
        assert not directory.exists()
        assert leaked(tmp_path / "x.tide") == 100, seed
        assert odd(tmp_path / "x.tide") == [], seed
        assert FileReader(tmp_path / "x.tide").status.startswith("killed"), seed


@needs_pidfd
@parametrized
def test_a_killed_writer_leaves_what_it_has_written(
    storm: Callable[..., tuple[subprocess.Popen[str], Path]], tmp_path: Path, file_format: FileFormat
) -> None:
    for seed in range(8):
        program, directory = storm(seed, file_format)
        (pid,) = writers(tmp_path / "x.tide")
        writer = Ended(pid)
        while leaked(tmp_path / "x.tide") < 100:
            assert program.poll() is None
        os.kill(pid, signal.SIGKILL)
        writer.wait()
        assert leaked(tmp_path / "x.tide") == 100, seed
        assert odd(tmp_path / "x.tide") == [], seed
        assert program.poll() is None
        program.kill()
        program.wait()
        # What nobody is left to remove.
        for held in directory.iterdir():
            held.unlink()
        directory.rmdir()


@pytest.mark.parametrize("file_format", FUNCTION)
def test_a_program_is_told_that_its_writer_was_killed(in_process: Piece, file_format: str) -> None:
    printed = in_process(
        BUFFERED
        + f"""
import logging
class Told(logging.Handler):
    def emit(self, record): print(record.levelname, record.getMessage().replace(os.getcwd() + "/", ""))
logging.getLogger("heaptide").addHandler(Told())
with tracker("x.tide", file_format={file_format}) as t:
    kept = many(5)
    while found("x.tide") < 5: pass
    def writes(n):
        try:
            with open(f"/proc/{{n}}/cmdline", "rb") as words: return os.path.abspath("x.tide").encode() in words.read()
        except OSError:
            return False
    writer = next(int(n) for n in os.listdir("/proc") if n.isdigit() and n != str(os.getpid()) and writes(n))
    os.kill(writer, signal.SIGKILL)
    more = many(6)
    directories = held_in()
print(found("x.tide"), len(directories), [os.path.exists(one) for one in directories])
with tracker("y.tide", file_format={file_format}): kept = many(4)
print(found("y.tide"))
"""
    )
    lines = printed.splitlines()
    assert lines[0] == "WARNING the process that wrote x.tide was killed: the capture ends where it had come to"
    # As far as it came: it may have written once more.
    assert lines[1] in ("5 1 [False]", "11 1 [False]")
    assert lines[2:] == ["4"]


@pytest.mark.parametrize("file_format", FUNCTION)
def test_forked_children_arrive(in_process: Piece, file_format: str) -> None:
    printed = in_process(
        BUFFERED
        + f"""
import glob
for name, follow in (("x.tide", False), ("y.tide", True)):
    with tracker(name, follow_fork=follow, file_format={file_format}):
        kept = many(2)
        for number in range(4):
            child = os.fork()
            if child == 0:
                more = many(3 + number)
                if number % 2: os._exit(0)
                sys.exit(0)
            os.waitpid(child, 0)
    children = sorted(glob.glob(name + ".*"))
    odd = [warning for child in children for warning in FileReader(child).warnings]
    print(found(name), sorted(found(child) for child in children), odd)
"""
    )
    assert printed.splitlines() == ["2 [] []", "2 [3, 4, 5, 6] []"]


@needs_pidfd
@parametrized
def test_children_that_go_on_are_written_to_their_end(tmp_path: Path, file_format: FileFormat) -> None:
    script = tmp_path / "piece.py"
    script.write_text(
        BUFFERED
        + f"""
ready, is_ready = os.pipe()
with tracker("x.tide", follow_fork=True, file_format=FileFormat({file_format})):
    kept = many(2)
    child = os.fork()
    if child == 0:
        held = many(3)
        os.write(is_ready, b"x")
        sys.stdin.read()
        held += many(4)
        os._exit(0)
    os.read(ready, 1)
    directories = held_in()
print(child, *directories, found("x.tide"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    program = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdin is not None and program.stdout is not None
    child, directory, found = program.stdout.readline().split()
    assert program.wait() == -signal.SIGKILL and found == "2"
    (pid,) = writers(tmp_path / "x.tide")
    writer = Ended(pid)
    program.stdin.close()
    writer.wait()
    program.stdout.close()
    assert not Path(directory).exists()
    assert leaked(tmp_path / f"x.tide.{child}") == 7


@needs_pidfd
@parametrized
def test_a_program_that_becomes_another_one(tmp_path: Path, file_format: FileFormat) -> None:
    script = tmp_path / "piece.py"
    script.write_text(
        BUFFERED
        + f"""
t = tracker("x.tide", file_format=FileFormat({file_format}))
t.__enter__()
kept = many(9)
print(*held_in(), flush=True)
os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read()"])
"""
    )
    program = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    directory = Path(program.stdout.readline().strip())
    # The other program runs on.
    finish(tmp_path / "x.tide")
    assert program.poll() is None
    assert not directory.exists()
    assert leaked(tmp_path / "x.tide") == 9
    program.communicate()


def test_a_program_that_closes_what_it_does_not_know(in_process: Piece) -> None:
    printed = in_process(
        BUFFERED
        + """
t = tracker("x.tide")
with t:
    kept = many(5)
    os.closerange(3, 256)
    taken = [os.open("piece.py", os.O_RDONLY) for _ in range(20)]
    kept += many(6)
unharmed = [os.read(one, 1) for one in taken] == [b"\\n"] * 20
del t
gc.collect()
print(unharmed, found("x.tide"))
"""
    )
    assert printed == "True 11\n"


def test_children_that_are_not_followed_leave_it_alone(in_process: Piece) -> None:
    printed = in_process(
        BUFFERED
        + """
with tracker("x.tide") as t:
    kept = many(2)
    for _ in range(5):
        child = os.fork()
        if child == 0:
            t.__exit__(None, None, None)
            del t
            gc.collect()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
    kept += many(3)
print(found("x.tide"), FileReader("x.tide").status)
"""
    )
    assert printed == "5 finished (tracking ended, the program still runs)\n"


@needs_pidfd
def test_trackers_that_are_not_used_leave_no_writer(in_process: Piece) -> None:
    printed = in_process(
        BUFFERED
        + """
import select
t = tracker("x.tide")
writer = next(int(n) for n in os.listdir("/proc") if n.isdigit() and n != str(os.getpid())
              and os.path.abspath("x.tide").encode() in open(f"/proc/{n}/cmdline", "rb").read())
writer = os.pidfd_open(writer)
del t
gc.collect()
print(len(select.select([writer], [], [], 60)[0]), FileReader("x.tide").status)
"""
    )
    assert printed.startswith("1 ")


def test_refusals_are_those_of_files(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("precious")
    with pytest.raises(OSError, match=f"Output file {there} already exists.*overwrite=True"):
        Tracker(destination=FileDestination(there, buffered=True))
    with pytest.raises(OSError, match=r"Could not create output file .*No such file or directory"):
        Tracker(destination=FileDestination(tmp_path / "no" / "such", buffered=True))
    with pytest.raises(OSError, match=r"is a directory"):
        Tracker(destination=FileDestination(tmp_path, overwrite=True, buffered=True))
    assert there.read_text() == "precious"
    assert os.listdir(tmp_path) == ["there"]


def test_a_program_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        return str(tmp_path / "nowhere")

    monkeypatch.setattr(heaptide._program, "find", nowhere)
    with pytest.raises(OSError, match=r"cannot start .*nowhere.*No such file"):
        Tracker(destination=FileDestination(tmp_path / "x", buffered=True))
    monkeypatch.setattr(heaptide._program, "find", lambda: "/bin/true")
    with pytest.raises(OSError, match=r"/bin/true"):
        Tracker(destination=FileDestination(tmp_path / "x", buffered=True))
    assert not list(tmp_path.iterdir())


def test_nothing_is_kept_of_a_null_device(in_process: Piece) -> None:
    printed = in_process(
        BUFFERED
        + """
with tracker("/dev/null"): kept = many(3)
print(os.listdir("."))
"""
    )
    assert printed == "['piece.py']\n"


@parametrized
def test_threads_that_allocate_all_the_time(in_process: Piece, file_format: FileFormat) -> None:
    printed = in_process(
        BUFFERED
        + f"""
stop = False
def work():
    while not stop: many(5)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for i in range(25):
    with tracker("x.tide", overwrite=True, file_format=FileFormat({file_format})):
        kept = many(50)
    reader = FileReader("x.tide")
    assert found("x.tide") >= 50 and not reader.warnings, (i, reader.warnings)
stop = True
for thread in threads: thread.join()
print("done")
"""
    )
    assert printed == "done\n"
