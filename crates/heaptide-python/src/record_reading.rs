//! Records of any class that has what those of `AllocationRecord` have, read into sums.

use std::collections::HashMap;

use heaptide_engine::{Figures, FrameId, Position, Profile, StackId, Sums};
use heaptide_format::Allocator;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::allocation_record::is_deallocation;

/// Who allocated: stack, allocator and thread of the sums.
pub(crate) type Who = (StackId, Allocator, u32);

/// Sums that records are read into.
pub(crate) struct Reading<'a, 'py> {
    sums: Sums,
    frames: Frames,
    /// The name of the method of records that gives a stack, the innermost frame first.
    stacks: &'a Bound<'py, PyString>,
    /// Of the record at hand.
    stack: Vec<FrameId>,
}

impl<'a, 'py> Reading<'a, 'py> {
    pub(crate) fn new(stacks: &'a Bound<'py, PyString>) -> Self {
        Self {
            sums: Sums::new(),
            frames: Frames::default(),
            stacks,
            stack: Vec::new(),
        }
    }

    /// Who allocated what a record is of.
    pub(crate) fn who(&mut self, record: &Bound<'py, PyAny>) -> PyResult<Who> {
        self.stack.clear();
        for frame in record.call_method0(self.stacks)?.try_iter()? {
            let frame = self.frames.number(&mut self.sums, frame?)?;
            self.stack.push(frame);
        }
        let number: i64 = record.getattr("tid")?.extract()?;
        let name: String = record.getattr("thread_name")?.extract()?;
        let thread = self.sums.thread(u32::try_from(number).unwrap_or(0), &name);
        let stack = self.sums.stack(self.stack.iter().rev().copied());
        Ok((stack, allocator(record)?, thread))
    }

    pub(crate) fn add(&mut self, (stack, allocator, thread): Who, figures: &Figures) {
        self.sums.add(stack, allocator, thread, figures);
    }

    pub(crate) fn finish(self) -> Profile {
        self.sums.finish()
    }
}

/// By its `AllocatorType`; records of other classes may have none.
fn allocator(record: &Bound<'_, PyAny>) -> PyResult<Allocator> {
    let Some(number) = record.getattr_opt("allocator")? else {
        return Ok(Allocator::Malloc);
    };
    let number: u8 = number.extract()?;
    let known = Allocator::from_raw(number.into()).filter(|_| !is_deallocation(number));
    known.ok_or_else(|| PyValueError::new_err(format!("{number} is no allocator of a record")))
}

/// Frames that were seen. Most come again and again as the same object.
#[derive(Default)]
struct Frames(HashMap<usize, (Py<PyAny>, FrameId)>);

impl Frames {
    fn number(&mut self, sums: &mut Sums, frame: Bound<'_, PyAny>) -> PyResult<FrameId> {
        // What is kept alive has an address of its own.
        let address = frame.as_ptr() as usize;
        if let Some(&(_, number)) = self.0.get(&address) {
            return Ok(number);
        }
        let (function, file, line): (Bound<'_, PyString>, Bound<'_, PyString>, i32) =
            frame.extract()?;
        let function = function.to_string_lossy();
        let mut position = Position::of_line(line);
        let mut qualified_name = function.clone();
        let named;
        if !frame.is_exact_instance_of::<PyTuple>()
            && let Some(name) = frame.getattr_opt("qualified_name")?
        {
            named = name.cast_into::<PyString>()?;
            qualified_name = named.to_string_lossy();
            let end_line: Option<i32> = frame.getattr("end_line")?.extract()?;
            position.end_line = end_line.unwrap_or(0);
            position.column = frame.getattr("column")?.extract()?;
            position.end_column = frame.getattr("end_column")?.extract()?;
        }
        let file = file.to_string_lossy();
        let number = sums.frame(&function, &file, &qualified_name, position);
        self.0.insert(address, (frame.unbind(), number));
        Ok(number)
    }
}
