//! Network namespaces: identity, and the names they are mounted under.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netdrop_common::{key::DropKey, refusal::RefusalKey};

use super::{nsfs, untrusted};

pub use super::argument::{NetnsError, resolve_argument};

/// `NET_NS_INIT_INO` (include/uapi/linux/nsfs.h): the initial namespace's inode since 6.18. It lies below
/// the numbers handed out at run time, so on older kernels nothing has it.
const INITIAL_INODE: u32 = 0xefff_fff9;

/// `PF_KTHREAD` (include/linux/sched.h).
const PF_KTHREAD: u64 = 0x0020_0000;

/// Bytes that are read of mountinfo; a host with thousands of containers has some megabytes.
const MOUNTINFO_LIMIT: usize = 64 << 20;

/// Identity of a network namespace.
///
/// The inode number is what people see, in `/proc/PID/ns/net` and `ip netns`, but the kernel gives it to
/// another namespace soon after this one ended. A cookie is never given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NetnsId {
    /// Inode number in nsfs; 0 where unknown.
    pub inode: u32,
    /// `net->net_cookie`; 0 where unknown.
    pub cookie: u64,
}

impl NetnsId {
    /// The namespace of a drop; nothing when the kernel side could not tell.
    #[must_use]
    pub fn of(key: &DropKey) -> Option<Self> {
        (key.netns_inode != 0).then_some(Self { inode: key.netns_inode, cookie: key.netns_cookie })
    }

    /// The namespace of a refused call; nothing when the kernel side could not tell.
    #[must_use]
    pub fn of_refusal(key: &RefusalKey) -> Option<Self> {
        (key.netns_inode != 0).then_some(Self { inode: key.netns_inode, cookie: key.netns_cookie })
    }

    /// Whether both can be the same namespace, by what is known of each.
    #[must_use]
    pub const fn may_be(self, other: Self) -> bool {
        self.inode == other.inode && (self.cookie == other.cookie || self.cookie == 0 || other.cookie == 0)
    }
}

/// The inode in the text of a namespace link, `net:[4026531833]`.
pub(super) fn inode_in(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The inode that a link such as `/proc/PID/ns/net` shows.
pub(super) fn inode_of_link(path: &Path) -> io::Result<u32> {
    let link = fs::read_link(path)?;
    link.to_str().and_then(inode_in).ok_or_else(nsfs::other_file)
}

/// A network namespace bound to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) inode: u32,
    pub(super) path: PathBuf,
}

impl Mount {
    /// The name that `ip netns` shows, for a mount in its directory.
    pub(super) fn name(&self) -> Option<&str> {
        if self.path.parent()?.ends_with("run/netns") { self.path.file_name()?.to_str() } else { None }
    }

    /// Identity of the namespace; what cannot be opened keeps its inode.
    pub(super) fn identify(&self) -> NetnsId {
        match nsfs::identify(&self.path) {
            Ok(id) if id.inode == self.inode => id,
            _ => NetnsId { inode: self.inode, cookie: 0 },
        }
    }

    /// Whether it is where Docker keeps its daemon's own namespace, the one that containers with host
    /// networking share.
    pub(super) fn is_engine_host(&self) -> bool {
        self.name().is_none() && self.path.ends_with("netns/default")
    }
}

/// The namespace mounts in a mountinfo text; of several on one path, the last hides the others.
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    let mut at: HashMap<PathBuf, usize> = HashMap::new();
    for line in mountinfo.lines() {
        let Some(mount) = mount(line) else { continue };
        match at.get(&mount.path) {
            Some(index) => mounts[*index] = mount,
            None => {
                at.insert(mount.path.clone(), mounts.len());
                mounts.push(mount);
            }
        }
    }
    mounts
}

/// `ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELD…] - TYPE SOURCE SUPER`: for nsfs, the root is the
/// namespace.
fn mount(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    if !tail.starts_with("nsfs ") {
        return None;
    }
    let mut fields = head.split(' ').skip(3);
    let inode = inode_in(fields.next()?)?;
    Some(Mount { inode, path: PathBuf::from(unescaped(fields.next()?)) })
}

