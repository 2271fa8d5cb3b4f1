//! A Python text file as something to write to.

use std::io;

use pyo3::prelude::*;

/// Writes UTF-8 to a Python file that takes text.
pub(crate) struct TextStream<'a, 'py> {
    file: &'a Bound<'py, PyAny>,
    /// The beginning of a character whose rest has not come yet.
    partial: Vec<u8>,
    raised: Option<PyErr>,
}

impl<'a, 'py> TextStream<'a, 'py> {
    pub(crate) const fn new(file: &'a Bound<'py, PyAny>) -> Self {
        Self {
            file,
            partial: Vec::new(),
            raised: None,
        }
    }

    /// The exception that ended the writing.
    pub(crate) fn raised(self) -> Option<PyErr> {
        self.raised
    }
}

impl io::Write for TextStream<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.partial.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.partial) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.partial.split_off(whole);
        let text = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial = rest;
        if let Err(raised) = self.file.call_method1("write", (text,)) {
            self.raised = Some(raised);
            return Err(io::Error::other("the file refused the text"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
