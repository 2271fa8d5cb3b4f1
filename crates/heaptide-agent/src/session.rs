//! The session: what the supervisor asked for, and the removal of all traces of it.
//!
//! `HEAPTIDE_SESSION=1;<pid>;<node budget>;<options>;<capture path>`, `LD_PRELOAD=<agent>[:<rest>]`.

use core::ffi::{CStr, c_char};

/// See `family`.
pub(crate) const FOLLOW: &[u8] = b"HEAPTIDE_FOLLOW=";
const SESSION: &[u8] = b"HEAPTIDE_SESSION=";
const PRELOAD: &[u8] = b"LD_PRELOAD=";

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// What the supervisor asked for.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    /// The process it is for.
    pub(crate) pid: u32,
    /// Budget of stack nodes.
    pub(crate) node_budget: u32,
    /// What else is recorded, see `Identity::options`.
    pub(crate) options: u32,
    path: [u8; 4096],
    path_length: usize,
}

impl Session {
    /// Absolute path of the capture.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path[..self.path_length]
    }

    /// For a program that a followed one has started.
    pub(crate) fn of_started(pid: u32, options: u32) -> Self {
        Self {
            pid,
            node_budget: 0,
            options,
            path: [0; 4096],
            path_length: 0,
        }
    }

    /// Reads the session from the environment, which stays as it is.
    pub(crate) fn read() -> Option<Self> {
        let text = entries().find_map(|entry| entry.strip_prefix(SESSION))?;
        let mut fields = text.splitn(5, |byte| *byte == b';');
        if fields.next()? != b"1" {
            return None;
        }
        let pid = number(fields.next()?)?;
        let node_budget = number(fields.next()?)?;
        let options = number(fields.next()?)?;
        let path = fields.next()?;
        let mut session = Self {
            pid,
            node_budget,
            options,
            path: [0; 4096],
            path_length: path.len(),
        };
        session.path.get_mut(..path.len())?.copy_from_slice(path);
        Some(session)
    }
}

/// Takes the session and our own name out of the environment, so that the program and its children
/// find what they would have found without us. Before anybody has read the environment. What children that
/// are followed need stays.
pub(crate) fn remove_traces(followed: bool) {
    // SAFETY: called from our constructor, when the process has one thread and nobody has copied the
    // environment yet; the strings are the process's own and writable.
    unsafe {
        let mut to = environ;
        let mut from = environ;
        if from.is_null() {
            return;
        }
        while !(*from).is_null() {
            let entry = *from;
            let text = CStr::from_ptr(entry).to_bytes();
            let keep = if text.starts_with(SESSION) {
                false
            } else if followed {
                true
            } else if text.starts_with(FOLLOW) {
                false
            } else if text.starts_with(PRELOAD) {
                // We are first in the list. What follows belongs to the user.
                match text.iter().position(|byte| *byte == b':') {
                    Some(colon) => {
                        let start = entry.add(PRELOAD.len());
                        core::ptr::copy(entry.add(colon + 1), start, text.len() - colon);
                        true
                    }
                    None => false,
                }
            } else {
                true
            };
            if keep {
                *to = entry;
                to = to.add(1);
            }
            from = from.add(1);
        }
        *to = core::ptr::null_mut();
    }
}

pub(crate) fn entries() -> impl Iterator<Item = &'static [u8]> {
    // SAFETY: called from our constructor; the environment is a null-terminated array of C strings
    // that nobody changes meanwhile.
    let mut next = unsafe { environ };
    core::iter::from_fn(move || {
        // SAFETY: as above.
        unsafe {
            if next.is_null() || (*next).is_null() {
                return None;
            }
            let entry = CStr::from_ptr(*next).to_bytes();
            next = next.add(1);
            Some(entry)
        }
    })
}

pub(crate) fn number(digits: &[u8]) -> Option<u32> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}
