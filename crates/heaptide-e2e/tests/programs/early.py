"""Threads, blocks and a library from before tracking started (see sitecustomize.py)."""
import ctypes
import os
import threading

go, done = threading.Event(), threading.Event()
foreign_go = threading.Event()
ids = {}
early_block = None
library = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "helper.so"))
library.ht_malloc.restype = ctypes.c_void_p
library.ht_malloc.argtypes = [ctypes.c_size_t]
library.ht_free.argtypes = [ctypes.c_void_p]
work = None


def before_tracking():
    ids["early"] = threading.get_native_id()
    go.wait()
    work()  # ALLOC:early_thread
    done.set()


def start():
    global early_block
    early_block = library.ht_malloc(83001)
    threading.Thread(target=before_tracking, name="early", daemon=True).start()
