"""A recursion in which every call allocates: hundreds of thousands of distinct stacks, more than the budget."""
import sys

import bare

malloc, free = bare.malloc, bare.free


def left(n):
    free(malloc(1000))
    return n if n < 2 else left(n - 1) + right(n - 2)


def right(n):
    free(malloc(1000))
    return n if n < 2 else left(n - 1) + right(n - 2)


left(int(sys.argv[1]))
