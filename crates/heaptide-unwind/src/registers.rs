//! What a frame is known by, and the words of a stack.

/// The registers of a frame that unwinding needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// Where the frame goes on: a return address, or what stands for one.
    pub instruction: usize,
    /// `rsp` there.
    pub stack_pointer: usize,
    /// `rbp` there.
    pub frame_pointer: usize,
}

impl Registers {
    /// Those of the function that this is inlined into.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    #[must_use]
    pub fn here() -> Self {
        let mut here = Self::default();
        // SAFETY: reads three registers.
        unsafe {
            core::arch::asm!(
                "lea {instruction}, [rip]",
                "mov {stack}, rsp",
                "mov {frame}, rbp",
                instruction = out(reg) here.instruction,
                stack = out(reg) here.stack_pointer,
                frame = out(reg) here.frame_pointer,
                options(nomem, nostack, preserves_flags),
            );
        }
        here
    }
}

/// The part of a stack that can be read: from the innermost frame to the end of its mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    low: usize,
    high: usize,
}

impl Stack {
    /// # Safety
    /// The words in `low..high` can be read for as long as the value is used.
    #[must_use]
    pub const unsafe fn new(low: usize, high: usize) -> Self {
        Self { low, high }
    }

    /// Is the address in it?
    #[must_use]
    #[inline(always)]
    pub const fn contains(&self, address: usize) -> bool {
        self.low <= address && address < self.high
    }

    /// The same stack from `low` on, which is in it.
    #[must_use]
    #[inline(always)]
    pub const fn from(&self, low: usize) -> Self {
        Self {
            low,
            high: self.high,
        }
    }

    /// The word at an address; `None` where it is not one of the stack's.
    #[must_use]
    #[inline(always)]
    pub fn word(&self, address: usize) -> Option<usize> {
        let is_inside = self.low <= address
            && address < self.high
            && self.high - address >= size_of::<usize>()
            && address.is_multiple_of(align_of::<usize>());
        // SAFETY: the promise of `new`. Others may write to the stack of this thread while it stands still (a value that
        // it lets them have), but not to what is read here; the read is volatile all the same.
        is_inside.then(|| unsafe {
            core::ptr::with_exposed_provenance::<usize>(address).read_volatile()
        })
    }
}
