//! Text as CPython stores it, made fit for output.
//!
//! CPython keeps undecodable bytes of file names as lone surrogates U+DC80..U+DCFF (PEP 383). Rust
//! strings cannot hold them, so such a byte is shown as `\xNN` and any other lone surrogate as
//! `\uNNNN`; the original bytes stay beside it in [`Text::raw`].

use std::fmt::Write as _;

use heaptide_format::StringEncoding;

/// A string of the capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text {
    /// For people and JSON: valid UTF-8, escapes where the original is not.
    pub display: String,
    /// The bytes the operating system would see, where they are not those of `display`.
    pub raw: Option<Box<[u8]>>,
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self {
            display: text.to_owned(),
            raw: None,
        }
    }
}

impl Text {
    /// Decodes the payload of a string definition; an unknown encoding is read as bytes.
    #[must_use]
    pub fn decode(encoding: u32, payload: &[u8]) -> Self {
        match StringEncoding::from_raw(encoding) {
            Some(StringEncoding::Ucs1) => Self {
                display: payload.iter().map(|&byte| char::from(byte)).collect(),
                raw: None,
            },
            Some(StringEncoding::Ucs2) => Self::from_code_points(
                payload
                    .chunks_exact(2)
                    .map(|unit| u32::from(u16::from_le_bytes([unit[0], unit[1]]))),
            ),
            Some(StringEncoding::Ucs4) => Self::from_code_points(
                payload
                    .chunks_exact(4)
                    .map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])),
            ),
            Some(StringEncoding::Utf8) | None => Self::from_bytes(payload),
        }
    }

    /// Bytes that ought to be UTF-8.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => Self {
                display: escape_bytes(bytes),
                raw: Some(bytes.into()),
            },
        }
    }

    fn from_code_points(points: impl Iterator<Item = u32>) -> Self {
        let mut display = String::new();
        let mut raw: Option<Vec<u8>> = None;
        for point in points {
            let before = display.len();
            let byte = match (char::from_u32(point), point) {
                (Some(character), _) => {
                    display.push(character);
                    None
                }
                (None, 0xDC80..=0xDCFF) => {
                    let byte = (point & 0xFF) as u8;
                    push_byte(&mut display, byte);
                    Some(byte)
                }
                (None, _) => {
                    // Infallible: writing to a `String`.
                    let _ = write!(display, "\\u{point:04x}");
                    None
                }
            };
            if let Some(byte) = byte {
                raw.get_or_insert_with(|| display.as_bytes()[..before].to_vec())
                    .push(byte);
            } else if let Some(raw) = &mut raw {
                raw.extend_from_slice(&display.as_bytes()[before..]);
            }
        }
        Self {
            display,
            raw: raw.map(Vec::into_boxed_slice),
        }
    }
}

/// UTF-8 as it is, other bytes as `\xNN`.
#[must_use]
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for &byte in chunk.invalid() {
            push_byte(&mut text, byte);
        }
    }
    text
}

/// A word as a shell takes it: in quotes where it has to be.
#[must_use]
pub fn shell_quote(word: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&byte) || byte >= 0x80;
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Bytes in binary units with three significant digits: `17 B`, `1.50 KiB`, `100 MiB`.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut power = if bytes == 0 {
        0
    } else {
        bytes.ilog2() as usize / 10
    };
    let mut value = bytes as f64 / (1u64 << (10 * power)) as f64;
    // 1023.9 KiB would need four digits; it is nearer to 1.00 MiB.
    if power > 0 && power < 6 && value >= 999.5 {
        power += 1;
        value /= 1024.0;
    }
    let decimals = match value {
        _ if power == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[power])
}

fn push_byte(text: &mut String, byte: u8) {
    // Infallible: writing to a `String`.
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &[u16]) -> Vec<u8> {
        text.iter().flat_map(|unit| unit.to_le_bytes()).collect()
    }

    #[test]
    fn all_storage_kinds() {
        assert_eq!(Text::decode(1, b"caf\xe9").display, "café");
        assert_eq!(Text::decode(2, &units(&[0x3b1, 0x62])).display, "αb");
        let wide: Vec<u8> = [0x1F600u32, 0x61]
            .iter()
            .flat_map(|point| point.to_le_bytes())
            .collect();
        assert_eq!(Text::decode(4, &wide).display, "😀a");
        assert_eq!(Text::decode(0, "ü".as_bytes()).display, "ü");
        assert_eq!(Text::decode(77, b"a\xff").display, "a\\xff");
    }

    #[test]
    fn undecodable_bytes_survive() {
        let text = Text::decode(2, &units(&[0x2f, 0xDCFF, 0x3b1, 0xD800]));
        assert_eq!(text.display, "/\\xffα\\ud800");
        assert_eq!(text.raw.as_deref(), Some(&b"/\xff\xce\xb1\\ud800"[..]));
    }

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (100 << 20, "100 MiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (12_345_678, "11.8 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_would_take_them_apart() {
        assert_eq!(shell_quote("a/b.py"), "a/b.py");
        assert_eq!(shell_quote("a b"), "'a b'");
        assert_eq!(shell_quote("it's"), "'it'\\''s'");
        assert_eq!(shell_quote(""), "''");
    }

    #[test]
    fn an_odd_tail_is_dropped_and_too_large_points_are_shown() {
        assert_eq!(Text::decode(2, &[0x61, 0, 0x62]).display, "a");
        assert_eq!(
            Text::decode(4, &u32::MAX.to_le_bytes()).display,
            "\\uffffffff"
        );
    }
}
