//! Escaping for HTML and for JSON inside of it.

use std::io::{self, Write};

/// Text for element content and for attribute values in double quotes.
pub(crate) fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Makes JSON fit for a `<script>` element: `<`, `>` and `&`, which only occur in strings there,
/// become escapes of JSON, so that no name can end the element.
pub(crate) struct ScriptWriter<'a>(&'a mut dyn Write);

impl<'a> ScriptWriter<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self(out)
    }
}

impl Write for ScriptWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(place) = rest
            .iter()
            .position(|byte| matches!(byte, b'<' | b'>' | b'&'))
        {
            self.0.write_all(&rest[..place])?;
            write!(self.0, "\\u{:04x}", rest[place])?;
            rest = &rest[place + 1..];
        }
        self.0.write_all(rest)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_script() {
        let mut out = Vec::new();
        ScriptWriter::new(&mut out)
            .write_all(br#"["</script><!--&"]"#)
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"["\u003c/script\u003e\u003c!--\u0026"]"#
        );
    }

    #[test]
    fn nothing_leaves_its_attribute() {
        assert_eq!(
            escape_html(r#"<a b="c" d='&'>"#),
            "&lt;a b=&quot;c&quot; d=&#39;&amp;&#39;&gt;"
        );
    }
}
