"""A program that forbids itself system calls (EPERM), and then makes more stacks than a small capture has room for.

Ends with 77 where that cannot be had."""
import ctypes
import os
import struct
import sys

NUMBERS = {
    "x86_64": {"fallocate": 285, "pwrite64": 18},
    "aarch64": {"fallocate": 47, "pwrite64": 68},
}
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1


def forbid(calls):
    numbers = NUMBERS.get(os.uname().machine)
    if numbers is None:
        return False
    steps = [(LOAD, 0, 0, 0)]
    for call in calls:
        steps += [(JUMP_IF_EQUAL, 0, 1, numbers[call]), (RETURN, 0, 0, REFUSE)]
    steps.append((RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) == 0


if not forbid(sys.argv[2:]):
    sys.exit(77)
import fib_stacks  # noqa: E402,F401
