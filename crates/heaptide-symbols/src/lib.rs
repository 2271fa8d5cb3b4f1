//! Names, files and lines of native instructions, found offline in the ELF files that were loaded.
//!
//! A report has instruction pointers, a program's list of modules says which file each of them is in and at which
//! link-time address. [`Symbolizer::resolve`] does the rest, from the first of these that knows the address:
//!
//! 1. DWARF of the module itself, sections compressed or not: the function and what was inlined into it.
//! 2. DWARF of its separate debug file, by build-id (`/usr/lib/debug/.build-id`) or by `.gnu_debuglink`, together with
//!    the file of `.gnu_debugaltlink`.
//! 3. The symbol tables: `.symtab` of the module, of the debug file, then `.dynsym`. They give a name and no line.
//!
//! Split DWARF (`.dwo`, `.dwp`) is not followed: its skeleton gives file and line, the symbol table the name.
//!
//! # Addresses of callers
//! An instruction pointer on a stack is where the call *returns to*, which may be another line, another inlined
//! function or, after a call that never returns, another function. Whoever has a stack asks for the address minus one,
//! for each frame but one that was interrupted there.
//!
//! Memray subtracts that one when it records, from every frame, and its reader looks up what was recorded as it is.
//! So the `ip` of its captures is asked for unchanged.
//!
//! # Beside Memray's reader
//! A test of `heaptide-e2e` compares each frame. They differ in this:
//! - Files have their whole path here; Memray leaves out the directory of the compilation if the path is relative to it.
//! - For some functions Memray knows the name only, and we have file and line.
//! - `cpp_demangle` takes the first parameter of a constructor that is a template for its result and does not show it,
//!   and it drops the `&&` of parameters that come from a pack (`Args&&...`).
//! - What nothing is known of is no frame here and one of `<unknown>`, line 0, in Memray; so is a file that is not known.
//!
//! Either gives functions that other files cannot see (`static`) in C++ without namespace and parameters if it has
//! them from DWARF, where they have no linkage name.
//!
//! # Cost
//! Files are mapped, not read: of a library with gigabytes of DWARF only the headers of its units are looked at, then
//! the units that are asked for. Sections that are compressed must be unpacked whole. Answers are kept.
//!
//! # Trust
//! Any bytes give an answer or a [`Problem`]. Memory is bounded by a multiple of the file's size. What a hostile file
//! can do is waste time, and lie.

mod debug_info;
mod demangle;
mod elf_file;
mod module;
mod nesting;
mod parts;
mod problem;
mod separate;
mod table;

use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use module::Module;
pub use problem::Problem;

/// A function that an address is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Symbol {
    /// Its name, demangled; `<unknown>` if only the line is known.
    pub function: String,
    /// The source file, as the compiler was told.
    pub file: Option<String>,
    /// The line in it, from 1; 0 is unknown.
    pub line: u32,
}

/// Name of a function whose line is known and whose name is not.
pub const UNKNOWN_FUNCTION: &str = "<unknown>";

/// Where Linux distributions install debug files.
const DEBUG_DIRECTORY: &str = "/usr/lib/debug";

/// Resolves addresses. Keeps each module that it has opened, and each answer.
pub struct Symbolizer {
    /// Of each path one for every build-id that was asked for.
    modules: FxHashMap<PathBuf, Vec<Module>>,
    debug_directory: PathBuf,
}

impl Default for Symbolizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbolizer {
    /// Looks for separate debug files in `/usr/lib/debug`.
    pub fn new() -> Self {
        Self::with_debug_directory(DEBUG_DIRECTORY)
    }

    /// Looks for separate debug files in `directory` instead of `/usr/lib/debug`.
    pub fn with_debug_directory(directory: impl Into<PathBuf>) -> Self {
        Self {
            modules: FxHashMap::default(),
            debug_directory: directory.into(),
        }
    }

    /// The functions that `address` is in, a link-time virtual address of the ELF file `module`: the innermost
    /// inlined one first. Empty when nothing is known.
    ///
    /// With a `build_id`, a file that has another one, or none, is as good as missing: [`Self::problems`] says so.
    pub fn resolve(&mut self, module: &Path, build_id: Option<&[u8]>, address: u64) -> &[Symbol] {
        if !self.modules.contains_key(module) {
            self.modules.insert(module.to_owned(), Vec::new());
        }
        let Some(modules) = self.modules.get_mut(module) else {
            return &[];
        };
        let known = modules
            .iter()
            .position(|known| known.wanted_build_id.as_deref() == build_id);
        let index = known.unwrap_or_else(|| {
            modules.push(Module::open(module, build_id, &self.debug_directory));
            modules.len() - 1
        });
        modules[index].resolve(address)
    }

    /// What is known of the first function in the symbol tables of `module` whose raw name is `wanted`: as
    /// [`Self::resolve`] of where it begins. Empty when there is none.
    pub fn resolve_named(&mut self, module: &Path, wanted: impl Fn(&[u8]) -> bool) -> &[Symbol] {
        let opened = Module::open(module, None, &self.debug_directory);
        let Some(address) = opened.address_of(wanted) else {
            return &[];
        };
        self.resolve(module, None, address)
    }

    /// What was wrong with the modules that were asked for, by the path of the module.
    pub fn problems(&self) -> impl Iterator<Item = (&Path, &Problem)> {
        self.modules.iter().flat_map(|(path, modules)| {
            let problems = modules.iter().flat_map(|module| &module.problems);
            problems.map(move |problem| (path.as_path(), problem))
        })
    }
}