/// A path of mountinfo, where blanks and backslashes stand as octal numbers (`\040`).
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => {
                bytes.push(b'\\');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The namespace the machine booted with, `None` where this process cannot tell.
///
/// `/proc/1/ns/net` may be closed even to root, and in a PID namespace it is somebody else's: the second
/// process, kthreadd, has it for certain. Where that is closed too (no CAP_SYS_PTRACE), our own is taken
/// for it unless `ip netns` has put us elsewhere. Without a kthreadd in sight we are in a PID namespace,
/// probably a container's, and only the constant inode of new kernels proves anything.
fn initial(proc_root: &Path, mounts: &[Mount]) -> Option<NetnsId> {
    let kthreadd = proc_root.join("2");
    let sees_kthreadd = is_kernel_thread(&kthreadd);
    if sees_kthreadd && let Some(theirs) = identify_link(&kthreadd.join("ns/net")) {
        return Some(theirs);
    }
    let own = identify_link(&proc_root.join("self/ns/net"))?;
    let elsewhere = mounts.iter().any(|mount| mount.inode == own.inode && mount.name().is_some());
    (own.inode == INITIAL_INODE || sees_kthreadd && !elsewhere).then_some(own)
}

/// The namespace of a link that can be read, even if it cannot be opened.
pub(super) fn identify_link(link: &Path) -> Option<NetnsId> {
    let inode = inode_of_link(link).ok()?;
    match nsfs::identify(link) {
        Ok(id) => Some(id),
        // The process may have gone between the two looks; if it has not, only the cookie stays unknown.
        Err(_) => (inode_of_link(link).ok()? == inode).then_some(NetnsId { inode, cookie: 0 }),
    }
}

fn is_kernel_thread(process: &Path) -> bool {
    let stat = untrusted::read(&process.join("stat"), 4096).unwrap_or_default();
    // After the name in parentheses: state, parent, group, session, terminal, its group, flags.
    let text = String::from_utf8_lossy(&stat);
    let flags = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse().ok());
    flags.is_some_and(|flags: u64| flags & PF_KTHREAD != 0)
}

/// Names of network namespaces: those of `ip netns`, and `host` for the one the machine booted with.
#[derive(Clone, Debug, Default)]
pub struct NetnsNames {
    host: Option<NetnsId>,
    mounts: Vec<Mount>,
}

/// What the initial namespace is called.
pub const HOST: &str = "host";

impl NetnsNames {
    /// Reads the mounts that this process sees.
    pub fn load(proc_root: &Path) -> io::Result<Self> {
        let text = untrusted::read(&proc_root.join("self/mountinfo"), MOUNTINFO_LIMIT)?;
        let mounts = mounts(&String::from_utf8_lossy(&text));
        Ok(Self { host: initial(proc_root, &mounts), mounts })
    }

    /// The initial namespace, where this process can tell.
    #[must_use]
    pub fn host(&self) -> Option<NetnsId> {
        self.host
    }

    /// The name of the namespace with this inode; of several, the one mounted first.
    #[must_use]
    pub fn name(&self, inode: u32) -> Option<&str> {
        if inode == INITIAL_INODE || self.host.is_some_and(|host| host.inode == inode) {
            return Some(HOST);
        }
        self.mounts.iter().filter(|mount| mount.inode == inode).find_map(Mount::name)
    }

    /// The mount with this name.
    pub(super) fn named(&self, name: &str) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.name() == Some(name))
    }

    /// Whether containers with host networking share this namespace, so that none owns it.
    pub(super) fn is_host(&self, inode: u32) -> bool {
        self.host.is_some_and(|host| host.inode == inode)
            || inode == INITIAL_INODE
            || self.mounts.iter().any(|mount| mount.inode == inode && mount.is_engine_host())
    }

    /// All namespace mounts, named or not.
    pub(super) fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// All names, `host` not among them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(Mount::name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as a machine with `ip netns`, Docker and CNI shows them.
    pub(in super::super) const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
