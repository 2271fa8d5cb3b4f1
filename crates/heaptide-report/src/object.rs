//! JSON objects whose keys keep their order.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::Value;

/// An object; keys stay in the order in which they were given.
pub(crate) struct Object(pub(crate) Vec<(&'static str, Field)>);

impl Object {
    /// One more field, after those that are there.
    pub(crate) fn push(&mut self, key: &'static str, value: impl Into<Field>) {
        self.0.push((key, value.into()));
    }
}

/// A value of an [`Object`].
pub(crate) enum Field {
    Value(Value),
    Object(Object),
    List(Vec<Object>),
    /// Keys made at run time, in order.
    Map(Vec<(String, Value)>),
}

impl<T: Into<Value>> From<T> for Field {
    fn from(value: T) -> Self {
        Self::Value(value.into())
    }
}

impl From<Object> for Field {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Object(object) => object.serialize(serializer),
            Self::List(list) => list.serialize(serializer),
            Self::Map(pairs) => {
                serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
            }
        }
    }
}

/// `object! { "key": value, … }`
macro_rules! object {
    ($($key:literal: $value:expr),* $(,)?) => {
        $crate::object::Object(vec![$(($key, $crate::object::Field::from($value))),*])
    };
}
pub(crate) use object;

/// One object on one line.
pub(crate) fn write_line(out: &mut dyn Write, object: &Object) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.write_all(b"\n")
}

/// One object, indented.
pub(crate) fn write_pretty(out: &mut dyn Write, object: &Object) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, object)?;
    out.write_all(b"\n")
}
