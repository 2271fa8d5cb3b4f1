//! The data of a page, read again.

use std::io::Read;

use serde_json::{Value, json};

const BEGIN: &str = "<script type=\"text/plain\" id=\"data\">";

/// Head and columns of a page.
pub(crate) struct Decoded {
    pub(crate) head: Value,
    columns: Vec<(String, Vec<u64>)>,
}

impl Decoded {
    pub(crate) fn of(html: &str) -> Self {
        let (_, rest) = html.split_once(BEGIN).expect("the page has data");
        let (text, _) = rest.split_once("</script>").expect("they end");
        let mut bytes = Vec::new();
        flate2::read::ZlibDecoder::new(&base64(text)[..])
            .read_to_end(&mut bytes)
            .expect("a zlib stream");
        let (length, rest) = bytes.split_first_chunk().expect("a length");
        let (head, mut rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        let head: Value = serde_json::from_slice(head).expect("the head is JSON");
        let listed = head["columns"].as_array().expect("a list");
        let columns = listed
            .iter()
            .map(|column| {
                let count = column[2].as_u64().expect("a number");
                let delta = column[1] == "delta";
                let mut previous = 0u64;
                let values = (0..count).map(|_| {
                    let value = leb128(&mut rest);
                    if !delta {
                        return value;
                    }
                    let difference = (value >> 1) ^ (value & 1).wrapping_neg();
                    previous = previous.wrapping_add(difference);
                    previous
                });
                let values = values.collect();
                (column[0].as_str().expect("a name").to_owned(), values)
            })
            .collect();
        assert!(rest.is_empty(), "nothing comes after the columns");
        Self { head, columns }
    }

    pub(crate) fn column(&self, name: &str) -> &[u64] {
        let column = self.columns.iter().find(|column| column.0 == name);
        &column.unwrap_or_else(|| panic!("no column {name}")).1
    }

    /// Everything, for golden files.
    pub(crate) fn pretty(&self) -> String {
        let columns = self.columns.iter();
        let lines: Vec<String> = columns
            .map(|(name, values)| format!("    {}: {}", json!(name), json!(values)))
            .collect();
        let mut head = self.head.clone();
        head.as_object_mut().expect("an object").remove("columns");
        let head = serde_json::to_string_pretty(&head).expect("JSON");
        format!("[\n{head},\n{{\n{}\n}}\n]\n", lines.join(",\n"))
    }
}

fn leb128(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a byte");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a number of more than 64 bits")
}

fn base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let digit = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => panic!("not base64: {character:#x}"),
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
