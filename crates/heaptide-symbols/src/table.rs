//! Symbol tables: names by address, without lines.

use object::{Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, SectionIndex, SymbolIndex};
use object::{SectionFlags, SymbolKind};

use crate::elf_file::ElfFile;

/// How many symbols before an address are looked at for one that reaches it.
const MOST_OVERLAPS: usize = 32;

/// Which of the two tables of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// `.symtab`: all functions.
    Full,
    /// `.dynsym`: those that other modules can see.
    Dynamic,
}

/// The functions of a file, in the order of their addresses. Names stay in the file.
pub(crate) struct SymbolTable {
    /// Those whose size is known.
    sized: Vec<Entry>,
    /// Those of assembler without a size, each up to the next symbol: asked last, for labels are inside functions.
    labels: Vec<Entry>,
    which: Which,
}

struct Entry {
    address: u64,
    end: u64,
    symbol: u32,
}

struct Candidate {
    address: u64,
    size: u64,
    section: SectionIndex,
    /// Less is better, among names of one address.
    rank: u8,
    symbol: u32,
}

impl SymbolTable {
    pub(crate) fn new(file: &ElfFile, which: Which) -> Self {
        let (sized, labels) = file
            .parse()
            .map(|object| entries(&object, which))
            .unwrap_or_default();
        Self {
            sized,
            labels,
            which,
        }
    }

    /// Where the function begins that `address` is in.
    pub(crate) fn start_of(&self, address: u64) -> Option<u64> {
        find(&self.sized, address).map(|entry| entry.address)
    }

    /// The raw name of the function that `address` is in.
    pub(crate) fn find(&self, file: &ElfFile, address: u64) -> Option<String> {
        let entry = find(&self.sized, address).or_else(|| find(&self.labels, address))?;
        let object = file.parse().ok()?;
        let index = SymbolIndex(entry.symbol as usize);
        let symbol = match self.which {
            Which::Full => object.symbol_table()?.symbol_by_index(index),
            Which::Dynamic => object.dynamic_symbol_table()?.symbol_by_index(index),
        };
        let name = symbol.ok()?.name_bytes().ok()?;
        let name = String::from_utf8_lossy(name);
        (!name.is_empty()).then(|| name.into_owned())
    }
}

/// Where the first function of a table begins that has a wanted name.
pub(crate) fn address_of(
    file: &ElfFile,
    which: Which,
    wanted: impl Fn(&[u8]) -> bool,
) -> Option<u64> {
    let object = file.parse().ok()?;
    let is_wanted = |symbol: &object::Symbol<'_, '_>| {
        symbol.kind() == SymbolKind::Text
            && !symbol.is_undefined()
            && symbol.name_bytes().is_ok_and(&wanted)
    };
    let found = match which {
        Which::Full => object.symbols().find(is_wanted),
        Which::Dynamic => object.dynamic_symbols().find(is_wanted),
    };
    found.map(|symbol| symbol.address())
}

fn find(entries: &[Entry], address: u64) -> Option<&Entry> {
    let after = entries.partition_point(|entry| entry.address <= address);
    // The innermost, should one function be inside another.
    let before = entries[..after].iter().rev().take(MOST_OVERLAPS);
    before.into_iter().find(|entry| address < entry.end)
}

fn entries(object: &object::File<'_>, which: Which) -> (Vec<Entry>, Vec<Entry>) {
    let mut candidates: Vec<Candidate> = match which {
        Which::Full => object
            .symbols()
            .filter_map(|symbol| candidate(object, &symbol))
            .collect(),
        Which::Dynamic => object
            .dynamic_symbols()
            .filter_map(|symbol| candidate(object, &symbol))
            .collect(),
    };
    candidates.sort_unstable_by_key(|candidate| {
        let unsized_last = candidate.size == 0;
        (
            candidate.address,
            unsized_last,
            candidate.rank,
            candidate.symbol,
        )
    });
    candidates.dedup_by_key(|candidate| candidate.address);
    let (mut sized, mut labels) = (Vec::new(), Vec::new());
    for (index, candidate) in candidates.iter().enumerate() {
        let address = candidate.address;
        let symbol = candidate.symbol;
        if candidate.size != 0 {
            let end = address.saturating_add(candidate.size);
            sized.push(Entry {
                address,
                end,
                symbol,
            });
            continue;
        }
        let section_end = object
            .section_by_index(candidate.section)
            .map_or(0, |section| {
                section.address().saturating_add(section.size())
            });
        let next = candidates.get(index + 1);
        let end = next.map_or(section_end, |next| next.address.min(section_end));
        labels.push(Entry {
            address,
            end,
            symbol,
        });
    }
    (sized, labels)
}

fn candidate<'data>(
    object: &object::File<'data>,
    symbol: &impl ObjectSymbol<'data>,
) -> Option<Candidate> {
    if symbol.is_undefined() {
        return None;
    }
    let section = symbol.section_index()?;
    match symbol.kind() {
        SymbolKind::Text => {}
        // A label in code, without a type. Names of sections and files are of other kinds.
        SymbolKind::Unknown | SymbolKind::Label => {
            let section = object.section_by_index(section).ok()?;
            // By its flag: in debug files the section has no contents, and is of another kind.
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
                return None;
            };
            if sh_flags.0 & object::elf::SHF_EXECINSTR.0 == 0 {
                return None;
            }
        }
        _ => return None,
    }
    let rank = match (symbol.kind(), symbol.is_global(), symbol.is_weak()) {
        (SymbolKind::Text, true, false) => 0,
        (SymbolKind::Text, true, true) => 1,
        (SymbolKind::Text, ..) => 2,
        _ => 3,
    };
    Some(Candidate {
        address: symbol.address(),
        size: symbol.size(),
        section,
        rank,
        symbol: u32::try_from(symbol.index().0).ok()?,
    })
}
