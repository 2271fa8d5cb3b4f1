"""Leaks until the memory is gone; the helper counts what was completed."""
import sys

import bare

page = bare.page(sys.argv[1].encode())


def serve(request):
    bare.leak(page, 0, 65536)  # leak


request = 0
while True:
    serve(request)  # serve
    request += 1
