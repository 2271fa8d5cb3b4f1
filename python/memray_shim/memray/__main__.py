"""``python -m memray``: the ``heaptide`` program."""

from heaptide.__main__ import main

if __name__ == "__main__":
    main()
