//! Small questions to the kernel, each behind a safe function.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch; zero before it.
pub(crate) fn unix_now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

/// Size of a page.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size)
        .ok()
        .filter(|size| size.is_power_of_two())
        .unwrap_or(4096)
}

/// Effective user id.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: no preconditions, cannot fail.
    unsafe { libc::geteuid() }
}

/// Host name, empty when it cannot be had.
pub(crate) fn host_name() -> OsString {
    let mut buffer = [0u8; 256];
    // SAFETY: the buffer is writable for the length given.
    let failed = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len()) } != 0;
    match CStr::from_bytes_until_nul(&buffer) {
        Ok(name) if !failed => OsString::from_vec(name.to_bytes().to_vec()),
        _ => OsString::new(),
    }
}

/// `/proc/sys/kernel/random/boot_id` as bytes; zero when unknown.
pub(crate) fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    parse_boot_id(&text).unwrap_or_default()
}

/// Sixteen random bytes; zero when they cannot be had.
pub(crate) fn random_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    parse_boot_id(&text).unwrap_or_default()
}

fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Inode number of this process's pid namespace; zero when unknown.
pub(crate) fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino())
}

/// Start time of a process in clock ticks since boot; zero when unknown.
pub(crate) fn process_start_ticks(pid: u32) -> u64 {
    let text = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse_start_ticks(&text).unwrap_or(0)
}

/// Field 22 of `/proc/PID/stat`.
pub(crate) fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    // The first after the name is field 3.
    after_name(stat)?.nth(22 - 3)?.parse().ok()
}

/// The letter of `/proc/PID/stat` that says what the process does.
pub(crate) fn parse_state(stat: &[u8]) -> Option<u8> {
    after_name(stat)?.next()?.bytes().next()
}

fn after_name(stat: &[u8]) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    // The second field is the command name, which may hold spaces and parentheses of its own.
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let text = std::str::from_utf8(&stat[after_name..]).ok()?;
    Some(text.split_ascii_whitespace())
}

/// Whether programs may be executed (and libraries mapped) from the file system of `path`.
pub(crate) fn allows_exec(path: &Path) -> io::Result<bool> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut status: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated, `status` is writable.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut status) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status.f_flag & libc::ST_NOEXEC == 0)
}

/// Room left on the file system of `path`, bytes.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut status: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated, `status` is writable.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut status) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Gives back the blocks of a range; it reads as zeros from then on.
pub(crate) fn punch_hole(file: &File, start: u64, bytes: u64) -> io::Result<()> {
    let offset =
        |value| libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG));
    let (start, bytes) = (offset(start)?, offset(bytes)?);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    if unsafe { libc::fallocate(file.as_raw_fd(), mode, start, bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Programs count on the low numbers, and one that has closed its standard streams writes to them all the same.
const HIGH_DESCRIPTOR: libc::c_int = 700;

/// The same file or socket under a high number, where the limit of descriptors leaves one free. For what stays open in a
/// process that is not ours.
pub(crate) fn out_of_the_way<T: AsRawFd + From<OwnedFd>>(descriptor: T) -> T {
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: `limit` is writable.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let highest = libc::c_int::try_from(limit.rlim_cur).map_or(HIGH_DESCRIPTOR, |limit| limit - 1);
    for lowest in [HIGH_DESCRIPTOR.min(highest), 3] {
        // SAFETY: takes numbers only.
        let high = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
        if high >= 0 {
            // SAFETY: a new descriptor that nobody else owns.
            return T::from(unsafe { OwnedFd::from_raw_fd(high) });
        }
    }
    descriptor
}

/// Device and inode of what a descriptor stands for.
pub(crate) fn identity(descriptor: &impl AsRawFd) -> io::Result<(u64, u64)> {
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `status` is writable; a descriptor that the program has closed is an error like others.
    if unsafe { libc::fstat(descriptor.as_raw_fd(), &raw mut status) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((status.st_dev, status.st_ino))
}

/// Is this the device that takes everything and keeps nothing?
pub(crate) fn is_null_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|metadata| {
        metadata.file_type().is_char_device() && metadata.rdev() == libc::makedev(1, 3)
    })
}

/// Allocates the first `bytes` of `file` on disk, so that later stores to a mapping cannot fail.
pub(crate) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let length =
        libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
            0 => return Ok(()),
            libc::EINTR => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// Maps the first page of `file` shared and writable and unmaps it again: proof that the agent can.
pub(crate) fn prove_shared_mapping(file: &File) -> io::Result<()> {
    let length = page_bytes();
    // SAFETY: a new mapping at an address of the kernel's choice; nothing else is touched.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: exactly the mapping made above, to which no reference exists.
    unsafe { libc::munmap(address, length) };
    Ok(())
}

/// Gives an open file without a name (`O_TMPFILE`) its first one. `from` is its `/proc/self/fd` path.
pub(crate) fn link_open_file(from: &CStr, to: &CStr) -> io::Result<()> {
    let here = libc::AT_FDCWD;
    let follow = libc::AT_SYMLINK_FOLLOW;
    // SAFETY: two NUL-terminated paths.
    if unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), follow) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// An anonymous file in memory.
pub(crate) fn memory_file(name: &CStr) -> io::Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: the name is NUL-terminated.
    let descriptor = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// A new directory of mode 0700 under `parent`, with a name of its own.
pub(crate) fn private_directory(parent: &Path) -> io::Result<std::path::PathBuf> {
    let template = c_string(parent.join("heaptide-XXXXXX").as_os_str().as_bytes())?;
    let mut template = template.into_bytes_with_nul();
    // SAFETY: a writable NUL-terminated template that ends in six X.
    if unsafe { libc::mkdtemp(template.as_mut_ptr().cast()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    template.pop();
    Ok(OsString::from_vec(template).into())
}

/// `bytes` as a C string; an inner NUL is an invalid argument.
pub(crate) fn c_string(bytes: &[u8]) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ids() {
        let parsed = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(parsed[..3], [0x00, 0x11, 0x22]);
        assert_eq!(parsed[15], 0xff);
        for text in [
            "",
            "001122",
            "zz112233-4455-6677-8899-aabbccddeeff",
            "é0112233-4455-6677-8899-aabbccddeef",
        ] {
            assert_eq!(parse_boot_id(text), None);
        }
    }

    #[test]
    fn start_ticks_behind_an_odd_name() {
        let line = b"12 (a ) 1 (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21\n";
        assert_eq!(parse_start_ticks(line), Some(987_654));
        assert_eq!(parse_state(line), Some(b'S'));
        assert_eq!(parse_state(b"12 (a"), None);
        assert_eq!(parse_start_ticks(b"12 (a) S 1"), None);
        assert_eq!(parse_start_ticks(b""), None);
        assert!(process_start_ticks(std::process::id()) > 0);
    }

    #[test]
    fn a_mapping_can_be_proven() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap();
        allocate(&file, 4096).unwrap();
        prove_shared_mapping(&file).unwrap();
        assert!(allows_exec(directory.path()).is_ok());
    }
}
