"""Requests that are the same in every run: nothing depends on an address, a time or a random number."""
import gc

gc.disable()
kept = []


class Node:
    def __init__(self, size):
        self.size, self.data = size, bytes(size)


def fill(depth):
    row = [Node(size) for size in range(0, 700, 3)]
    row.append(["%d" % n * n for n in range(200)])
    row.append({str(n): [n] * n for n in range(100)})
    text = bytearray()
    for n in range(1500):
        text += b"x" * (n % 40)
    row.append(bytes(text))
    kept.append(row[depth::9])
    if depth:
        fill(depth - 1)


def measured():
    fill(6)
    peak = bytes(1 << 28)
    del peak
    fill(3)
    del kept[::2]


measured()
