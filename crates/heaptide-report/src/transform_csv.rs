//! `heaptide transform csv`: one line per stack, allocator and thread, with Memray's columns.

use std::borrow::Cow;
use std::io::{self, Write};

use heaptide_engine::{LocationId, Metric, Profile, StackId, ThreadInfo};

use crate::format::visible;

const COLUMNS: &[u8] = b"allocator,num_allocations,size,tid,thread_name,stack_trace\r\n";

/// Memray's columns; `stack_trace` is `function;file;line|…`, innermost first. A stack without a
/// Python frame is empty.
///
/// # Errors
/// When writing fails.
pub fn transform_csv(profile: &Profile, metric: Metric, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(COLUMNS)?;
    let mut stack = String::new();
    for entry in &profile.entries {
        let amount = entry.figures.get(metric);
        if amount.is_zero() {
            continue;
        }
        let thread = &profile.threads[entry.thread as usize];
        write_stack(profile, entry.stack, &mut stack);
        write!(
            out,
            "{},{},{},{},{},{}\r\n",
            entry.allocator.name(),
            amount.count,
            amount.bytes,
            thread.thread_id,
            quoted(&thread_label(thread)),
            quoted(&stack)
        )?;
    }
    Ok(())
}

fn write_stack(profile: &Profile, stack: StackId, text: &mut String) {
    let stacks = &profile.stacks;
    text.clear();
    for node in stacks.walk(stack) {
        if !text.is_empty() {
            text.push('|');
        }
        let location: LocationId = stacks.frames[stacks.nodes[node.index()].frame.index()].location;
        let place = stacks.locations[location.index()];
        text.push_str(&visible(stacks.text(place.function)));
        text.push(';');
        text.push_str(&visible(stacks.text(place.file)));
        text.push(';');
        text.push_str(&place.line.to_string());
    }
}

/// `0x1267 (name)`, or the number alone, as Memray shows threads.
pub(crate) fn thread_label(thread: &ThreadInfo) -> String {
    if thread.name.is_empty() {
        format!("{:#x}", thread.thread_id)
    } else {
        format!("{:#x} ({})", thread.thread_id, visible(&thread.name))
    }
}

/// In quotes where a reader of CSV needs them.
fn quoted(field: &str) -> Cow<'_, str> {
    if field.contains([',', '"', '\r', '\n']) {
        Cow::Owned(format!("\"{}\"", field.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_separators_are_quoted() {
        assert_eq!(quoted("plain;a|b"), "plain;a|b");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"x\""), "\"say \"\"x\"\"\"");
    }
}
