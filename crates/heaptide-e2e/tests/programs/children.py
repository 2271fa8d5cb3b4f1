"""Children of every kind: they allocate much, and none of it is the parent's."""
import concurrent.futures
import multiprocessing
import os
import subprocess
import sys

import bare
import known
from known import expect, h

M = "MALLOC"


def burden(number=0):
    blocks = [bare.malloc(91001) for _ in range(500)]
    for block in blocks[:100]:
        bare.free(block)
    return len(blocks)


def main():
    known.program(__file__)
    before = h.malloc(90001)  # ALLOC:before
    mine = known.blocks(100)
    h.many(100, 90003, mine)  # ALLOC:mine
    for _ in range(5):
        child = os.fork()
        if child == 0:
            h.free(before)
            h.free_many(100, mine)
            burden()
            os._exit(17)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    # A child of a child, and one that leaves as a Python program does
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        burden()
        if grandchild:
            os.waitpid(grandchild, 0)
            sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    child = os.fork()
    if child == 0:
        burden()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert h.fork(1000, 91003) == 0
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            assert pool.map(burden, range(4)) == [500] * 4
        process = context.Process(target=burden)
        process.start()
        process.join()
        assert process.exitcode == 0
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        assert list(executor.map(burden, range(3))) == [500] * 3
    code = "import sys, bare; [bare.malloc(91005) for _ in range(100)]; print('child', sorted(sys.modules)[:1])"
    output = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    assert output.startswith(b"child"), output
    assert os.system("true") == 0
    with os.popen("echo from a shell; env | grep -c -e HEAPTIDE -e LD_PRELOAD") as pipe:
        assert pipe.read() == "from a shell\n0\n"
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    assert os.waitpid(pid, 0)[1] == 0
    h.free_many(40, mine)
    h.malloc(90005)  # ALLOC:after
    expect("main@before < <module>@main", M, size=90001, made=1, live=1, peak=1)
    expect("main@mine < <module>@main", M, size=90003, made=100, live=60, peak=60)
    expect("main@after < <module>@main", M, size=90005, made=1, live=1, peak=1)
    h.free(h.malloc(known.TIDE))  # ALLOC:tide
    known.tide("main@tide < <module>@main")
    known.finish()


if __name__ == "__main__":
    main()  # ALLOC:main
