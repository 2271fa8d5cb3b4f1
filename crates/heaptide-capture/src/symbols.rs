//! What native frames are called.

use std::collections::HashMap;

/// A function that an address is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeSymbol {
    /// Its name.
    pub function: String,
    /// The file of its source, or `<unknown>`.
    pub file: String,
    /// The line in it, zero when it is not known.
    pub line: i32,
}

/// The functions of native frames, by module and address as native nodes have them.
#[derive(Debug, Default)]
pub struct Symbols(HashMap<(u32, u64), Vec<NativeSymbol>>);

impl Symbols {
    /// Whether somebody has looked the address up, whatever came of it.
    #[must_use]
    pub fn is_known(&self, module: u32, address: u64) -> bool {
        self.0.contains_key(&(module, address))
    }

    /// Says what is at an address: the function, after those that were inlined into it, the innermost one first.
    pub fn insert(&mut self, module: u32, address: u64, functions: Vec<NativeSymbol>) {
        self.0.insert((module, address), functions);
    }

    /// The functions that a frame stands for, the innermost first; none where nothing is known.
    #[must_use]
    pub fn at(&self, module: u32, address: u64) -> &[NativeSymbol] {
        self.0.get(&(module, address)).map_or(&[], Vec::as_slice)
    }
}
