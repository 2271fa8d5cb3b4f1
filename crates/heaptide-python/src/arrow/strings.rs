//! The texts that indices refer to, each made once and shared by all batches.

use heaptide_engine::{Stacks, TextId};
use pyo3::PyResult;
use pyo3::exceptions::PyOverflowError;

use super::columns::Column;

/// A growing list of texts.
#[derive(Default)]
pub(crate) struct Texts {
    ends: Vec<i64>,
    bytes: Vec<u8>,
}

impl Texts {
    /// Adds a text and gives its index.
    pub(crate) fn push(&mut self, text: &str) -> PyResult<i32> {
        if self.ends.is_empty() {
            self.ends.push(0);
        }
        let index = i32::try_from(self.ends.len() - 1);
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len() as i64);
        index.map_err(|_| PyOverflowError::new_err("more than 2147483647 texts"))
    }

    pub(crate) fn finish(mut self) -> Column {
        if self.ends.is_empty() {
            self.ends.push(0);
        }
        Column::of_texts(self.ends, self.bytes)
    }
}

/// Those texts of a capture that one column has, numbered anew.
pub(crate) struct Numbered {
    index_of: Vec<i32>,
    pub(crate) texts: Column,
}

impl Numbered {
    pub(crate) fn of(stacks: &Stacks, ids: impl Iterator<Item = TextId>) -> PyResult<Self> {
        let mut index_of = vec![-1; stacks.texts.len()];
        let mut texts = Texts::default();
        for id in ids {
            let index = &mut index_of[id.index()];
            if *index < 0 {
                *index = texts.push(stacks.text(id))?;
            }
        }
        let texts = texts.finish();
        Ok(Self { index_of, texts })
    }

    /// Of a text that it was made of.
    pub(crate) fn index(&self, id: TextId) -> i32 {
        self.index_of[id.index()]
    }
}
