//! The objects the loader has mapped.

use core::ffi::{CStr, c_int, c_void};

/// A loaded object, while [`for_each_object`] looks at it.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    /// Path as the loader knows it; empty for the executable.
    pub name: &'a [u8],
    /// Difference between addresses in memory and in the file.
    pub base: usize,
    /// Its program headers.
    pub headers: &'a [libc::Elf64_Phdr],
    /// How many objects were ever loaded (the loader's counter); equal counters, equal lists.
    pub loads: u64,
    /// How many were ever unloaded.
    pub unloads: u64,
}

impl Object<'_> {
    /// Does a loaded segment hold `address`?
    #[must_use]
    pub fn contains(&self, address: usize) -> bool {
        self.segment(address).is_some()
    }

    /// Does an executable segment hold `address`?
    #[must_use]
    pub fn executes(&self, address: usize) -> bool {
        self.segment(address)
            .is_some_and(|segment| segment.p_flags & libc::PF_X != 0)
    }

    /// Does a writable segment hold `address` (before or after relocation)?
    #[must_use]
    pub fn writes(&self, address: usize) -> bool {
        self.segment(address)
            .is_some_and(|segment| segment.p_flags & libc::PF_W != 0)
    }

    fn segment(&self, address: usize) -> Option<&libc::Elf64_Phdr> {
        self.headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD)
            .find(|header| {
                let start = self.base.wrapping_add(header.p_vaddr as usize);
                address >= start && address < start.wrapping_add(header.p_memsz as usize)
            })
    }

    /// Whole pages that were made read-only after relocation (`PT_GNU_RELRO`): start and end.
    #[must_use]
    pub fn relro(&self, page: usize) -> Option<(usize, usize)> {
        let header = self
            .headers
            .iter()
            .find(|header| header.p_type == libc::PT_GNU_RELRO)?;
        let start = self.base.wrapping_add(header.p_vaddr as usize) & !(page - 1);
        let end = self
            .base
            .wrapping_add(header.p_vaddr as usize)
            .wrapping_add(header.p_memsz as usize)
            & !(page - 1);
        (start < end).then_some((start, end))
    }

    /// Is it the loader itself or the kernel's page of code? Their slots are never touched.
    #[must_use]
    pub fn is_system(&self) -> bool {
        let file = self
            .name
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or(self.name);
        file.starts_with(b"ld-linux")
            || file.starts_with(b"ld-musl")
            || file.starts_with(b"ld64.so")
            || file.starts_with(b"linux-vdso")
            || file.starts_with(b"ld-2.")
    }
}

/// Calls `visit` for every loaded object, under the loader's lock, until it returns `false`.
pub fn for_each_object(mut visit: impl FnMut(&Object<'_>) -> bool) {
    unsafe extern "C" fn one<F: FnMut(&Object<'_>) -> bool>(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader hands out a valid description that stays put while it calls us, and
        // `data` is the closure that `for_each_object` passed.
        unsafe {
            let info = &*info;
            let visit = &mut *data.cast::<F>();
            let name = if info.dlpi_name.is_null() {
                &[][..]
            } else {
                CStr::from_ptr(info.dlpi_name).to_bytes()
            };
            let headers = if info.dlpi_phdr.is_null() {
                &[][..]
            } else {
                core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum as usize)
            };
            let object = Object {
                name,
                base: info.dlpi_addr as usize,
                headers,
                loads: info.dlpi_adds,
                unloads: info.dlpi_subs,
            };
            c_int::from(!visit(&object))
        }
    }
    fn pass<F: FnMut(&Object<'_>) -> bool>(visit: &mut F) {
        // SAFETY: `one::<F>` gets the closure it was made for; the closure outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(one::<F>), core::ptr::from_mut(visit).cast()) };
    }
    pass(&mut visit);
}
