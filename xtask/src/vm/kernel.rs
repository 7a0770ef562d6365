//! Debian's kernels: found by series, fetched once, kept unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    archive::{self, Suite},
    debian::Debian,
};
use crate::command;

/// What is run when no kernel is named.
pub(crate) const DEFAULT: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7"];

/// Where a series is kept up to date. Half as large as the generic flavour, with the same network modules.
const FLAVOUR: &str = "-cloud-amd64";

/// Suites that have a series, the best source first.
const HOMES: [(&str, &str); 3] =
    [("5.10", "bullseye-security"), ("6.1", "bookworm-security"), ("6.12", "trixie-security")];

/// Suites with kernels that are newer than those of any release.
const NEWER: [&str; 3] = ["trixie-backports", "sid", "experimental"];

/// The file that says what is unpacked beside it.
const LABEL: &str = "kernel.json";

/// Kernels that agree in the first numbers of their version, such as `6.12`, or `7` for the newest 7.x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series(Vec<u32>);

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split('.').map(str::parse).collect::<Result<Vec<_>, _>>();
        match numbers {
            Ok(numbers) if numbers.len() <= 3 => Ok(Self(numbers)),
            _ => Err("give a kernel series such as 6.12, or 7 for the newest 7.x".to_owned()),
        }
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

impl Series {
    fn suites(&self) -> Vec<&'static str> {
        let name = self.to_string();
        match HOMES.iter().find(|(series, _)| *series == name) {
            Some((_, home)) => vec![home],
            None => NEWER.to_vec(),
        }
    }

    fn has(&self, release: &[u32]) -> bool {
        release.starts_with(&self.0)
    }
}

/// A kernel, unpacked and ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The series as it was asked for.
    pub(crate) series: Series,
    /// What `uname -r` says.
    pub(crate) release: String,
    /// Version of Debian's package.
    pub(crate) version: String,
    dir: PathBuf,
}

impl Kernel {
    /// The kernel of this series: the cached one, or with `update` the newest there is.
    pub(crate) fn get(series: &Series, update: bool, debian: &Debian, cache: &Path) -> Result<Self> {
        let dir = cache.join("kernels").join(series.to_string());
        let cached = Self::read(series, &dir);
        let fetched = match &cached {
            Some(kernel) if !update => return Ok(kernel.clone()),
            cached => Self::fetch(series, cached.as_ref(), &dir, debian, cache),
        };
        match (fetched, cached) {
            (Err(error), Some(kernel)) => {
                eprintln!("warning: the newest {series} cannot be had: {error:#}");
                eprintln!("warning: using {} from the cache", kernel.version);
                Ok(kernel)
            }
            (fetched, _) => fetched.with_context(|| format!("there is no kernel {series}")),
        }
    }

    /// The compressed kernel image.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The directory of its modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules").join(&self.release)
    }

    fn read(series: &Series, dir: &Path) -> Option<Self> {
        let label: Value = serde_json::from_slice(&fs::read(dir.join(LABEL)).ok()?).ok()?;
        let text = |field: &str| Some(label[field].as_str()?.to_owned());
        Some(Self {
            series: series.clone(),
            release: text("release")?,
            version: text("version")?,
            dir: dir.into(),
        })
    }

    fn fetch(
        series: &Series,
        cached: Option<&Self>,
        dir: &Path,
        debian: &Debian,
        cache: &Path,
    ) -> Result<Self> {
        let (suite, release) = newest(series, cache)?;
        let image = image_package(&suite, &release)?;
        let version = suite.version(&image)?;
        if let Some(cached) = cached.filter(|cached| cached.version == version) {
            return Ok(cached.clone());
        }
        let mut packages = vec![image];
        // Since 6.19 the image comes apart from its modules, and from the list of what is built in.
        for part in ["linux-modules-", "linux-base-"] {
            packages.extend(suite.packages(&format!("{part}{release}"), FLAVOUR)?);
        }
        let fresh = dir.with_extension("new");
        archive::empty(&fresh)?;
        for deb in suite.download(&packages)? {
            archive::unpack(&deb, &fresh)?;
        }
        arrange(&fresh, &release, debian)?;
        let label = json!({
            "release": release,
            "version": version,
            "suite": suite.name(),
            "packages": packages,
        });
        fs::write(fresh.join(LABEL), format!("{label:#}\n")).context("cannot label a kernel")?;
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        fs::rename(&fresh, dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Self::read(series, dir).context("the kernel just fetched is not there")
    }
}

