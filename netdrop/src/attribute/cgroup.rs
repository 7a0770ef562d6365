//! Which container a process belongs to, by the paths of its cgroups.

/// Length of a container id: a SHA-256 in hexadecimal digits.
const ID_LENGTH: usize = 64;

/// What a process's cgroups say about its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim<'a> {
    /// The path has the form that Docker gives it.
    Docker(&'a str),
    /// An id without its engine's name, as with a parent cgroup of the user's choice: whose it is, the
    /// engines' state must tell.
    Unclaimed(&'a str),
}

/// The container that `/proc/PID/cgroup` names.
///
/// On a hybrid system the hierarchies may differ: the unified one counts first unless it is unused, then
/// those that every engine sets. In a path the innermost container counts: a container in a container has
/// network namespaces of its own. Where that is the container of an engine not known here, there is no
/// claim at all, rather than the outer one's.
pub(super) fn claim(cgroup: &str) -> Option<Claim<'_>> {
    let mut rows: Vec<(u8, &str)> = cgroup.lines().filter_map(row).collect();
    rows.sort_by_key(|(rank, _)| *rank);
    rows.into_iter().find_map(|(_, path)| innermost(path))?
}

/// Rank and path of a line `hierarchy:controllers:path`.
fn row(line: &str) -> Option<(u8, &str)> {
    let mut parts = line.splitn(3, ':');
    let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let rank = match controllers {
        "" if hierarchy == "0" => 0,
        "name=systemd" => 1,
        "memory" => 2,
        "pids" => 3,
        _ => 4,
    };
    Some((rank, path))
}

/// `None` when no part of the path holds an id; `Some(None)` when the innermost is not one of ours.
fn innermost(path: &str) -> Option<Option<Claim<'_>>> {
    let mut parts = path.rsplit('/').peekable();
    while let Some(part) = parts.next() {
        if !has_id(part) {
            continue;
        }
        let parent = parts.peek().copied();
        return Some(if is_id(part) {
            Some(if matches!(parent, Some("docker" | "actions_job")) {
                Claim::Docker(part)
            } else {
                Claim::Unclaimed(part)
            })
        } else {
            let id = part.strip_prefix("docker-").and_then(|rest| rest.strip_suffix(".scope"));
            id.filter(|id| is_id(id)).map(Claim::Docker)
        });
    }
    None
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(is_digit)
}

/// Whether `part` holds an id in any engine's spelling.
fn has_id(part: &str) -> bool {
    part.as_bytes().split(|byte| !is_digit(*byte)).any(|run| run.len() >= ID_LENGTH)
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "49b4a2dd83aee2e0a6a1ba5b3bbd9a6f0e1e3b5c7d9f0a1b2c3d4e5f60718293";
    const B: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

    #[test]
    fn paths_of_every_kind() {
        let docker = Some(Claim::Docker(A));
        let unclaimed = Some(Claim::Unclaimed(A));
        for (text, expected) in [
            // v2 with systemd, v2 with cgroupfs, rootless.
            (format!("0::/system.slice/docker-{A}.scope\n"), docker),
            (format!("0::/docker/{A}\n"), docker),
            (
                format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope\n"),
                docker,
            ),
            // v1 alone, and hybrid with an unused unified hierarchy.
            (format!("12:pids:/docker/{A}\n5:memory:/docker/{A}\n1:name=systemd:/docker/{A}\n"), docker),
            (format!("9:name=systemd:/docker/{A}\n4:memory:/docker/{A}\n0::/\n"), docker),
            // Pure v2 as seen where v1 hierarchies are still listed.
            (format!("9:name=systemd:/\n4:memory:/\n0::/docker/{A}\n"), docker),
            // systemd or a cgroup tree inside the container.
            (format!("0::/docker/{A}/init.scope\n"), docker),
            (format!("0::/system.slice/docker-{A}.scope/system.slice/nginx.service\n"), docker),
            // GitHub runners; a relative path as a cgroup namespace shows it.
            (format!("0::/actions_job/{A}\n"), docker),
            (format!("0::/../../docker/{A}\n"), docker),
            // Docker in Docker: the inner one.
            (format!("0::/docker/{B}/docker/{A}\n"), docker),
            // Somebody's parent cgroup; Kubernetes with an unknown engine.
            (format!("0::/builds/{A}\n"), unclaimed),
            (
                format!("4:memory:/kubepods/besteffort/pod8c5e4d2a-1111-2222-3333-444455556666/{A}\n"),
                unclaimed,
            ),
            // Other engines, also inside a Docker container: not ours.
            (format!("0::/docker/{B}/kubepods.slice/cri-containerd-{A}.scope\n"), None),
            (format!("0::/machine.slice/libpod-{A}.scope/container\n"), None),
            (format!("0::/libpod_parent/libpod-{A}\n"), None),
            (format!("0::/system.slice/crio-conmon-{A}.scope\n"), None),
            (
                format!(
                    "0::/system.slice/containerd.service/kubepods-burstable-pod1_2.slice:cri-containerd:{A}\n"
                ),
                None,
            ),
            // No container.
            ("0::/\n".into(), None),
            ("0::/system.slice/ssh.service\n".into(), None),
            ("9:name=systemd:/\n4:memory:/process_api/73b3b8b0b48797ee0ee603c9846f946e\n0::/\n".into(), None),
            (format!("0::/docker/{}\n", &A[1..]), None),
            (format!("0::/docker/{}\n", A.to_uppercase()), None),
            (format!("0::/docker/{A}0\n"), None),
            (String::new(), None),
            ("garbage\n::\n".into(), None),
        ] {
            assert_eq!(claim(&text), expected, "{text}");
        }
    }

    #[test]
    fn the_unified_hierarchy_counts_first() {
        let text = format!("4:memory:/docker/{B}\n1:name=systemd:/docker/{B}\n0::/docker/{A}\n");
        assert_eq!(claim(&text), Some(Claim::Docker(A)));
    }

    proptest::proptest! {
        #[test]
        fn a_claimed_id_is_always_an_id(text in "([0-9]{1,2}:[a-z=,]{0,8}:(/[a-z0-9.:-]{0,70}){0,4}\n){0,4}", any: String) {
            for text in [text, any] {
                if let Some(Claim::Docker(id) | Claim::Unclaimed(id)) = claim(&text) {
                    assert!(is_id(id));
                }
            }
        }
    }
}
