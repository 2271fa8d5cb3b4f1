"""Allocates in native code: of the interpreter, of its extensions, and of the C++ library that is the argument."""
import ctypes
import json
import re
import sqlite3
import sys
import zlib

library = ctypes.CDLL(sys.argv[1])
library.work(5)
held = [json.loads(json.dumps({"numbers": [number] * 10})) for number in range(200)]
held.append(re.findall(r"(\w+)-(\d+)", "abc-123 " * 500))
held.append(zlib.decompress(zlib.compress(b"abc" * 100_000)))
database = sqlite3.connect(":memory:")
database.execute("create table numbers (number, text)")
database.executemany("insert into numbers values (?, ?)", ((number, str(number)) for number in range(3000)))
held.append(database.execute("select * from numbers order by text").fetchall())
