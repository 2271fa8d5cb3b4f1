"""A server that forks four workers before it serves. Each worker fills its caches with so many MiB: half in large blocks, half
in small objects, all of it touched; for a moment all caches are full. Prints what the workers asked for."""
import os
import sys
import time

SHARE = int(sys.argv[1]) << 20
SMALL = 400
WORKERS = 4
ready_reader, ready_writer = os.pipe()
done_reader, done_writer = os.pipe()


def serve(number):
    # Some hold more than others
    share = SHARE * (number + 2) // 4
    large = [bytearray(b"x") * (1 << 16) for _ in range(share // 2 >> 16)]
    small = [b"%*d" % (SMALL, n) for n in range(share // 2 // (SMALL + 33 + 8))]
    os.write(ready_writer, b"%12d" % (sum(map(len, large)) + sum(map(len, small))))
    os.read(done_reader, 1)


workers = []
for number in range(WORKERS):
    pid = os.fork()
    if pid == 0:
        serve(number)
        os._exit(0)
    workers.append(pid)
asked = sum(int(os.read(ready_reader, 12)) for _ in workers)
# Long enough for samples of every process, on a machine that is busy as well
time.sleep(1)
os.write(done_writer, b"x" * WORKERS)
for pid in workers:
    assert os.waitpid(pid, 0)[1] == 0
print(asked)
