//! Names as they are in the source.

use std::fmt::{self, Write};

/// A name longer than this was made to be: substitutions let a mangled name unfold without end.
const LONGEST: usize = 1 << 16;

/// Longer mangled names stay as they are.
const LONGEST_MANGLED: usize = 1 << 15;

/// Nesting of types, per mangled name. Each level takes stack.
const DEEPEST: u32 = 96;

/// Writes up to a limit.
struct Limited(String);

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// A name of C++ or Rust as it is in the source; any other as it is.
pub(crate) fn demangle(name: &str) -> String {
    cpp_or_rust(name).unwrap_or_else(|| name.to_owned())
}

fn cpp_or_rust(name: &str) -> Option<String> {
    if name.len() > LONGEST_MANGLED || !name.starts_with('_') {
        return None;
    }
    // First Rust: its older names are valid C++, followed by a hash.
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // Without the hash.
        return limited(format_args!("{rust:#}"));
    }
    let options = cpp_demangle::ParseOptions::default().recursion_limit(DEEPEST);
    let symbol = cpp_demangle::Symbol::new_with_options(name, &options).ok()?;
    let options = cpp_demangle::DemangleOptions::default().recursion_limit(DEEPEST);
    let mut written = Limited(String::new());
    symbol.structured_demangle(&mut written, &options).ok()?;
    Some(written.0)
}

fn limited(text: fmt::Arguments<'_>) -> Option<String> {
    let mut written = Limited(String::new());
    written.write_fmt(text).ok()?;
    Some(written.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        for (mangled, name) in [
            ("main", "main"),
            ("_PyObject_Malloc", "_PyObject_Malloc"),
            ("_Zebra", "_Zebra"),
            (
                "_ZN5space5boxedIiE4growEm",
                "space::boxed<int>::grow(unsigned long)",
            ),
            (
                "_ZnwmSt11align_val_t",
                "operator new(unsigned long, std::align_val_t)",
            ),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvC6_123foo3bar", "123foo::bar"),
        ] {
            assert_eq!(demangle(mangled), name);
        }
    }

    #[test]
    fn a_name_that_unfolds_without_end_stays_as_it_is() {
        // Each level doubles the one before.
        let mut name = String::from("_Z1fSt4pairIiiE");
        for level in 0..40 {
            let previous = match level {
                0 => "S0_".to_owned(),
                _ => {
                    let number = level as u32;
                    format!(
                        "S{}_",
                        char::from_digit(number % 36, 36)
                            .unwrap_or('0')
                            .to_ascii_uppercase()
                    )
                }
            };
            name.push_str(&format!("St4pairI{previous}{previous}E"));
        }
        let demangled = demangle(&name);
        assert!(demangled.len() <= LONGEST, "{}", demangled.len());
        let deep = format!("_Z1f{}i", "P".repeat(20_000));
        assert_eq!(demangle(&deep), deep);
    }
}
