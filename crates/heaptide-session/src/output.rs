//! Where the capture goes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::SessionError;

/// The longest file name that common file systems take is 255 bytes; captures of children add two numbers.
const NAME_BYTES: usize = 255 - 24;

/// What the placeholders of an output name stand for.
#[derive(Clone, Debug)]
pub struct Placeholders {
    /// `%p`
    pub pid: u32,
    /// `%t`, seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// `%h`
    pub host: OsString,
}

/// Checks what can be checked of `-o` before there is a process.
///
/// # Errors
/// [`SessionError::OutputPattern`]
pub fn check(output: Option<&OsStr>) -> Result<(), SessionError> {
    let placeholders = Placeholders {
        pid: 0,
        unix_seconds: 0,
        host: OsString::new(),
    };
    output.map_or(Ok(()), |pattern| expand(pattern, &placeholders).map(|_| ()))
}

/// The path of the capture: `-o` with its placeholders filled in, or the default name, which also
/// goes into a directory that `-o` names.
///
/// # Errors
/// [`SessionError::OutputPattern`]
pub fn choose(
    output: Option<&OsStr>,
    stem: &OsStr,
    placeholders: &Placeholders,
) -> Result<PathBuf, SessionError> {
    let Some(pattern) = output else {
        return Ok(default_name(stem, placeholders.pid));
    };
    let path = expand(pattern, placeholders)?;
    Ok(if path.is_dir() {
        path.join(default_name(stem, placeholders.pid))
    } else {
        path
    })
}

/// `heaptide-<stem>.<pid>.tide`, the stem cut where the name would be too long for a file.
fn default_name(stem: &OsStr, pid: u32) -> PathBuf {
    let tail = format!(".{pid}.tide");
    let mut name = b"heaptide-".to_vec();
    let mut room = NAME_BYTES - name.len() - tail.len();
    let stem = stem.as_bytes();
    if stem.len() > room {
        // Do not cut a UTF-8 sequence.
        while room > 0 && stem[room] & 0xC0 == 0x80 {
            room -= 1;
        }
    }
    name.extend_from_slice(&stem[..stem.len().min(room)]);
    name.extend_from_slice(tail.as_bytes());
    PathBuf::from(OsString::from_vec(name))
}

fn expand(pattern: &OsStr, placeholders: &Placeholders) -> Result<PathBuf, SessionError> {
    let refuse = |why: String| SessionError::OutputPattern {
        pattern: pattern.to_owned(),
        why,
    };
    if pattern.is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    let mut path = Vec::with_capacity(pattern.len() + 16);
    let mut bytes = pattern.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'p') => path.extend(placeholders.pid.to_string().bytes()),
            Some(b't') => path.extend(placeholders.unix_seconds.to_string().bytes()),
            Some(b'h') => path.extend_from_slice(placeholders.host.as_bytes()),
            Some(b'%') => path.push(b'%'),
            Some(&other) => {
                return Err(refuse(format!(
                    "%{} is not a placeholder",
                    char::from(other).escape_default()
                )));
            }
            None => return Err(refuse("it ends in a single %".to_owned())),
        }
    }
    Ok(PathBuf::from(OsString::from_vec(path)))
}

/// The path as the agent must see it: absolute, whatever directory the program changes to.
#[must_use]
pub fn absolute(path: &Path, working_directory: &Path) -> PathBuf {
    // `join` replaces the base when `path` is absolute already.
    working_directory.join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placeholders() -> Placeholders {
        Placeholders {
            pid: 4711,
            unix_seconds: 1_700_000_000,
            host: "box".into(),
        }
    }

    fn chosen(output: Option<&str>) -> PathBuf {
        choose(output.map(OsStr::new), OsStr::new("app"), &placeholders()).unwrap()
    }

    #[test]
    fn the_default_is_named_after_the_target() {
        assert_eq!(chosen(None), Path::new("heaptide-app.4711.tide"));
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(
            chosen(Some("d/%h-%p-%t-100%%.tide")),
            Path::new("d/box-4711-1700000000-100%.tide")
        );
    }

    #[test]
    fn a_directory_takes_the_default_name() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().to_str().unwrap();
        assert_eq!(
            chosen(Some(text)),
            directory.path().join("heaptide-app.4711.tide")
        );
    }

    #[test]
    fn unknown_placeholders_are_refused() {
        for pattern in ["a%x", "a%", "", "%\u{e9}"] {
            assert!(check(Some(OsStr::new(pattern))).is_err(), "{pattern}");
        }
        assert!(check(Some(OsStr::new("%p%t%h%%"))).is_ok());
        assert!(check(None).is_ok());
    }

    #[test]
    fn a_long_stem_is_cut_at_a_character() {
        for prefix in 0..3 {
            let stem = "x".repeat(prefix) + &"é".repeat(200);
            let name = default_name(OsStr::new(&stem), 1)
                .into_os_string()
                .into_string()
                .unwrap();
            assert!(
                name.len() <= NAME_BYTES
                    && name.len() >= NAME_BYTES - 1
                    && name.ends_with(".1.tide")
            );
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_kept() {
        let path = choose(
            Some(OsStr::from_bytes(b"\xff-%p")),
            OsStr::new("a"),
            &placeholders(),
        )
        .unwrap();
        assert_eq!(path.as_os_str().as_bytes(), b"\xff-4711");
    }
}
