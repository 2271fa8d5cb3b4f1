//! Debug information that was split off a module.

use std::path::{Path, PathBuf};

use object::Object;

use crate::elf_file::{ElfFile, hexadecimal};
use crate::problem::Problem;

/// The debug file of `module`, if there is one.
pub(crate) fn debug_file(
    module: &ElfFile,
    debug_directory: &Path,
    problems: &mut Vec<Problem>,
) -> Option<ElfFile> {
    by_build_id(module, debug_directory, problems)
        .or_else(|| by_link(module, debug_directory, problems))
}

fn by_build_id(
    module: &ElfFile,
    debug_directory: &Path,
    problems: &mut Vec<Problem>,
) -> Option<ElfFile> {
    let build_id = module.build_id()?;
    let path = path_of_build_id(&build_id, debug_directory)?;
    let file = open_if_there(&path, problems)?;
    keep(file.expect_build_id(&build_id), problems)?;
    Some(file)
}

fn path_of_build_id(build_id: &[u8], debug_directory: &Path) -> Option<PathBuf> {
    let (first, rest) = build_id
        .split_first()
        .filter(|(_, rest)| !rest.is_empty())?;
    let name = format!("{}.debug", hexadecimal(rest));
    let directory = debug_directory.join(".build-id");
    Some(directory.join(hexadecimal(&[*first])).join(name))
}

fn by_link(
    module: &ElfFile,
    debug_directory: &Path,
    problems: &mut Vec<Problem>,
) -> Option<ElfFile> {
    let object = module.parse().ok()?;
    let (name, checksum) = object.gnu_debuglink().ok().flatten()?;
    let name = Path::new(str::from_utf8(name).ok()?);
    // A name, not a path: a file does not get to choose what is opened.
    if name.file_name() != Some(name.as_os_str()) {
        return None;
    }
    // The directory of the file itself, not that of a symbolic link to it.
    let path = module.path.canonicalize().ok()?;
    let directory = path.parent()?;
    let places = [
        directory.join(name),
        directory.join(".debug").join(name),
        debug_directory
            .join(directory.strip_prefix("/").unwrap_or(directory))
            .join(name),
    ];
    for place in places.iter().filter(|&place| *place != path) {
        let Some(file) = open_if_there(place, problems) else {
            continue;
        };
        if keep(expect_made_with(module, &file, checksum), problems).is_some() {
            return Some(file);
        }
    }
    None
}

/// By the build-id if both have one: the checksum is over every byte of the debug file.
fn expect_made_with(module: &ElfFile, file: &ElfFile, checksum: u32) -> Result<(), Problem> {
    if let (Some(wanted), Some(_)) = (module.build_id(), file.build_id()) {
        return file.expect_build_id(&wanted);
    }
    if crc32fast::hash(file.bytes()) == checksum {
        return Ok(());
    }
    Err(Problem::OtherChecksum {
        path: file.path.clone(),
    })
}

/// The file that `.gnu_debugaltlink` of `file` names: what several debug files have in common.
pub(crate) fn alternate_file(
    file: &ElfFile,
    debug_directory: &Path,
    problems: &mut Vec<Problem>,
) -> Option<ElfFile> {
    let object = file.parse().ok()?;
    let (name, build_id) = object.gnu_debugaltlink().ok().flatten()?;
    let named = Path::new(str::from_utf8(name).ok()?);
    let named = file.path.parent()?.join(named);
    let places = [Some(named), path_of_build_id(build_id, debug_directory)];
    for place in places.into_iter().flatten() {
        let Some(alternate) = open_if_there(&place, problems) else {
            continue;
        };
        if keep(alternate.expect_build_id(build_id), problems).is_some() {
            return Some(alternate);
        }
    }
    None
}

/// A debug file that is not installed is no problem; one that cannot be read is.
fn open_if_there(path: &Path, problems: &mut Vec<Problem>) -> Option<ElfFile> {
    if !path.exists() {
        return None;
    }
    keep(ElfFile::open(path), problems)
}

fn keep<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}
