//! Strings, code objects and metadata.

use std::collections::BTreeMap;

use heaptide_format::{CodeFixed, DefinitionHeader, DefinitionKind, MetadataKey};
use zerocopy::FromBytes;

use crate::text::{Text, escape_bytes, shell_quote};
use crate::warning::{WarningKind, Warnings};

/// Shown for a definition whose bytes do not match their checksum.
const DAMAGED: &str = "<damaged>";

/// A code object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// The fixed fields: string numbers, first line, flags.
    pub fixed: CodeFixedFields,
    /// `co_lnotab` (3.9) or `co_linetable` (3.10+).
    pub line_table: Box<[u8]>,
}

/// The fields of [`CodeFixed`] that a reader wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeFixedFields {
    /// String number of `co_name`.
    pub name: u32,
    /// String number of `co_qualname`.
    pub qualified_name: u32,
    /// String number of `co_filename`.
    pub file_name: u32,
    /// `co_firstlineno`
    pub first_line: i32,
    /// `co_flags`
    pub flags: u32,
}

/// Strings and code objects by number.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// `None`: damaged.
    strings: BTreeMap<u32, Option<Text>>,
    /// `None`: damaged.
    codes: BTreeMap<u32, Option<Code>>,
}

impl Definitions {
    /// A string; `None` when it was never defined.
    #[must_use]
    pub fn string(&self, number: u32) -> Option<&str> {
        Some(
            self.strings
                .get(&number)?
                .as_ref()
                .map_or(DAMAGED, |text| text.display.as_str()),
        )
    }

    /// A code object; `None` when it was never defined, `Some(None)` when its definition is damaged.
    #[must_use]
    pub fn code(&self, number: u32) -> Option<Option<&Code>> {
        Some(self.codes.get(&number)?.as_ref())
    }

    /// All strings by number; `None` for damaged ones.
    pub fn strings(&self) -> impl Iterator<Item = (u32, Option<&Text>)> {
        self.strings
            .iter()
            .map(|(&number, text)| (number, text.as_ref()))
    }

    /// All code objects by number; `None` for damaged ones.
    pub fn codes(&self) -> impl Iterator<Item = (u32, Option<&Code>)> {
        self.codes
            .iter()
            .map(|(&number, code)| (number, code.as_ref()))
    }
}

/// Facts about the run, raw.
#[derive(Clone, Debug, Default)]
pub struct Metadata(BTreeMap<u32, Box<[u8]>>);

impl Metadata {
    /// The bytes of a fact.
    #[must_use]
    pub fn raw(&self, key: MetadataKey) -> Option<&[u8]> {
        self.0.get(&(key as u32)).map(AsRef::as_ref)
    }

    /// A fact as text; bytes that are not UTF-8 become `\xNN`.
    #[must_use]
    pub fn text(&self, key: MetadataKey) -> Option<String> {
        self.raw(key).map(escape_bytes)
    }

    /// The program's arguments.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        self.list(MetadataKey::CommandLine)
    }

    /// `sys.path` when tracking began; empty where the capture does not tell.
    #[must_use]
    pub fn search_path(&self) -> Vec<String> {
        self.list(MetadataKey::SearchPath)
    }

    /// Texts, each ended by a NUL byte.
    fn list(&self, key: MetadataKey) -> Vec<String> {
        let raw = self.raw(key).unwrap_or_default();
        if raw.is_empty() {
            return Vec::new();
        }
        let raw = raw.strip_suffix(b"\0").unwrap_or(raw);
        raw.split(|&byte| byte == 0).map(escape_bytes).collect()
    }

    /// The arguments in one line, quoted so that a shell would take them apart again.
    #[must_use]
    pub fn command_line(&self) -> String {
        let quoted: Vec<String> = self
            .arguments()
            .iter()
            .map(|argument| shell_quote(argument))
            .collect();
        quoted.join(" ")
    }

    /// All facts that this version knows, with their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (MetadataKey, &[u8])> {
        self.0
            .iter()
            .filter_map(|(&key, value)| Some((MetadataKey::from_raw(key)?, value.as_ref())))
    }
}

