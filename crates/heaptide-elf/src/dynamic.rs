//! The dynamic section: where relocations, symbols and names are.

use crate::object::{Object, for_each_object};

const DT_PLTRELSZ: i64 = 2;
const DT_HASH: i64 = 4;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_STRSZ: i64 = 10;
const DT_PLTREL: i64 = 20;
const DT_JMPREL: i64 = 23;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
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
    /// The tables by which the loader finds symbols; null where there is none.
    hash: *const u32,
    gnu_hash: *const u32,
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
        let (mut hash, mut gnu_hash) = (0u64, 0u64);
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
                    DT_HASH => hash = value,
                    DT_GNU_HASH => gnu_hash = value,
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
        let words = |start: u64| -> *const u32 {
            let start = address(start);
            if object.contains(start) {
                start as *const u32
            } else {
                core::ptr::null()
            }
        };
        Some(Self {
            symbols: symbols as *const libc::Elf64_Sym,
            // SAFETY: DT_STRTAB and DT_STRSZ describe the loaded string table.
            names: unsafe { core::slice::from_raw_parts(names as *const u8, names_size as usize) },
            data: table(data, data_size),
            plt: table(plt, plt_size),
            hash: words(hash),
            gnu_hash: words(gnu_hash),
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

    /// How many symbols there are. The table has no length of its own, and nothing has to follow it: tools that repair
    /// wheels move the string table elsewhere. The loader's tables know; where there are none, nobody can find a symbol.
    fn symbol_count(&self) -> usize {
        if !self.hash.is_null() {
            // SAFETY: the table begins with the number of its buckets and that of the symbols.
            return unsafe { *self.hash.add(1) } as usize;
        }
        if self.gnu_hash.is_null() {
            return 0;
        }
        // SAFETY: the loader finds symbols by this table, so it is as it should be: four words, a filter of as many
        // double words as the third says, a word for each bucket, and a word for each symbol from the second word's
        // number on. The last symbol of a bucket has an odd word.
        unsafe {
            let table = self.gnu_hash;
            let [buckets, first, filter] = [0, 1, 2].map(|index| *table.add(index) as usize);
            let heads = table.add(4 + filter * 2);
            let chains = heads.add(buckets);
            let last = (0..buckets).map(|bucket| *heads.add(bucket) as usize).max();
            let Some(mut last) = last.filter(|&last| last >= first) else {
                return first;
            };
            while *chains.add(last - first) & 1 == 0 {
                last += 1;
            }
            last + 1
        }
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
            // SAFETY: the symbol is one of those that there are.
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

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[u8] = b"\0free\0malloc\0";
    const WORDS: usize = 128;

    /// An object that defines `free` and needs `malloc`. Its string table lies before its symbols, as in libraries
    /// that went through `patchelf`; `hash_tag` says which table the loader finds symbols by.
    fn lay_out(image: &mut [u64; WORDS], hash_tag: i64) {
        let base = image.as_ptr() as u64;
        for (index, &byte) in NAMES.iter().enumerate() {
            image[index / 8] |= u64::from(byte) << (index % 8 * 8);
        }
        // Symbols of three words each: none, `malloc` (of no section), `free`.
        image[32 + 3] = 6;
        image[32 + 6] = 1 | 1 << 48;
        image[32 + 7] = 0x1234;
        image[32 + 8] = 40;
        let words: &[u32] = match hash_tag {
            // One bucket, the first symbol that can be found, a filter of one, the filter, the bucket, the chain.
            DT_GNU_HASH => &[1, 2, 1, 0, 0, 0, 2, 0x7c96_bd11],
            // One bucket, three symbols.
            _ => &[1, 3, 2, 0, 0, 0, 0, 0],
        };
        for (index, pair) in words.chunks(2).enumerate() {
            image[64 + index] = u64::from(pair[0]) | u64::from(pair[1]) << 32;
        }
        let dynamic = [
            (DT_STRTAB, base),
            (DT_STRSZ, NAMES.len() as u64),
            (DT_SYMTAB, base + 32 * 8),
            (hash_tag, base + 64 * 8),
        ];
        for (index, (tag, value)) in dynamic.into_iter().enumerate() {
            image[96 + index * 2] = tag as u64;
            image[97 + index * 2] = value;
        }
    }

    fn check(hash_tag: i64, found: bool) {
        let mut image = [0; WORDS];
        lay_out(&mut image, hash_tag);
        let header = |p_type, start: usize, words: usize| libc::Elf64_Phdr {
            p_type,
            p_flags: libc::PF_R,
            p_offset: 0,
            p_vaddr: start as u64 * 8,
            p_paddr: 0,
            p_filesz: words as u64 * 8,
            p_memsz: words as u64 * 8,
            p_align: 8,
        };
        let headers = [
            header(libc::PT_LOAD, 0, WORDS),
            header(libc::PT_DYNAMIC, 96, 32),
        ];
        let object = Object {
            name: b"",
            base: image.as_ptr() as usize,
            headers: &headers,
            loads: 1,
            unloads: 0,
        };
        assert_eq!(defines(&object, b"free"), found);
        assert!(!defines(&object, b"malloc"));
        assert!(!defines(&object, b"fre"));
        let dynamic = Dynamic::of(&object).unwrap();
        let bytes = if found { 40 } else { 0 };
        assert_eq!(dynamic.defined_bytes(0x1234, b"free"), bytes);
    }

    #[test]
    fn symbols_are_found_wherever_the_names_are() {
        check(DT_GNU_HASH, true);
        check(DT_HASH, true);
        // Without either table the loader finds none.
        check(DT_PLTREL + 1, false);
    }
}
