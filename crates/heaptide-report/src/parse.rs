//! `heaptide parse`: every record as a line of text.

use std::io::{self, Write};

use heaptide_capture::{Capture, Liveness};
use heaptide_engine::Profile;
use serde_json::Value;

use crate::format::visible;
use crate::object::{Field, Object};
use crate::parse_json::{ParseOptions, for_each_record};

/// Every record as a line: its kind in capitals, then `key=value`. The keys are those of the JSON.
///
/// # Errors
/// When writing fails.
pub fn parse_text(
    capture: &Capture,
    profile: &Profile,
    liveness: &Liveness,
    options: ParseOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    for_each_record(capture, profile, liveness, options, &mut |record| {
        for (index, (key, field)) in record.0.iter().enumerate() {
            match field {
                Field::Value(Value::String(kind)) if index == 0 => {
                    write!(out, "{}", kind.to_uppercase())?;
                }
                _ => {
                    write!(out, " {key}=")?;
                    write_field(field, out)?;
                }
            }
        }
        writeln!(out)
    })
}

fn write_field(field: &Field, out: &mut dyn Write) -> io::Result<()> {
    match field {
        Field::Value(value) => write_value(value, out),
        Field::Object(object) => write_object(object, out),
        Field::List(list) => {
            out.write_all(b"[")?;
            for (index, object) in list.iter().enumerate() {
                out.write_all(if index > 0 { b" " } else { b"" })?;
                write_object(object, out)?;
            }
            out.write_all(b"]")
        }
        Field::Map(pairs) => {
            for (key, value) in pairs {
                write!(out, "{}=", visible(key))?;
                write_value(value, out)?;
            }
            Ok(())
        }
    }
}

fn write_object(object: &Object, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"{")?;
    for (index, (key, field)) in object.0.iter().enumerate() {
        write!(out, "{}{key}=", if index > 0 { " " } else { "" })?;
        write_field(field, out)?;
    }
    out.write_all(b"}")
}

fn write_value(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Null => out.write_all(b"-"),
        Value::String(text) => write!(out, "{}", visible(&quoted(text))),
        other => write!(out, "{other}"),
    }
}

/// Words stay as they are, anything else gets quotes.
fn quoted(text: &str) -> String {
    let word =
        !text.is_empty() && !text.contains([' ', '"', '=', '{', '}', '[', ']']) && text != "-";
    if word {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
