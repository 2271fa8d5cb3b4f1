//! Puts the agent where the dynamic loader can preload it from.
//!
//! The bytes travel inside the command. They are written once per user and version, to a cache
//! directory that nobody else can write to, and compared on every later use.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{SessionError, plain, signals, system};

/// Where the agent comes from.
#[derive(Clone, Copy, Debug)]
pub enum AgentSource<'a> {
    /// These bytes, to be written somewhere.
    Embedded(&'a [u8]),
    /// A file that is used where it is (`HEAPTIDE_AGENT`).
    File(&'a Path),
}

/// Directories that may take the agent, from the caller's environment.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `XDG_CACHE_HOME`
    pub cache_home: Option<OsString>,
    /// `HOME`
    pub home: Option<OsString>,
    /// `TMPDIR`
    pub temporary: Option<OsString>,
}

impl Places {
    /// From the environment of this process.
    #[must_use]
    pub fn current() -> Self {
        let non_empty = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            cache_home: non_empty("XDG_CACHE_HOME"),
            home: non_empty("HOME"),
            temporary: non_empty("TMPDIR"),
        }
    }
}

/// An agent that can be preloaded for as long as this value lives.
#[derive(Debug)]
pub struct PlacedAgent {
    path: PathBuf,
    keep: Keep,
}

/// What must stay for the file to stay.
#[derive(Debug)]
enum Keep {
    /// The cache, or the user's own file.
    Nothing,
    /// A directory of this session alone, removed at its end.
    Directory(PathBuf),
    /// A file in memory, reached through `/proc/<our pid>/fd`.
    Memory(#[expect(dead_code, reason = "held open, never read")] File),
}

impl PlacedAgent {
    /// Absolute path, free of the characters that separate entries of `LD_PRELOAD`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PlacedAgent {
    fn drop(&mut self) {
        if let Keep::Directory(directory) = &self.keep {
            // Nobody is left to tell, and a stale temporary directory harms nobody.
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// Makes the agent preloadable: from the cache, else from a temporary directory, else from memory.
///
/// # Errors
/// [`SessionError::Agent`] with the reason why each place was refused.
pub fn place(source: AgentSource<'_>, places: &Places) -> Result<PlacedAgent, SessionError> {
    let bytes = match source {
        AgentSource::File(path) => return place_file(path),
        AgentSource::Embedded(bytes) => bytes,
    };
    // Kept until the end of this function.
    let _guard = signals::ignore_file_size_limit();
    let mut refusals = Vec::new();
    let mut refuse = |place: &Path, why: &io::Error| {
        refusals.push(format!("{}: {}", place.display(), plain(why)));
    };

    let home_cache = places
        .home
        .as_ref()
        .map(|home| Path::new(home).join(".cache"));
    let cache_home = places.cache_home.as_ref().map(PathBuf::from);
    for base in [cache_home, home_cache].into_iter().flatten() {
        let directory = base.join("heaptide");
        match place_in_cache(&directory, bytes) {
            Ok(path) => {
                return Ok(PlacedAgent {
                    path,
                    keep: Keep::Nothing,
                });
            }
            Err(error) => refuse(&directory, &error),
        }
    }
    let temporary = places.temporary.as_ref().map(PathBuf::from);
    for base in [temporary, Some(PathBuf::from("/tmp"))]
        .into_iter()
        .flatten()
    {
        match place_in_temporary(&base, bytes) {
            Ok(placed) => return Ok(placed),
            Err(error) => refuse(&base, &error),
        }
    }
    match place_in_memory(bytes) {
        Ok(placed) => Ok(placed),
        Err(error) => {
            refuse(Path::new("memory"), &error);
            Err(SessionError::Agent(refusals.join("; ")))
        }
    }
}

fn place_file(path: &Path) -> Result<PlacedAgent, SessionError> {
    let refuse = |why: &io::Error| {
        SessionError::Agent(format!("HEAPTIDE_AGENT={}: {}", path.display(), plain(why)))
    };
    let path = std::path::absolute(path).map_err(|error| refuse(&error))?;
    File::open(&path).map_err(|error| refuse(&error))?;
    check_separators(&path).map_err(|error| refuse(&error))?;
    Ok(PlacedAgent {
        path,
        keep: Keep::Nothing,
    })
}

fn place_in_cache(directory: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    if !directory.is_absolute() {
        return Err(io::Error::other("not an absolute path"));
    }
    check_separators(directory)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    check_private_directory(directory)?;
    check_exec(directory)?;
    let path = directory.join(file_name(bytes));
    if holds(&path, bytes) {
        return Ok(path);
    }
    // Written beside and renamed, so that no process ever sees half an agent.
    let partial = directory.join(format!(".partial-{}", std::process::id()));
    let _ = std::fs::remove_file(&partial);
    write_new(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, &path))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&partial);
        })?;
    Ok(path)
}

