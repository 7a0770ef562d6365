//! Files and names that somebody else controls: bounded, never blocking, harmless to print.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// Characters of a name that are kept.
const NAME_LENGTH: usize = 256;

/// The whole of a regular file of at most `limit` bytes.
///
/// Opening does not wait for the writer of a FIFO; whatever is no regular file is refused.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    bounded(
        openat(
            CWD,
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
        )?,
        limit,
    )
}

/// As [`read`], for a file some levels below `root`, where no step may be a symbolic link: the path stays
/// inside `root`. The root itself may be one, an administrator's choice.
pub(super) fn read_beneath(root: &Path, steps: &[&str], limit: usize) -> io::Result<Vec<u8>> {
    let inner = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let mut file = openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for step in steps {
        if matches!(*step, "" | "." | "..") || step.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
        }
        file = openat(&file, *step, inner, Mode::empty())?;
    }
    bounded(file, limit)
}

fn bounded(file: OwnedFd, limit: usize) -> io::Result<Vec<u8>> {
    if !FileType::from_raw_mode(fstat(&file)?.st_mode).is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    // The size that fstat tells is 0 in procfs, and can change: reading decides.
    File::from(file).take(limit as u64 + 1).read_to_end(&mut content)?;
    if content.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than such a file can be"));
    }
    Ok(content)
}

/// `name` with control characters, direction overrides and their like escaped, and cut to a length that
/// no honest name reaches: what is printed cannot steer a terminal.
pub(crate) fn printable(name: &str) -> String {
    let mut shown = String::with_capacity(name.len().min(NAME_LENGTH));
    for (position, character) in name.chars().enumerate() {
        if position == NAME_LENGTH {
            shown.push('…');
            break;
        }
        match character {
            // What escape_debug escapes for the sake of Rust literals is harmless here.
            '"' | '\'' | '\\' => shown.push(character),
            _ => {
                let written = write!(shown, "{}", character.escape_debug());
                debug_assert!(written.is_ok(), "a String takes everything");
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(printable("web-1_a.b"), "web-1_a.b");
        assert_eq!(printable("a\x1b[31mb\n\u{7f}"), "a\\u{1b}[31mb\\n\\u{7f}");
        assert_eq!(printable("a\u{202e}b\u{9b}"), "a\\u{202e}b\\u{9b}");
        assert_eq!(printable("o'brien \"x\""), "o'brien \"x\"");
        assert_eq!(printable("näme"), "näme");
        let long = printable(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), NAME_LENGTH + 1);
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn only_regular_files_are_read_and_a_fifo_does_not_block() {
        let scratch = tempfile::tempdir().unwrap();
        let fifo = scratch.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(read(&fifo, 100).is_err());
        assert!(read_beneath(scratch.path(), &["fifo"], 100).is_err());
        assert!(read(scratch.path(), 100).is_err());
    }

    #[test]
    fn no_link_leads_out() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/file"), "inside").unwrap();
        fs::write(scratch.path().join("secret"), "outside").unwrap();
        symlink(scratch.path().join("secret"), root.join("a/link")).unwrap();
        symlink(scratch.path(), root.join("b")).unwrap();
        symlink(&root, scratch.path().join("moved")).unwrap();
        assert_eq!(read_beneath(&root, &["a", "file"], 100).unwrap(), b"inside");
        assert_eq!(read_beneath(&scratch.path().join("moved"), &["a", "file"], 100).unwrap(), b"inside");
        assert!(read_beneath(&root, &["a", "link"], 100).is_err());
        assert!(read_beneath(&root, &["b", "secret"], 100).is_err());
        assert!(read_beneath(&root, &["..", "secret"], 100).is_err());
        assert!(read_beneath(&root, &["a/../../secret"], 100).is_err());
    }
}
