"""Reports on records that a program has chosen, with the names of Memray's."""