/// The suite with the newest kernel of a series, and that kernel's release.
fn newest(series: &Series, cache: &Path) -> Result<(Suite, String)> {
    let mut best: Option<(Vec<u32>, Suite, String)> = None;
    for name in series.suites() {
        let suite = Suite::new(name, cache)?;
        suite.update()?;
        let release = releases(&suite)?
            .into_iter()
            .filter(|release| series.has(&numbers(release)))
            .max_by_key(|release| numbers(release));
        let Some(release) = release else { continue };
        let version = numbers(&release);
        // A release candidate lies in experimental, and is wanted only when nothing else is there.
        if best.as_ref().is_none_or(|(other, ..)| *other < version && name != "experimental") {
            best = Some((version, suite, release));
        }
    }
    match best {
        Some((_, suite, release)) => Ok((suite, release)),
        None => bail!("no kernel {series} in Debian's {}", series.suites().join(", ")),
    }
}

/// The kernels of a suite, by what `uname -r` says.
fn releases(suite: &Suite) -> Result<Vec<String>> {
    let names = suite.packages("linux-image-", FLAVOUR)?;
    let releases = names.iter().filter_map(|name| name.strip_prefix("linux-image-"));
    // A package like linux-image-6.12-cloud-amd64 may be one that follows the newest; two numbers are no
    // release there, but they are for a release candidate.
    Ok(releases.map(str::to_owned).collect())
}

/// The package with the bootable image.
fn image_package(suite: &Suite, release: &str) -> Result<String> {
    let split = format!("linux-binary-{release}");
    let there = suite.packages(&split, FLAVOUR)?.contains(&split);
    Ok(if there { split } else { format!("linux-image-{release}") })
}

/// All numbers of a release: `6.12.115+deb13.1-cloud-amd64` is newer than `6.12.115+deb13-cloud-amd64`.
fn numbers(release: &str) -> Vec<u32> {
    let release = release.strip_suffix(FLAVOUR).unwrap_or(release);
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Brings the image, and the modules as the guest will see them, to one place in all packages.
fn arrange(root: &Path, release: &str, debian: &Debian) -> Result<()> {
    let modules = root.join("lib/modules");
    if !modules.is_dir() {
        fs::create_dir_all(root.join("lib")).context("cannot arrange a kernel")?;
        fs::rename(root.join("usr/lib/modules"), &modules).context("the packages brought no modules")?;
    }
    let modules = modules.join(release);
    let images = [root.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image =
        images.iter().find(|image| image.is_file()).context("the packages brought no kernel image")?;
    fs::rename(image, root.join("vmlinuz")).context("cannot arrange a kernel")?;
    for leftover in ["boot", "usr", "etc"] {
        let leftover = root.join(leftover);
        if leftover.is_dir() {
            fs::remove_dir_all(&leftover).with_context(|| format!("cannot remove {}", leftover.display()))?;
        }
    }

    // Now rather than in the guest, where it takes many times as long.
    let compressed = compressed(&modules)?;
    command::announce("unpack", &format!("{release}, {} compressed modules", compressed.len()));
    for some in compressed.chunks(500) {
        command::output(debian.program("xz")?.arg("-d").args(some))?;
    }
    let mut depmod: Command = debian.program("depmod")?;
    command::output(depmod.arg("-b").arg(root).arg(release))?;
    Ok(())
}

/// Compressed modules below a directory.
fn compressed(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(compressed(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "xz") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_its_kernels_and_no_others() {
        let has =
            |series: &str, release: &str| Series::from_str(series).expect("a series").has(&numbers(release));
        assert!(has("6.1", "6.1.0-56-cloud-amd64"));
        assert!(!has("6.1", "6.12.117+deb13-cloud-amd64"));
        assert!(has("7", "7.3.4+deb13-cloud-amd64"));
        assert!(has("7.3", "7.3-cloud-amd64"));
        assert!(Series::from_str("newest").is_err());
    }

    #[test]
    fn newer_kernels_have_greater_numbers() {
        let newest = ["6.12.115+deb13", "6.12.115+deb13.1", "6.12.90+deb13.1", "6.12.9+deb13"];
        let newest = newest.iter().max_by_key(|release| numbers(release)).expect("there are some");
        assert_eq!(*newest, "6.12.115+deb13.1");
        assert!(numbers("6.1.0-56-cloud-amd64") > numbers("6.1.0-9-cloud-amd64"));
    }
}