impl FromIterator<(MetadataKey, Vec<u8>)> for Metadata {
    fn from_iter<T: IntoIterator<Item = (MetadataKey, Vec<u8>)>>(facts: T) -> Self {
        let facts = facts.into_iter();
        Self(
            facts
                .map(|(key, value)| (key as u32, value.into()))
                .collect(),
        )
    }
}

/// Takes the definitions of one segment apart. `base` is the file offset of `stream`.
pub(crate) fn parse_stream(
    stream: &[u8],
    base: u64,
    definitions: &mut Definitions,
    metadata: &mut Metadata,
    warnings: &mut Warnings,
) {
    let mut offset = 0;
    while offset < stream.len() {
        let at = Some(base + offset as u64);
        let Some((header, payload)) = split_definition(&stream[offset..]) else {
            warnings.add(WarningKind::BrokenDefinitions, at, || {
                "a definition is cut off or has a length that does not fit; those after it in its segment are lost"
                    .to_owned()
            });
            return;
        };
        // At least the size of the header, so the loop ends.
        offset += header.total_bytes as usize;
        add_definition(&header, payload, at, definitions, metadata, warnings);
    }
}

fn split_definition(bytes: &[u8]) -> Option<(DefinitionHeader, &[u8])> {
    let (header, rest) = DefinitionHeader::read_from_prefix(bytes).ok()?;
    let total = header.total_bytes as usize;
    let room = total.checked_sub(size_of::<DefinitionHeader>())?;
    let payload_bytes = header.payload_bytes as usize;
    if !total.is_multiple_of(8) || room > rest.len() || payload_bytes > room {
        return None;
    }
    Some((header, &rest[..payload_bytes]))
}

fn add_definition(
    header: &DefinitionHeader,
    payload: &[u8],
    at: Option<u64>,
    definitions: &mut Definitions,
    metadata: &mut Metadata,
    warnings: &mut Warnings,
) {
    let Some(kind) = DefinitionKind::from_raw(header.kind) else {
        warnings.add(WarningKind::UnknownDefinition, at, || {
            format!(
                "a definition of kind {} was skipped: this version does not know it",
                header.kind
            )
        });
        return;
    };
    let mut whole = header.checksum == heaptide_format::checksum(payload);
    let new = match kind {
        DefinitionKind::String => {
            let text = whole.then(|| Text::decode(header.encoding, payload));
            insert_first(&mut definitions.strings, header.id, text)
        }
        DefinitionKind::Code => {
            let code = if whole { parse_code(payload) } else { None };
            whole = code.is_some();
            insert_first(&mut definitions.codes, header.id, code)
        }
        DefinitionKind::Metadata if whole => {
            insert_first(&mut metadata.0, header.id, payload.into())
        }
        DefinitionKind::Metadata => true,
    };
    if !whole {
        warnings.add(WarningKind::DamagedDefinition, at, || {
            format!(
                "{} {} does not match its checksum and is shown as {DAMAGED}",
                kind.name(),
                header.id
            )
        });
    } else if !new {
        warnings.add(WarningKind::DuplicateDefinition, at, || {
            format!(
                "{} {} is defined twice; the first definition counts",
                kind.name(),
                header.id
            )
        });
    }
}

/// Definitions never change, so the first one counts.
fn insert_first<T>(map: &mut BTreeMap<u32, T>, number: u32, value: T) -> bool {
    match map.entry(number) {
        std::collections::btree_map::Entry::Vacant(entry) => {
            entry.insert(value);
            true
        }
        std::collections::btree_map::Entry::Occupied(_) => false,
    }
}

fn parse_code(payload: &[u8]) -> Option<Code> {
    let (fixed, line_table) = CodeFixed::read_from_prefix(payload).ok()?;
    let line_table = line_table.get(..fixed.line_table_bytes as usize)?;
    Some(Code {
        fixed: CodeFixedFields {
            name: fixed.name,
            qualified_name: fixed.qualified_name,
            file_name: fixed.file_name,
            first_line: fixed.first_line,
            flags: fixed.flags,
        },
        line_table: line_table.into(),
    })
}
