"""Programs of many processes. Each process allocates a known number of blocks of a known size, and the
program prints a line for each: pid, kind, blocks."""
import os
import signal
import subprocess
import sys
import threading
import time

import bare

SIZE = 91001
WAYS = ("return", "sys.exit", "_exit", "SIGKILL", "abort", "SIGTERM", "exec")
CODE = "import sys, processes; processes.burden(int(sys.argv[1])); processes.end(sys.argv[2])"


def burden(count):
    for _ in range(count):
        bare.malloc(SIZE)


def say(pid, kind, count):
    os.write(1, b"%d %s %d\n" % (pid, kind.encode(), count))


def end(way):
    if way == "sys.exit":
        sys.exit(3)
    if way == "_exit":
        os._exit(7)
    if way == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
    if way == "abort":
        os.abort()
    if way == "exec":
        os.execv("/bin/true", ["true"])


def fork(count, way):
    pid = os.fork()
    if pid == 0:
        burden(count)
        end(way)
        sys.exit(0)
    say(pid, way, count)
    return pid


def started(count, way):
    child = subprocess.Popen([sys.executable, "-c", CODE, str(count), way])
    say(child.pid, way, count)
    return child


def endings():
    """Every way to end, one child after the other."""
    for number, way in enumerate(WAYS):
        os.waitpid(fork(10 + number, way), 0)
    burden(5)


def nested():
    """A fork of a fork of a fork; blocks of the parent are freed in the child."""
    blocks = [bare.malloc(SIZE) for _ in range(20)]
    for depth in range(3):
        pid = os.fork()
        if pid:
            say(pid, "nested", depth + 1)
            os.waitpid(pid, 0)
            if depth:
                os._exit(0)
            break
        for block in blocks[:5]:
            bare.free(block)
        blocks = blocks[5:]
        burden(depth + 1)
    else:
        os._exit(0)


def threads():
    """Forks out of a storm of threads that allocate, load code and end."""
    stop = []

    def storm():
        while not stop:
            blocks = [bytearray(2000) for _ in range(50)]
            exec(compile("def f(): return bytearray(1000)\nf()", "<storm>", "exec"), {})
            thread = threading.Thread(target=len, args=(blocks,))
            thread.start()
            thread.join()

    storms = [threading.Thread(target=storm) for _ in range(4)]
    for thread in storms:
        thread.start()
    for number in range(60):
        pid = os.fork()
        if pid == 0:
            burden(number)
            thread = threading.Thread(target=burden, args=(1,))
            thread.start()
            thread.join()
            os._exit(0)
        say(pid, "_exit", number + 1)
        os.waitpid(pid, 0)
    stop.append(1)
    for thread in storms:
        thread.join()


def many():
    """200 children, forked and started, ten at a time, that end in every way."""
    ways = WAYS
    running = []
    for number in range(200):
        way = ways[number % len(ways)]
        running.append(fork(number, way) if number % 2 else started(number, way))
        if len(running) == 10:
            for child in running:
                os.waitpid(child, 0) if isinstance(child, int) else child.wait()
            running = []


def server():
    """Four workers that share a listening socket; each answers with its pid, and holds 7 blocks a request."""
    import collections
    import socket

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    workers = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            while True:
                connection, _ = listener.accept()
                burden(7)
                connection.sendall(b"%d" % os.getpid())
                connection.close()
        workers.append(pid)
    served = collections.Counter()
    for _ in range(200):
        with socket.create_connection(listener.getsockname()) as connection:
            served[int(connection.recv(64))] += 7
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] == 0
        say(pid, "sys.exit", served[pid])


def mixed(other):
    """Children that are other programs."""
    assert os.system("true") == 0
    subprocess.run(["sh", "-c", "ls / > /dev/null; true"], check=True)
    started(11, "_exit").wait()
    # Another interpreter, and one below a shell
    child = subprocess.Popen([other, "-c", CODE, "12", "sys.exit"])
    say(child.pid, "sys.exit", 12)
    child.wait()
    child = subprocess.Popen(["sh", "-c", '"$0" -c "$1" 13 return; true', sys.executable, CODE])
    child.wait()
    # Nothing is known of an environment that was cleared
    subprocess.run([sys.executable, "-c", "pass"], env={}, check=True)
    # The same process as another program
    pid = os.fork()
    if pid == 0:
        burden(3)
        os.execv(sys.executable, [sys.executable, "-c", CODE, "14", "SIGKILL"])
    say(pid, "SIGKILL", 3)
    os.waitpid(pid, 0)
    if hasattr(os, "posix_spawn"):
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", CODE, "15", "return"], os.environ)
        say(pid, "return", 15)
        os.waitpid(pid, 0)


def big(hold):
    blocks = [bare.malloc(1 << 20) for _ in range(64)]
    time.sleep(hold)
    for block in blocks:
        bare.free(block)


def curves():
    """Two workers hold 64 MiB each at the same time, then a third one does."""
    say(os.getpid(), "root", 0)
    for workers in (2, 1):
        pids = []
        for _ in range(workers):
            pid = os.fork()
            if pid == 0:
                big(0.5)
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)


def handler(library):
    """Forks in the handler of a signal; the child goes on where the parent was interrupted."""
    import ctypes

    bad = ctypes.CDLL(library).churn_and_fork()
    if bad == -1:
        block = bare.malloc(SIZE)
        bare.free(block)
        os._exit(0)
    assert bad == 0, bad


def pools():
    import concurrent.futures
    import multiprocessing

    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            pool.map(burden, [10] * 4, chunksize=1)
            pool.close()
            pool.join()
        process = context.Process(target=burden, args=(25,))
        process.start()
        process.join()
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        list(executor.map(burden, [5] * 4))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
