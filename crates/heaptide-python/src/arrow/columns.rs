//! Columns in Arrow's layout, and what describes them.

use std::ffi::CStr;
use std::sync::Arc;

/// What a column is. The formats are those of Arrow's C data interface.
#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) name: &'static CStr,
    pub(crate) format: &'static CStr,
    pub(crate) nullable: bool,
    pub(crate) children: Vec<Self>,
    /// What indices refer to.
    pub(crate) dictionary: Option<Box<Self>>,
}

impl Field {
    pub(crate) const fn new(name: &'static CStr, format: &'static CStr) -> Self {
        Self {
            name,
            format,
            nullable: false,
            children: Vec::new(),
            dictionary: None,
        }
    }

    pub(crate) const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    pub(crate) fn with_children(mut self, children: Vec<Self>) -> Self {
        self.children = children;
        self
    }

    /// A column of texts, each text kept once.
    pub(crate) fn of_texts(name: &'static CStr) -> Self {
        Self {
            dictionary: Some(Box::new(Self::new(c"", LARGE_TEXT))),
            ..Self::new(name, INT32)
        }
    }
}

pub(crate) const INT32: &CStr = c"i";
pub(crate) const UINT32: &CStr = c"I";
pub(crate) const UINT64: &CStr = c"L";
pub(crate) const LARGE_TEXT: &CStr = c"U";
pub(crate) const LIST: &CStr = c"+l";
pub(crate) const STRUCT: &CStr = c"+s";

/// The bytes of a column.
#[derive(Clone)]
pub(crate) enum Buffer {
    /// No validity is kept where nothing is null.
    Absent,
    Bytes(Arc<Vec<u8>>),
    Int32(Arc<Vec<i32>>),
    UInt32(Arc<Vec<u32>>),
    Int64(Arc<Vec<i64>>),
    UInt64(Arc<Vec<u64>>),
}

/// A column of a batch, or a part of one.
#[derive(Clone)]
pub(crate) struct Column {
    pub(crate) length: usize,
    pub(crate) nulls: usize,
    /// The validity first, as the layout of the format has them.
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) children: Vec<Self>,
    pub(crate) dictionary: Option<Box<Self>>,
}

impl Column {
    /// Numbers without nulls.
    fn whole(length: usize, values: Buffer) -> Self {
        Self {
            length,
            nulls: 0,
            buffers: vec![Buffer::Absent, values],
            children: Vec::new(),
            dictionary: None,
        }
    }

    pub(crate) fn of_u32(values: Vec<u32>) -> Self {
        Self::whole(values.len(), Buffer::UInt32(Arc::new(values)))
    }

    pub(crate) fn of_u64(values: Vec<u64>) -> Self {
        Self::whole(values.len(), Buffer::UInt64(Arc::new(values)))
    }

    /// Large texts: `ends` has one number more than there are texts, from 0.
    pub(crate) fn of_texts(ends: Vec<i64>, bytes: Vec<u8>) -> Self {
        let length = ends.len().saturating_sub(1);
        Self {
            length,
            nulls: 0,
            buffers: vec![
                Buffer::Absent,
                Buffer::Int64(Arc::new(ends)),
                Buffer::Bytes(Arc::new(bytes)),
            ],
            children: Vec::new(),
            dictionary: None,
        }
    }

    /// A struct of columns of one length.
    pub(crate) fn of_struct(length: usize, children: Vec<Self>) -> Self {
        Self {
            length,
            nulls: 0,
            buffers: vec![Buffer::Absent],
            children,
            dictionary: None,
        }
    }

    /// Lists: `ends` has one number more than there are lists, from 0.
    pub(crate) fn of_lists(ends: Vec<i32>, validity: Validity, items: Self) -> Self {
        let (nulls, validity) = validity.finish();
        Self {
            length: ends.len().saturating_sub(1),
            nulls,
            buffers: vec![validity, Buffer::Int32(Arc::new(ends))],
            children: vec![items],
            dictionary: None,
        }
    }
}

/// Which values of a column are there.
#[derive(Default)]
pub(crate) struct Validity {
    bits: Vec<u8>,
    length: usize,
    nulls: usize,
}

impl Validity {
    pub(crate) fn push(&mut self, there: bool) {
        let bit = self.length % 8;
        if bit == 0 {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut() {
            *last |= u8::from(there) << bit;
        }
        self.length += 1;
        self.nulls += usize::from(!there);
    }

    fn finish(self) -> (usize, Buffer) {
        if self.nulls == 0 {
            (0, Buffer::Absent)
        } else {
            (self.nulls, Buffer::Bytes(Arc::new(self.bits)))
        }
    }
}

/// Numbers, some of which are not known.
#[derive(Default)]
pub(crate) struct Numbers {
    values: Vec<u32>,
    validity: Validity,
}

impl Numbers {
    pub(crate) fn push(&mut self, value: Option<u32>) {
        self.values.push(value.unwrap_or(0));
        self.validity.push(value.is_some());
    }

    pub(crate) fn finish(self) -> Column {
        let length = self.values.len();
        let (nulls, validity) = self.validity.finish();
        Column {
            nulls,
            buffers: vec![validity, Buffer::UInt32(Arc::new(self.values))],
            ..Column::of_struct(length, Vec::new())
        }
    }
}

/// Indices into texts, some of which are not known.
#[derive(Default)]
pub(crate) struct Indices {
    values: Vec<i32>,
    validity: Validity,
}

impl Indices {
    pub(crate) fn push(&mut self, index: Option<i32>) {
        self.values.push(index.unwrap_or(0));
        self.validity.push(index.is_some());
    }

    pub(crate) fn finish(self, texts: &Column) -> Column {
        let length = self.values.len();
        let (nulls, validity) = self.validity.finish();
        Column {
            nulls,
            buffers: vec![validity, Buffer::Int32(Arc::new(self.values))],
            dictionary: Some(Box::new(texts.clone())),
            ..Column::of_struct(length, Vec::new())
        }
    }
}