fn place_in_temporary(base: &Path, bytes: &[u8]) -> io::Result<PlacedAgent> {
    if !base.is_absolute() {
        return Err(io::Error::other("not an absolute path"));
    }
    check_separators(base)?;
    check_exec(base)?;
    let directory = system::private_directory(base)?;
    let path = directory.join(file_name(bytes));
    // Built before writing, so that a failure to write removes what is there.
    let placed = PlacedAgent {
        path,
        keep: Keep::Directory(directory),
    };
    write_new(&placed.path, bytes)?;
    Ok(placed)
}

fn place_in_memory(bytes: &[u8]) -> io::Result<PlacedAgent> {
    let mut file = system::memory_file(c"heaptide-agent")?;
    file.write_all(bytes)?;
    let path = PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        file.as_raw_fd()
    ));
    Ok(PlacedAgent {
        path,
        keep: Keep::Memory(file),
    })
}

/// The name changes with the content, so versions live side by side.
fn file_name(bytes: &[u8]) -> String {
    format!(
        "agent-{}-{:08x}.so",
        env!("CARGO_PKG_VERSION"),
        heaptide_format::checksum(bytes)
    )
}

/// A cache that others can write to would let them run code as us.
fn check_private_directory(directory: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(directory)?;
    if metadata.uid() != system::effective_user() {
        return Err(io::Error::other("owned by another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("writable by others"));
    }
    Ok(())
}

fn check_exec(directory: &Path) -> io::Result<()> {
    if system::allows_exec(directory)? {
        Ok(())
    } else {
        Err(io::Error::other("mounted noexec"))
    }
}

/// The loader splits `LD_PRELOAD` at colons and white space and knows no quoting.
fn check_separators(path: &Path) -> io::Result<()> {
    let separator = |byte: &u8| *byte == b':' || byte.is_ascii_whitespace();
    // `$` starts a token that the loader would expand.
    if path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| separator(byte) || *byte == b'$')
    {
        return Err(io::Error::other(
            "the path holds a colon, a space or a $, which LD_PRELOAD cannot carry",
        ));
    }
    Ok(())
}

/// How much of the agent is compared at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Whether `path` is our own regular file with exactly these bytes.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    let Ok(mut file) = open else { return false };
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    if !metadata.is_file()
        || metadata.len() != bytes.len() as u64
        || metadata.uid() != system::effective_user()
        || metadata.mode() & 0o022 != 0
    {
        return false;
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    // In pieces: the supervisor should stay small.
    bytes.chunks(CHUNK_BYTES).all(|expected| {
        let found = &mut chunk[..expected.len()];
        file.read_exact(found).is_ok() && found == expected
    })
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const BYTES: &[u8] = b"\x7fELF pretend";

    fn place_with(places: &Places) -> PlacedAgent {
        place(AgentSource::Embedded(BYTES), places).unwrap()
    }

    #[test]
    fn the_cache_is_used_again_and_repaired() {
        let root = tempfile::tempdir().unwrap();
        let places = Places {
            cache_home: Some(root.path().into()),
            ..Places::default()
        };
        let path = place_with(&places).path().to_owned();
        assert!(path.starts_with(root.path().join("heaptide")));
        assert_eq!(std::fs::read(&path).unwrap(), BYTES);
        let inode = std::fs::metadata(&path).unwrap().ino();
        assert_eq!(
            std::fs::metadata(place_with(&places).path()).unwrap().ino(),
            inode
        );
        std::fs::write(&path, b"damaged agent").unwrap();
        assert_eq!(std::fs::read(place_with(&places).path()).unwrap(), BYTES);
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no partial file stays");
    }

    #[test]
    fn a_cache_that_others_can_write_to_is_not_trusted() {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path().join("heaptide");
        std::fs::create_dir(&cache).unwrap();
        std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o777)).unwrap();
        let temporary = tempfile::tempdir().unwrap();
        let places = Places {
            cache_home: Some(root.path().into()),
            home: None,
            temporary: Some(temporary.path().into()),
        };
        let placed = place_with(&places);
        assert!(placed.path().starts_with(temporary.path()));
        drop(placed);
        assert_eq!(
            std::fs::read_dir(temporary.path()).unwrap().count(),
            0,
            "removed at the end"
        );
    }

    #[test]
    fn a_path_that_ld_preload_cannot_carry_is_skipped() {
        let root = tempfile::tempdir().unwrap();
        let odd = root.path().join("a b");
        let home = root.path().join("home");
        std::fs::create_dir(&odd).unwrap();
        let places = Places {
            cache_home: Some(odd.into()),
            home: Some(home.clone().into()),
            temporary: None,
        };
        assert!(
            place_with(&places)
                .path()
                .starts_with(home.join(".cache/heaptide"))
        );
        let file = root.path().join("x:y.so");
        std::fs::write(&file, BYTES).unwrap();
        assert!(place(AgentSource::File(&file), &places).is_err());
    }

    #[test]
    fn memory_is_the_last_resort() {
        let placed = place_in_memory(BYTES).unwrap();
        assert_eq!(std::fs::read(placed.path()).unwrap(), BYTES);
    }
}
