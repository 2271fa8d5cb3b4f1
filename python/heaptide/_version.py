"""The version of the package."""

from heaptide._heaptide import __version__

__all__ = ["__version__"]
