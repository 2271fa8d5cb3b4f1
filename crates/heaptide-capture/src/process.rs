//! Whether the process of a capture still runs.

use std::fs;
use std::os::unix::fs::MetadataExt;

use heaptide_format::Identity;

/// What the process table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// The very process that the capture names is there.
    Running,
    /// It is not there any more.
    Gone,
    /// It cannot be seen from here (another pid namespace).
    NotVisible,
}

/// Looks for the process that a capture names. A pid alone proves nothing, because pids are used
/// again: boot, pid namespace and start time must agree too.
#[must_use]
pub fn process_state(identity: &Identity) -> ProcessState {
    if identity.boot_id != [0; 16] && boot_id().is_some_and(|boot_id| boot_id != identity.boot_id) {
        return ProcessState::Gone;
    }
    if identity.pid_namespace != 0
        && pid_namespace().is_some_and(|inode| inode != identity.pid_namespace)
    {
        return ProcessState::NotVisible;
    }
    match fs::read(format!("/proc/{}/stat", identity.pid)) {
        Ok(stat) => match parse_stat(&stat) {
            Some((b'Z' | b'X' | b'x', _)) => ProcessState::Gone,
            Some((_, start)) if start == identity.process_start_ticks => ProcessState::Running,
            _ => ProcessState::Gone,
        },
        Err(_) => ProcessState::Gone,
    }
}

/// State letter and start time of `/proc/PID/stat`. The name in parentheses may hold anything, so
/// the fields are counted from the last parenthesis.
fn parse_stat(stat: &[u8]) -> Option<(u8, u64)> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let mut fields = stat[after_name..]
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let state = *fields.next()?.first()?;
    // The state is field 3 and the start time field 22.
    let start = fields.nth(22 - 4)?;
    Some((state, std::str::from_utf8(start).ok()?.parse().ok()?))
}

fn boot_id() -> Option<[u8; 16]> {
    parse_boot_id(&fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?)
}

fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text
        .trim()
        .bytes()
        .filter(|&byte| byte != b'-')
        .map(|byte| Some(char::from(byte).to_digit(16)? as u8))
        .collect::<Option<_>>()?;
    let mut id = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(id)
}

fn pid_namespace() -> Option<u64> {
    Some(fs::metadata("/proc/self/ns/pid").ok()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn identity_of_this_process() -> Identity {
        let mut identity = Identity::new_zeroed();
        identity.pid = std::process::id();
        identity.boot_id = boot_id().unwrap();
        identity.pid_namespace = pid_namespace().unwrap();
        identity.process_start_ticks = parse_stat(&fs::read("/proc/self/stat").unwrap()).unwrap().1;
        identity
    }

    #[test]
    fn this_process_runs_and_its_doubles_do_not() {
        let identity = identity_of_this_process();
        assert_eq!(process_state(&identity), ProcessState::Running);
        let mut other = identity;
        other.process_start_ticks += 1;
        assert_eq!(process_state(&other), ProcessState::Gone);
        other = identity;
        other.boot_id[0] ^= 1;
        assert_eq!(process_state(&other), ProcessState::Gone);
        other = identity;
        other.pid_namespace ^= 1;
        assert_eq!(process_state(&other), ProcessState::NotVisible);
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let stat = b"17 (a) Z (b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n";
        assert_eq!(parse_stat(stat), Some((b'R', 777)));
        assert_eq!(parse_stat(b"17 (x"), None);
    }
}
