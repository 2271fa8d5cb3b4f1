"""A loop that allocates at the bottom of a stack 100 frames deep; the stack itself stands still.
SIZE = number of 600-byte blocks."""
from _harness import run

DEPTH = 100


def churn(count):
    total = 0
    for i in range(count):
        total += len(bytes(600 + (i & 7)))
    return total


def descend(level, count):
    if level == 0:
        return churn(count)
    return descend(level - 1, count)


def body(size):
    return descend(DEPTH, size)


if __name__ == "__main__":
    run(body, 3_000_000)
