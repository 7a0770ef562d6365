//! The attributor against made-up machines.

use super::fixture::Tree;
use super::*;

const A: &str = "49b4a2dd83aee2e0a6a1ba5b3bbd9a6f0e1e3b5c7d9f0a1b2c3d4e5f60718293";
const B: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const HOST: u32 = 4_026_531_833;
const WEB: u32 = 4_026_532_177;
const NEW: u32 = 4_026_532_281;

fn machine() -> Tree {
    let tree = Tree::new();
    tree.mountinfo(&[(HOST, "/run/docker/netns/default")]);
    tree.process(2, HOST, "0::/\n", 0);
    tree.kernel_thread(2);
    tree
}

fn container(tree: &Tree, pid: u32, inode: u32, id: &str, started: u64) {
    tree.process(pid, inode, &format!("4:memory:/docker/{id}\n0::/docker/{id}\n"), started);
}

fn state(tree: &Tree, id: &str, name: &str) {
    let text = format!(r#"{{"ID":"{id}","Name":"/{name}","Config":{{"Image":"nginx:1"}}}}"#);
    tree.file(&format!("var/lib/docker/containers/{id}/config.v2.json"), &text);
}

fn id(inode: u32) -> NetnsId {
    NetnsId { inode, cookie: 17 }
}

/// An attributor and a clock that only the test moves.
struct Watch {
    attributor: Attributor,
    now: Instant,
}

impl Watch {
    fn new(tree: &Tree) -> Self {
        let mut attributor = Attributor::new(tree.paths());
        // How long a scan takes on a busy machine must not decide a test.
        attributor.scan_share = 0;
        Self { attributor, now: Instant::now() }
    }

    fn look(&mut self, id: NetnsId) -> Attribution {
        self.attributor.lookup_at(id, self.now)
    }

    fn after(&mut self, pause: Duration) -> &mut Self {
        self.now += pause;
        self
    }

    fn name(&mut self, id: NetnsId) -> Option<String> {
        self.look(id).container.map(|container| container.label().to_owned())
    }
}

#[test]
fn a_docker_container_is_named_by_its_namespace() {
    let tree = machine();
    container(&tree, 400, WEB, A, 1000);
    state(&tree, A, "web");
    let found = Watch::new(&tree).look(id(WEB));
    assert_eq!(
        serde_json::to_value(found.container.as_deref()).unwrap(),
        serde_json::json!({
            "runtime": "docker", "id": A, "name": "web", "image": "nginx:1",
            "pod": null, "namespace": null, "pod_uid": null, "evidence": "netns",
        })
    );
    assert_eq!(found.netns_name, None);
}

#[test]
fn a_named_namespace_has_its_name_and_no_container() {
    let tree = machine();
    tree.mountinfo(&[(WEB, "/run/netns/we\u{1b}b")]);
    let found = Watch::new(&tree).look(id(WEB));
    assert_eq!(found.netns_name.as_deref(), Some("we\\u{1b}b"));
    assert_eq!(found.container, None);
}

#[test]
fn the_host_is_never_a_container() {
    let tree = machine();
    container(&tree, 400, HOST, A, 1000);
    state(&tree, A, "host-networking");
    let found = Watch::new(&tree).look(NetnsId { inode: HOST, cookie: 3 });
    assert_eq!((found.netns_name.as_deref(), found.container), (Some("host"), None));
    // Nor is the namespace that a daemon calls its host.
    tree.mountinfo(&[(WEB, "/srv/exec/netns/default")]);
    container(&tree, 401, WEB, B, 1000);
    state(&tree, B, "host-networking-too");
    assert_eq!(Watch::new(&tree).look(id(WEB)), Attribution::default());
}

#[test]
fn of_containers_that_share_a_namespace_the_first_one_counts() {
    let tree = machine();
    container(&tree, 300, WEB, B, 2000);
    container(&tree, 400, WEB, A, 1000);
    container(&tree, 500, WEB, B, 900_000);
    tree.process(200, WEB, "0::/user.slice\n", 10);
    state(&tree, A, "owner");
    state(&tree, B, "sidecar");
    assert_eq!(Watch::new(&tree).name(id(WEB)).as_deref(), Some("owner"));
}

#[test]
fn an_id_without_state_is_shown_as_it_is_until_the_state_appears() {
    let tree = machine();
    container(&tree, 400, WEB, A, 1000);
    let mut watch = Watch::new(&tree);
    assert_eq!(watch.name(id(WEB)).as_deref(), Some(&A[..12]));
    assert_eq!(watch.look(id(WEB)).container.unwrap().name, None);
    state(&tree, A, "web");
    assert_eq!(watch.after(FIRST_RETRY).name(id(WEB)).as_deref(), Some("web"));
}

#[test]
fn an_id_in_somebodys_cgroup_is_docker_only_by_dockers_state() {
    let tree = machine();
    tree.process(400, WEB, &format!("0::/builds/{A}\n"), 1000);
    tree.process(401, NEW, &format!("0::/builds/{B}\n"), 1000);
    state(&tree, A, "built");
    let mut watch = Watch::new(&tree);
    assert_eq!(watch.name(id(WEB)).as_deref(), Some("built"));
    assert_eq!(watch.name(id(NEW)), None);
}

#[test]
fn a_namespace_is_found_when_its_container_starts_later() {
    let tree = machine();
    let mut watch = Watch::new(&tree);
    assert_eq!(watch.name(id(WEB)), None);
    container(&tree, 400, WEB, A, 1000);
    state(&tree, A, "web");
    // Not before it is due: a flood of drops must not become a flood of scans.
    assert_eq!(watch.after(FIRST_RETRY / 2).name(id(WEB)), None);
    assert_eq!(watch.after(FIRST_RETRY / 2).name(id(WEB)).as_deref(), Some("web"));
}

#[test]
fn unknown_namespaces_are_looked_for_less_and_less_often() {
    let tree = machine();
    let mut watch = Watch::new(&tree);
    watch.look(id(WEB));
    for _ in 0..12 {
        watch.after(LAST_RETRY).look(id(WEB));
    }
    container(&tree, 400, WEB, A, 1000);
    assert_eq!(watch.after(LAST_RETRY / 2).name(id(WEB)), None);
    assert_eq!(watch.after(LAST_RETRY / 2).name(id(WEB)).as_deref(), Some(&A[..12]));
}

#[test]
fn one_scan_answers_for_all_namespaces() {
    let tree = machine();
    container(&tree, 400, WEB, A, 1000);
    container(&tree, 401, NEW, B, 1000);
    state(&tree, A, "a");
    state(&tree, B, "b");
    let mut watch = Watch::new(&tree);
    assert_eq!(watch.name(id(WEB)).as_deref(), Some("a"));
    assert_eq!(watch.name(id(NEW)).as_deref(), Some("b"));
    // A namespace that the scan did not see has to wait for the next one.
    container(&tree, 402, NEW + 1, B, 1000);
    assert_eq!(watch.name(id(NEW + 1)), None);
    assert_eq!(watch.after(SCAN_PAUSE).name(id(NEW + 1)).as_deref(), Some("b"));
}

#[test]
fn a_container_that_ended_keeps_its_name() {
    let tree = machine();
    container(&tree, 400, WEB, A, 1000);
    let mut watch = Watch::new(&tree);
    assert_eq!(watch.name(id(WEB)).as_deref(), Some(&A[..12]));
    tree.end_process(400);
    assert_eq!(watch.after(LAST_RETRY).name(id(WEB)).as_deref(), Some(&A[..12]));
}

#[test]
fn another_namespace_with_the_same_inode_is_not_confused() {
    let tree = machine();
    container(&tree, 400, WEB, A, 1000);
    state(&tree, A, "later");
    let mut watch = Watch::new(&tree);
    watch.look(id(NEW));
    // What the kernel would have told of the namespace that has the inode now.
    watch.attributor.live.get_mut(&WEB).unwrap().id.cookie = 18;
    assert_eq!(watch.name(NetnsId { inode: WEB, cookie: 17 }), None);
    assert_eq!(watch.name(NetnsId { inode: WEB, cookie: 18 }).as_deref(), Some("later"));
}

#[test]
fn an_inode_without_cookie_is_looked_at_again() {
    let tree = machine();
    let bare = NetnsId { inode: WEB, cookie: 0 };
    container(&tree, 400, WEB, A, 1000);
    state(&tree, A, "old");
    state(&tree, B, "new");
    let mut watch = Watch::new(&tree);
    assert_eq!(watch.name(bare).as_deref(), Some("old"));
    tree.end_process(400);
    container(&tree, 401, WEB, B, 2000);
    assert_eq!(watch.after(WITHOUT_COOKIE).name(bare).as_deref(), Some("new"));
    tree.end_process(401);
    assert_eq!(watch.after(WITHOUT_COOKIE).name(bare), None);
}

#[test]
fn a_process_that_left_since_the_scan_does_not_count() {
    let tree = machine();
    container(&tree, 400, WEB, A, 1000);
    container(&tree, 401, NEW, B, 1000);
    let mut watch = Watch::new(&tree);
    watch.look(id(WEB));
    container(&tree, 401, NEW + 1, B, 1000);
    assert_eq!(watch.name(id(NEW)), None);
}

#[test]
fn an_unknown_namespace_is_nobodys() {
    let tree = machine();
    assert_eq!(Watch::new(&tree).look(NetnsId::default()), Attribution::default());
}

#[test]
fn a_machine_without_proc_is_survived() {
    let tree = Tree::new();
    assert_eq!(Watch::new(&tree).look(id(WEB)), Attribution::default());
}

#[test]
fn memory_is_bounded() {
    let tree = machine();
    let mut watch = Watch::new(&tree);
    let recent = id(WEB);
    for inode in 1..=3 * REMEMBERED as u32 {
        watch.after(Duration::from_micros(1)).look(id(inode));
        watch.look(recent);
    }
    assert!(watch.attributor.answers.len() <= REMEMBERED);
    assert!(watch.attributor.answers.contains_key(&recent));
}

#[test]
fn this_machine_calls_its_own_namespace_host() {
    let paths = HostPaths::default();
    let Some(host) = NetnsNames::load(&paths.proc_root).unwrap().host() else {
        // In a PID namespace there is no telling.
        assert_ne!(std::fs::read_to_string("/proc/2/comm").unwrap_or_default().trim_end(), "kthreadd");
        return;
    };
    let found = Attributor::new(paths).lookup(host);
    assert_eq!((found.netns_name.as_deref(), found.container), (Some("host"), None));
}
