//! Root, for the steps that need it: this process's own, or sudo's.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::command;

/// Where Debian keeps the network tools; not in an ordinary user's PATH.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The way to run something as root.
#[derive(Clone, Copy)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// sudo is there, and agreed or will ask.
    Sudo,
}

impl Privilege {
    /// The way to root on this machine. `purpose` says in the error what cannot be done without it.
    pub(crate) fn find(purpose: &str) -> Result<Self> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self::Root);
        }
        if find_program("sudo").is_none() {
            bail!(
                "{purpose} needs root, and there is no sudo here: run the same command as root, \
                 or install sudo (as root: `apt-get install sudo`, then `adduser YOU sudo`)"
            );
        }
        Ok(Self::Sudo)
    }

    /// Like `find`, and lets sudo ask for its password now rather than minutes later.
    pub(crate) fn acquire(purpose: &str) -> Result<Self> {
        let privilege = Self::find(purpose)?;
        if let Self::Sudo = privilege {
            let mut nothing = Command::new("sudo");
            command::step(&format!("{purpose} needs root"), nothing.arg("true"))
                .with_context(|| format!("{purpose} needs root, and sudo refused"))?;
        }
        Ok(privilege)
    }

    /// `program` as root, with the variables `set`, and with those called `keep` as they are here.
    ///
    /// Not by `sudo -E`: many sudoers files refuse that, and none of them lets PATH through.
    pub(crate) fn command(
        self,
        program: impl AsRef<OsStr>,
        set: &[(&str, &OsStr)],
        keep: &[&str],
    ) -> Command {
        match self {
            Self::Root => {
                let mut command = Command::new(program);
                command.envs(set.iter().copied());
                command
            }
            Self::Sudo => {
                let kept = keep.iter().filter_map(|name| Some((*name, env::var_os(name)?)));
                let set = set.iter().map(|(name, value)| (*name, value.to_os_string()));
                let variables: Vec<_> = set.chain(kept).collect();

                let mut command = Command::new("sudo");
                command.arg("--");
                if !variables.is_empty() {
                    command.arg("env");
                }
                for (name, value) in variables {
                    let mut word = OsString::from(name);
                    word.push("=");
                    word.push(value);
                    command.arg(word);
                }
                command.arg(program);
                command
            }
        }
    }
}

/// PATH with the directories of the administrator's tools at its end.
pub(crate) fn path_with_sbin() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    for dir in SBIN {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(dir);
    }
    path
}

/// The program called `name`, also where only root's PATH would find it.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&path_with_sbin()).map(|dir| dir.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_gets_the_environment_as_words() {
        let set = [("NETDROP_BIN", OsStr::new("/t/netdrop"))];
        let mut command = Privilege::Sudo.command("/t/udp", &set, &["A_VARIABLE_THAT_IS_NOT_SET"]);
        command.arg("full");
        assert_eq!(command::shown(&command), "sudo -- env NETDROP_BIN=/t/netdrop /t/udp full");
        let command = Privilege::Root.command("/t/udp", &set, &[]);
        assert_eq!(command::shown(&command), "NETDROP_BIN=/t/netdrop udp");
    }
}
