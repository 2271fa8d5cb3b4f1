//! DWARF of one module.

use std::sync::Arc;

use addr2line::Context;
use gimli::{Dwarf, EndianSlice, RunTimeEndian, SectionId};
use object::Object;
use self_cell::self_cell;

use crate::demangle::demangle;
use crate::elf_file::{Contents, ElfFile};
use crate::nesting::Nesting;
use crate::problem::Problem;

pub(crate) type Reader<'a> = EndianSlice<'a, RunTimeEndian>;

/// All that refers to the sections.
struct Lookup<'a> {
    context: Context<Reader<'a>>,
    dwarf: Arc<Dwarf<Reader<'a>>>,
    nesting: Nesting,
}

/// The sections of a file and, if it has one, of its alternate file.
struct Sections {
    main: FileSections,
    alternate: Option<FileSections>,
}

struct FileSections {
    file: Arc<ElfFile>,
    endian: RunTimeEndian,
    contents: Vec<(SectionId, Contents)>,
}

self_cell! {
    struct Cell {
        owner: Sections,
        #[not_covariant]
        dependent: Lookup,
    }
}

pub(crate) struct DebugInfo(Cell);

/// What DWARF says of one level of inlining.
pub(crate) struct Frame {
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: u32,
}

impl DebugInfo {
    /// Looks at the headers of all units.
    pub(crate) fn new(file: Arc<ElfFile>, alternate: Option<ElfFile>) -> Result<Self, Problem> {
        let sections = Sections {
            main: FileSections::new(file)?,
            alternate: alternate
                .map(|file| FileSections::new(Arc::new(file)))
                .transpose()?,
        };
        let path = sections.main.file.path.clone();
        let cell = Cell::try_new(sections, |sections| {
            let mut dwarf = Dwarf::load(|id| Ok::<_, gimli::Error>(sections.main.reader(id)))?;
            if let Some(alternate) = &sections.alternate {
                dwarf.load_sup(|id| Ok::<_, gimli::Error>(alternate.reader(id)))?;
            }
            let dwarf = Arc::new(dwarf);
            Ok(Lookup {
                nesting: Nesting::new(&dwarf)?,
                context: Context::from_arc_dwarf(Arc::clone(&dwarf))?,
                dwarf,
            })
        });
        cell.map(Self)
            .map_err(|error: gimli::Error| Problem::BrokenDebugInfo {
                path,
                reason: error.to_string(),
            })
    }

    /// The functions that `address` is in, innermost first.
    pub(crate) fn find(&self, address: u64) -> Result<Vec<Frame>, Problem> {
        // The last address is in no function, and addr2line counts one further.
        if address == u64::MAX {
            return Ok(Vec::new());
        }
        let found = self.0.with_dependent(|_, lookup| {
            if lookup.nesting.is_too_deep(&lookup.dwarf, address) {
                return Err("it is nested deeper than any compiler nests".to_owned());
            }
            frames(&lookup.context, address).map_err(|error| error.to_string())
        });
        found.map_err(|reason| Problem::BrokenDebugInfo {
            path: self.0.borrow_owner().main.file.path.clone(),
            reason,
        })
    }
}

fn frames(context: &Context<Reader<'_>>, address: u64) -> Result<Vec<Frame>, gimli::Error> {
    let mut found = Vec::new();
    let mut frames = context.find_frames(address).skip_all_loads()?;
    while let Some(frame) = frames.next()? {
        let function = match &frame.function {
            Some(function) => Some(demangle(&function.raw_name()?)),
            None => None,
        };
        let location = frame.location.as_ref();
        found.push(Frame {
            function,
            file: location
                .and_then(|location| location.file)
                .map(str::to_owned),
            line: location.and_then(|location| location.line).unwrap_or(0),
        });
    }
    Ok(found)
}

impl FileSections {
    fn new(file: Arc<ElfFile>) -> Result<Self, Problem> {
        let broken = |reason| Problem::BrokenDebugInfo {
            path: file.path.clone(),
            reason,
        };
        let object = file.parse().map_err(|error| broken(error.to_string()))?;
        let endian = if object.is_little_endian() {
            RunTimeEndian::Little
        } else {
            RunTimeEndian::Big
        };
        let mut contents = Vec::new();
        // What finding frames reads. Locations of variables and frame tables may be large, and nobody asks for them.
        for id in [
            SectionId::DebugAbbrev,
            SectionId::DebugAddr,
            SectionId::DebugAranges,
            SectionId::DebugInfo,
            SectionId::DebugLine,
            SectionId::DebugLineStr,
            SectionId::DebugRanges,
            SectionId::DebugRngLists,
            SectionId::DebugStr,
            SectionId::DebugStrOffsets,
            SectionId::DebugTypes,
        ] {
            contents.push((id, file.contents(id.name()).map_err(broken)?));
        }
        Ok(Self {
            file,
            endian,
            contents,
        })
    }

    fn reader(&self, wanted: SectionId) -> Reader<'_> {
        let contents = self.contents.iter().find(|(id, _)| *id == wanted);
        let bytes = contents.map_or(&[][..], |(_, contents)| self.file.slice(contents));
        EndianSlice::new(bytes, self.endian)
    }
}