45 27 0:40 / /run/netns rw,relatime shared:1 - tmpfs tmpfs rw
46 45 0:4 net:[4026532177] /run/netns/web rw shared:2 - nsfs nsfs rw
47 27 0:4 net:[4026532177] /run/netns/web rw shared:2 - nsfs nsfs rw
48 45 0:4 net:[4026532281] /run/netns/two\\040words\\134x rw shared:3 - nsfs nsfs rw
49 27 0:4 net:[4026531833] /run/docker/netns/default rw - nsfs nsfs rw
50 27 0:4 net:[4026532400] /run/docker/netns/1f0c2b3d4e5f rw - nsfs nsfs rw
51 27 0:4 net:[4026532500] /var/run/netns/cni-0a1b2c3d rw - nsfs nsfs rw
52 27 0:4 uts:[4026532600] /run/netns/uts rw - nsfs nsfs rw
53 27 0:4 mnt:[4026532601] /run/snapd/ns/lxd.mnt rw - nsfs nsfs rw
54 27 0:5 / /run/netns/net:[4026532602] rw - tmpfs none rw
";

    fn names() -> NetnsNames {
        NetnsNames { host: Some(NetnsId { inode: 4_026_531_833, cookie: 3 }), mounts: mounts(MOUNTINFO) }
    }

    #[test]
    fn names_come_from_ip_netns_mounts_alone() {
        let names = names();
        assert_eq!(names.names().collect::<Vec<_>>(), ["web", "two words\\x", "cni-0a1b2c3d"]);
        assert_eq!(names.name(4_026_532_177), Some("web"));
        assert_eq!(names.name(4_026_532_281), Some("two words\\x"));
        assert_eq!(names.name(4_026_532_400), None);
        assert_eq!(names.name(4_026_532_600), None);
    }

    #[test]
    fn the_initial_namespace_is_the_host() {
        assert_eq!(names().name(4_026_531_833), Some("host"));
        let older =
            NetnsNames { host: Some(NetnsId { inode: 4_026_531_992, cookie: 1 }), mounts: Vec::new() };
        assert_eq!(older.name(4_026_531_992), Some("host"));
        let blind = NetnsNames::default();
        assert_eq!((blind.name(INITIAL_INODE), blind.name(4_026_531_992)), (Some("host"), None));
    }

    #[test]
    fn a_mount_over_another_hides_it() {
        let text = "1 2 0:4 net:[1001] /run/netns/a rw - nsfs nsfs rw\n\
                    2 2 0:4 net:[1002] /run/netns/b rw - nsfs nsfs rw\n\
                    3 2 0:4 net:[1003] /run/netns/a rw - nsfs nsfs rw\n";
        let names = NetnsNames { host: None, mounts: mounts(text) };
        assert_eq!((names.name(1001), names.name(1002), names.name(1003)), (None, Some("b"), Some("a")));
    }

    #[test]
    fn dockers_default_is_known_as_its_host() {
        let engine: Vec<u32> =
            mounts(MOUNTINFO).iter().filter(|m| m.is_engine_host()).map(|m| m.inode).collect();
        assert_eq!(engine, [4_026_531_833]);
        let named = mounts("1 2 0:4 net:[1001] /run/netns/default rw - nsfs nsfs rw\n");
        assert!(!named[0].is_engine_host());
    }

    #[test]
    fn identities_match_by_what_is_known() {
        let id = |inode, cookie| NetnsId { inode, cookie };
        assert!(id(1, 5).may_be(id(1, 5)) && id(1, 0).may_be(id(1, 5)) && id(1, 5).may_be(id(1, 0)));
        assert!(!id(1, 5).may_be(id(1, 6)) && !id(1, 5).may_be(id(2, 5)));
    }

    proptest::proptest! {
        #[test]
        fn any_mountinfo_is_survived(text: String, row in "[0-9 ]{0,6}net:\\[[0-9]{1,12}\\] /[a-z\\\\0-9]{0,9} - nsfs x") {
            mounts(&text);
            mounts(&row);
            unescaped(&text);
        }
    }
}
