//! The dynamic section: where relocations, symbols and names are.

use crate::object::{Object, for_each_object};

const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_STRSZ: i64 = 10;
const DT_PLTREL: i64 = 20;
const DT_JMPREL: i64 = 23;
const TAG_RELA: u64 = 7;

#[repr(C)]
struct Entry {
    tag: i64,
    value: u64,
}

/// A relocation with an explicit addend.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Rela {
    pub(crate) offset: u64,
    info: u64,
    pub(crate) addend: i64,
}

impl Rela {
    pub(crate) fn kind(&self) -> u32 {
        self.info as u32
    }
    pub(crate) fn symbol(&self) -> usize {
        (self.info >> 32) as usize
    }
}

/// Addresses out of a dynamic section, in memory.
pub(crate) struct Dynamic<'a> {
    symbols: *const libc::Elf64_Sym,
    names: &'a [u8],
    data: &'a [Rela],
    plt: &'a [Rela],
}

impl<'a> Dynamic<'a> {
    /// Reads the dynamic section of `object`; `None` when it has none to speak of.
    pub(crate) fn of(object: &Object<'a>) -> Option<Self> {
        let header = object
            .headers
            .iter()
            .find(|header| header.p_type == libc::PT_DYNAMIC)?;
        let mut entry = object.base.wrapping_add(header.p_vaddr as usize) as *const Entry;
        let (mut symbols, mut names, mut names_size) = (0u64, 0u64, 0u64);
        let (mut data, mut data_size, mut plt, mut plt_size, mut plt_kind) =
            (0u64, 0u64, 0u64, 0u64, TAG_RELA);
        // SAFETY: the loader has accepted this section; it ends with a null tag.
        unsafe {
            while (*entry).tag != 0 {
                let value = (*entry).value;
                match (*entry).tag {
                    DT_SYMTAB => symbols = value,
                    DT_STRTAB => names = value,
                    DT_STRSZ => names_size = value,
                    DT_RELA => data = value,
                    DT_RELASZ => data_size = value,
                    DT_JMPREL => plt = value,
                    DT_PLTRELSZ => plt_size = value,
                    DT_PLTREL => plt_kind = value,
                    _ => {}
                }
                entry = entry.add(1);
            }
        }
        // The loader turns these into addresses in place on most systems; where the section is
        // read-only (or belongs to the kernel) they are still relative to the base.
        let address = |value: u64| {
            let value = value as usize;
            if value == 0 || value >= object.base {
                value
            } else {
                object.base + value
            }
        };
        let (symbols, names) = (address(symbols), address(names));
        if symbols == 0 || names == 0 || plt_kind != TAG_RELA {
            return None;
        }
        let table = |start: u64, size: u64| -> &'a [Rela] {
            let start = address(start);
            if start == 0 || size == 0 || !object.contains(start) {
                return &[];
            }
            // SAFETY: the loader has processed this table; it stays mapped as long as the object.
            unsafe {
                core::slice::from_raw_parts(start as *const Rela, size as usize / size_of::<Rela>())
            }
        };
        Some(Self {
            symbols: symbols as *const libc::Elf64_Sym,
            // SAFETY: DT_STRTAB and DT_STRSZ describe the loaded string table.
            names: unsafe { core::slice::from_raw_parts(names as *const u8, names_size as usize) },
            data: table(data, data_size),
            plt: table(plt, plt_size),
        })
    }

    pub(crate) fn relocations(&self) -> impl Iterator<Item = &'a Rela> + use<'a> {
        self.plt.iter().chain(self.data.iter())
    }

    /// Name of symbol `index`, without its NUL.
    pub(crate) fn name(&self, index: usize) -> &'a [u8] {
        // SAFETY: relocations that the loader has processed name existing symbols.
        let offset = unsafe { (*self.symbols.add(index)).st_name } as usize;
        let rest = self.names.get(offset..).unwrap_or(&[]);
        let end = rest
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(rest.len());
        &rest[..end]
    }

    /// First byte of the name, for a quick look.
    pub(crate) fn first_letter(&self, index: usize) -> u8 {
        // SAFETY: as in `name`.
        let offset = unsafe { (*self.symbols.add(index)).st_name } as usize;
        self.names.get(offset).copied().unwrap_or(0)
    }

    /// Does the object define symbol `index` itself?
    pub(crate) fn defines(&self, index: usize) -> bool {
        // SAFETY: as in `name`.
        unsafe { (*self.symbols.add(index)).st_shndx != 0 }
    }

    /// How many symbols there are. The table has no length of its own, but the string table follows it in every
    /// file that linkers make.
    fn symbol_count(&self) -> usize {
        let span = (self.names.as_ptr() as usize).saturating_sub(self.symbols as usize);
        span / size_of::<libc::Elf64_Sym>()
    }

    /// Does the object define a symbol of this name?
    fn defines_name(&self, name: &[u8]) -> bool {
        (0..self.symbol_count()).any(|index| {
            self.first_letter(index) == name.first().copied().unwrap_or(0)
                && self.defines(index)
                && self.name(index) == name
        })
    }

    /// Size of the symbol `name` defined at `value`.
    fn defined_bytes(&self, value: u64, name: &[u8]) -> usize {
        (0..self.symbol_count())
            // SAFETY: all of it lies between the start of the symbol table and that of the string table.
            .map(|index| (index, unsafe { &*self.symbols.add(index) }))
            .find(|(index, symbol)| symbol.st_value == value && self.name(*index) == name)
            .map_or(0, |(_, symbol)| symbol.st_size as usize)
    }
}

/// Does `object` define `name` for others? Looks at all of its symbols.
#[must_use]
pub fn defines(object: &Object<'_>, name: &[u8]) -> bool {
    Dynamic::of(object).is_some_and(|dynamic| dynamic.defines_name(name))
}

/// Size of the data object `name` at `address`, from the symbol table of the object that defines it;
/// 0 when there is none.
#[must_use]
pub fn symbol_bytes(address: usize, name: &[u8]) -> usize {
    let mut bytes = 0;
    for_each_object(|object| {
        if !object.contains(address) {
            return true;
        }
        if let Some(dynamic) = Dynamic::of(object) {
            bytes = dynamic.defined_bytes(address.wrapping_sub(object.base) as u64, name);
        }
        false
    });
    bytes
}
