//! Archives that the kernel unpacks as its first file system ("newc", see cpio(5) and the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const REGULAR: u32 = 0o100_000;

/// An archive being written. Directories come by themselves, before what lies in them.
pub(crate) struct Archive {
    file: BufWriter<File>,
    directories: BTreeSet<PathBuf>,
    entries: u32,
}

impl Archive {
    /// Starts an archive.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { file: BufWriter::new(file), directories: BTreeSet::new(), entries: 0 })
    }

    /// Adds a directory, unless it is there.
    pub(crate) fn directory(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if path.as_os_str().is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.directories.insert(path.into());
        self.entry(path, DIRECTORY, &[])
    }

    /// Adds a file with these bytes.
    pub(crate) fn file(&mut self, path: impl AsRef<Path>, bytes: &[u8], executable: bool) -> Result<()> {
        let path = path.as_ref();
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.entry(path, REGULAR | if executable { 0o755 } else { 0o644 }, bytes)
    }

    /// Adds a copy of a file of this system.
    pub(crate) fn copy(&mut self, path: impl AsRef<Path>, from: &Path) -> Result<()> {
        let what = || format!("cannot read {}", from.display());
        let bytes = fs::read(from).with_context(what)?;
        let executable = fs::metadata(from).with_context(what)?.permissions().mode() & 0o111 != 0;
        self.file(path, &bytes, executable)
    }

    /// Adds copies of all files below a directory, following links.
    pub(crate) fn copy_all(&mut self, path: impl AsRef<Path>, from: &Path) -> Result<()> {
        for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry?;
            let to = path.as_ref().join(entry.file_name());
            if entry.path().is_dir() {
                self.copy_all(to, &entry.path())?;
            } else {
                self.copy(to, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: impl AsRef<Path>, to: &str) -> Result<()> {
        let path = path.as_ref();
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.entry(path, LINK, to.as_bytes())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, &[])?;
        self.file.flush().context("cannot write an archive")
    }

    fn entry(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
        self.entries += 1;
        write_entry(&mut self.file, self.entries, path, mode, bytes)
            .with_context(|| format!("cannot put {} into an archive", path.display()))
    }
}

fn write_entry(to: &mut impl Write, inode: u32, path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let name = path.as_os_str().as_encoded_bytes();
    let too_long = |_| io::Error::other("longer than the format allows");
    let length = u32::try_from(bytes.len()).map_err(too_long)?;
    let name_length = u32::try_from(name.len() + 1).map_err(too_long)?;
    // inode, mode, uid, gid, links, time, length, four device numbers, length of the name, checksum
    let fields = [inode, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
    let mut header = String::from("070701");
    header.extend(fields.iter().map(|field| format!("{field:08X}")));
    to.write_all(header.as_bytes())?;
    to.write_all(name)?;
    // The name ends in a zero; header and name together fill words of four bytes.
    to.write_all(&[0; 4][..1 + padding(header.len() + name.len() + 1)])?;
    to.write_all(bytes)?;
    to.write_all(&[0; 4][..padding(bytes.len())])
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_multiples_of_four() {
        let mut bytes = Vec::new();
        for (path, content) in [("a", "x"), ("ab", ""), ("abc", "12345"), ("abcd", "1234")] {
            assert_eq!(bytes.len() % 4, 0);
            write_entry(&mut bytes, 1, Path::new(path), REGULAR | 0o644, content.as_bytes())
                .expect("a vector takes everything");
        }
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with(
            "07070100000001000081A4000000000000000000000001000000000000000100000000000000000000000000000000\
             0000000200000000a\0x\0\0\x00070701"
        ));
    }

    #[test]
    fn directories_come_before_their_files_and_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("archive");
        let mut archive = Archive::create(&path).expect("it can be made");
        archive.file("usr/bin/one", b"1", true).expect("room");
        archive.file("usr/bin/two", b"2", false).expect("room");
        archive.link("sbin", "usr/bin").expect("room");
        archive.finish().expect("room");
        let bytes = fs::read(&path).expect("it is there");
        let names: Vec<_> =
            ["usr\0", "usr/bin\0", "usr/bin/one\0", "usr/bin/two\0", "sbin\0", "TRAILER!!!\0"]
                .iter()
                .map(|name| String::from_utf8_lossy(&bytes).find(name).expect("the entry is there"))
                .collect();
        assert!(names.is_sorted(), "{names:?}");
    }
}
