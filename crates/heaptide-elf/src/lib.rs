//! Loaded ELF objects and the slots through which they call other objects.
//!
//! What it is: a walk over the objects the loader has mapped, and the replacement of the GOT words
//! (`JUMP_SLOT`, `GLOB_DAT` and absolute data relocations) that hold the address of a given
//! function, and back again. It reads the program headers and dynamic sections in memory; it opens
//! no file, allocates nothing and resolves no symbol.
//!
//! What the caller owes: no call from inside an allocation hook (the walk takes the loader's lock),
//! and replacements that stay valid for the life of the process, because other threads may read a
//! slot at any moment and keep what they read.
//!
//! Not covered: objects in other `dlmopen` namespaces, function pointers the program copied before
//! the patch, calls that do not go through a slot (static linking, `-fno-plt` inlining by LTO within one object).
#![no_std]

mod arch;
mod dynamic;
mod object;
mod patch;

pub use dynamic::{defines, symbol_bytes};
pub use object::{Object, for_each_object};
pub use patch::{Counts, Hook, imports, patch, restore};
