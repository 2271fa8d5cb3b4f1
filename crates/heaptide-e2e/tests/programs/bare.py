"""The helper without the ledger, for programs that must start quickly or die."""
import ctypes
import os

library = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "helper.so"))


def function(name, result, *arguments):
    pointer = getattr(library, "ht_" + name)
    pointer.restype, pointer.argtypes = result, arguments
    return pointer


P, Z, I, U = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_uint64
malloc, free = function("malloc", P, Z), function("free", None, P)
churn = function("churn", None, Z, Z)
many = function("many", None, Z, Z, P)
page = function("page", P, ctypes.c_char_p)
storm, start_storm = function("storm", U, P, I, U, U), function("start_storm", I, P, I, U, U)
leak = function("leak", None, P, I, Z)
