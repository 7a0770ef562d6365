//! Debian's archive, read with apt and a state of its own: nothing of this system's packages is touched.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{command, privilege::find_program};

/// Verifies what the archive says; it knows the keys of releases before and after its own.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite, with apt's state for it.
pub(crate) struct Suite {
    name: String,
    /// Everything that apt keeps.
    dir: PathBuf,
}

impl Suite {
    /// A suite of Debian's archive, such as `bookworm-security`, with its state under `cache`.
    pub(crate) fn new(name: &str, cache: &Path) -> Result<Self> {
        Self::together(&[name], cache)
    }

    /// Several suites as one, called by the first.
    pub(crate) fn together(names: &[&str], cache: &Path) -> Result<Self> {
        if find_program("apt-get").is_none() {
            bail!("there is no apt-get here to fetch Debian's packages with; this needs Debian or Ubuntu");
        }
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install debian-archive-keyring, which verifies Debian's packages");
        }
        let name = names.first().context("no suite is named")?;
        let suite = Self { name: (*name).to_owned(), dir: cache.join("apt").join(name) };
        for dir in ["lists/partial", "archives/partial"] {
            let dir = suite.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        suite.write("sources.list", &sources(names))?;
        suite.write("apt.conf", &configuration(&suite.dir))?;
        // As if nothing were installed: dependencies are then all there are.
        suite.write("status", "")?;
        Ok(suite)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.arg("-c").arg(self.dir.join("apt.conf")).env("LC_ALL", "C");
        apt
    }

    /// Fetches the lists of packages.
    pub(crate) fn update(&self) -> Result<()> {
        command::announce("package lists", &self.name);
        // Without this option apt takes it for a warning when the archive cannot be reached.
        let mut update = self.apt("apt-get");
        command::output(update.args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]))
            .with_context(|| format!("cannot fetch the package lists of {}", self.name))
            .context("is there network access?")?;
        Ok(())
    }

    /// Names of packages that begin with `prefix` and end with `suffix`.
    pub(crate) fn packages(&self, prefix: &str, suffix: &str) -> Result<Vec<String>> {
        let mut names = self.apt("apt-cache");
        let names = command::output(names.args(["pkgnames", prefix]))?;
        Ok(names.lines().filter(|name| name.ends_with(suffix)).map(str::to_owned).collect())
    }

    /// The version that apt would take.
    pub(crate) fn version(&self, package: &str) -> Result<String> {
        let mut show = self.apt("apt-cache");
        let record = command::output(show.args(["--no-all-versions", "show", package]))?;
        let version = record.lines().find_map(|line| line.strip_prefix("Version: "));
        version.map(str::to_owned).with_context(|| format!("{package} of {} has no version", self.name))
    }

    /// Downloads these packages and nothing that they depend on.
    pub(crate) fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let into = self.dir.join("download");
        empty(&into)?;
        let mut download = self.apt("apt-get");
        download.args(["-qq", "download"]).args(packages).current_dir(&into);
        command::announce("download", &format!("{} from {}", packages.join(" "), self.name));
        command::output(&mut download).context("cannot download packages; is there network access?")?;
        debs(&into)
    }

    /// Downloads these packages and everything that they depend on.
    pub(crate) fn download_all(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let into = self.dir.join("archives");
        empty(&into.join("partial"))?;
        let mut install = self.apt("apt-get");
        install.args(["-qq", "-y", "--download-only", "install"]).args(packages);
        command::announce("download", &format!("{} from {}", packages.join(" "), self.name));
        command::output(&mut install).context("cannot download packages; is there network access?")?;
        debs(&into)
    }
}

/// Unpacks a package below `root`, running nothing of it.
pub(crate) fn unpack(deb: &Path, root: &Path) -> Result<()> {
    command::output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(root)).map(drop)
}

/// Makes `dir` an empty directory.
pub(crate) fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

fn debs(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    paths.sort();
    Ok(paths)
}

fn sources(suites: &[&str]) -> String {
    let line = |suite: &&str| {
        let archive = if suite.ends_with("-security") { "debian-security" } else { "debian" };
        format!("deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/{archive} {suite} main\n")
    };
    suites.iter().map(line).collect()
}

/// apt's settings. Given with `-c`, which comes after the system's own: those may name a proxy, but their
/// hooks and lists must not act on this.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear APT::Architectures;
#clear Acquire::IndexTargets::deb::DEP-11;
Dir::State "{dir}";
Dir::State::lists "{dir}/lists";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}";
Dir::Cache::archives "{dir}/archives";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::GzipIndexes "false";
Acquire::Languages "none";
// Where this runs as root, apt's own user cannot write to a directory of the project.
APT::Sandbox::User "root";
"#
    )
}
