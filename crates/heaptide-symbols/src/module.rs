//! One module: what is known of it, and the answers it gave.

use std::path::Path;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::debug_info::{DebugInfo, Frame};
use crate::demangle::demangle;
use crate::elf_file::ElfFile;
use crate::parts::function_of_part;
use crate::problem::Problem;
use crate::separate::{alternate_file, debug_file};
use crate::table::{SymbolTable, Which, address_of};
use crate::{Symbol, UNKNOWN_FUNCTION};

pub(crate) struct Module {
    pub(crate) wanted_build_id: Option<Vec<u8>>,
    pub(crate) problems: Vec<Problem>,
    sources: Option<Sources>,
    answers: FxHashMap<u64, Box<[Symbol]>>,
}

/// What answers are made from.
struct Sources {
    /// Of the module itself, or of its debug file.
    debug_info: Option<DebugInfo>,
    said_broken: bool,
    /// The best first.
    tables: Vec<LazyTable>,
}

/// A symbol table that is read when it is first needed.
struct LazyTable {
    file: Arc<ElfFile>,
    which: Which,
    table: Option<SymbolTable>,
}

impl Module {
    pub(crate) fn open(path: &Path, build_id: Option<&[u8]>, debug_directory: &Path) -> Self {
        let mut problems = Vec::new();
        let opened = ElfFile::open(path).and_then(|file| {
            if let Some(wanted) = build_id {
                file.expect_build_id(wanted)?;
            }
            Ok(file)
        });
        let sources = match opened {
            Ok(file) => Some(Sources::new(file, debug_directory, &mut problems)),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        Self {
            wanted_build_id: build_id.map(<[u8]>::to_owned),
            problems,
            sources,
            answers: FxHashMap::default(),
        }
    }

    pub(crate) fn resolve(&mut self, address: u64) -> &[Symbol] {
        let Some(sources) = &mut self.sources else {
            return &[];
        };
        self.answers.entry(address).or_insert_with(|| {
            let symbols = sources.find(address, &mut self.problems);
            symbols.into_boxed_slice()
        })
    }
}

impl Module {
    /// Where the first function begins that has a wanted name.
    pub(crate) fn address_of(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<u64> {
        let tables = self.sources.iter().flat_map(|sources| &sources.tables);
        tables
            .filter_map(|lazy| address_of(&lazy.file, lazy.which, &wanted))
            .next()
    }
}

impl Sources {
    fn new(module: ElfFile, debug_directory: &Path, problems: &mut Vec<Problem>) -> Self {
        let separate = if module.has_debug_info() {
            None
        } else {
            debug_file(&module, debug_directory, problems).map(Arc::new)
        };
        let module = Arc::new(module);
        let debug_file = separate.as_ref().unwrap_or(&module);
        let debug_info = debug_file
            .has_debug_info()
            .then(|| {
                let alternate = alternate_file(debug_file, debug_directory, problems);
                DebugInfo::new(Arc::clone(debug_file), alternate)
                    .map_err(|problem| problems.push(problem))
                    .ok()
            })
            .flatten();
        let full = [Some(&module), separate.as_ref()].into_iter().flatten();
        let tables = full
            .map(|file| (file, Which::Full))
            .chain([(&module, Which::Dynamic)])
            .map(|(file, which)| LazyTable {
                file: Arc::clone(file),
                which,
                table: None,
            })
            .collect();
        Self {
            debug_info,
            said_broken: false,
            tables,
        }
    }

    fn find(&mut self, address: u64, problems: &mut Vec<Problem>) -> Vec<Symbol> {
        let mut frames = Vec::new();
        if let Some(debug_info) = &self.debug_info {
            match debug_info.find(address) {
                Ok(found) => frames = found,
                // Said once; other units may be in order.
                Err(problem) if !self.said_broken => {
                    problems.push(problem);
                    self.said_broken = true;
                }
                Err(_) => {}
            }
        }
        if frames.is_empty() {
            let named = self.name(address).map(|function| Symbol {
                function,
                file: None,
                line: 0,
            });
            return named.into_iter().collect();
        }
        // Code without a function in DWARF, as of assembler: the symbol is the function that all is inlined into.
        let outermost = frames.len() - 1;
        if frames[outermost].function.is_none() {
            frames[outermost].function = self.name(address);
        }
        frames.into_iter().map(symbol).collect()
    }

    /// From the symbol tables, demangled.
    fn name(&mut self, address: u64) -> Option<String> {
        let whole = self.raw_name(address);
        let name = whole.or_else(|| self.name_of_part(address));
        name.map(|name| demangle(&name))
    }

    fn raw_name(&mut self, address: u64) -> Option<String> {
        let mut names = self.tables.iter_mut().filter_map(|lazy| {
            let new = || SymbolTable::new(&lazy.file, lazy.which);
            lazy.table.get_or_insert_with(new).find(&lazy.file, address)
        });
        names.next()
    }

    /// As compilers call it in `.symtab`.
    fn name_of_part(&mut self, address: u64) -> Option<String> {
        // What is not in the module itself is not there to be looked through.
        let module = self
            .tables
            .iter()
            .rfind(|lazy| lazy.which == Which::Dynamic);
        let file = Arc::clone(&module?.file);
        let tables: Vec<&SymbolTable> = self
            .tables
            .iter()
            .filter_map(|lazy| lazy.table.as_ref())
            .collect();
        let around = |address| tables.iter().find_map(|table| table.start_of(address));
        let function = function_of_part(&file, address, around)?;
        self.raw_name(function).map(|name| name + ".cold")
    }
}

fn symbol(frame: Frame) -> Symbol {
    Symbol {
        function: frame
            .function
            .unwrap_or_else(|| UNKNOWN_FUNCTION.to_owned()),
        file: frame.file,
        line: frame.line,
    }
}
