//! The harness itself: what a test leaves behind, also when it panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use netdrop_tests::{Lab, binary, wait};

#[test]
fn a_panicking_test_leaves_no_namespace() {
    let Some(lab) = Lab::new("panic", &[]) else { return };
    let mut paths: Vec<PathBuf> = Vec::new();

    let caught = catch_unwind(AssertUnwindSafe(|| {
        let routed = lab.routed();
        paths.extend([&routed.a, &routed.r, &routed.b].map(|netns| netns.path().to_owned()));
        assert!(paths.iter().all(|path| path.exists()), "the namespaces were never there");
        panic!("this panic belongs to the test");
    }));

    assert!(caught.is_err());
    let left: Vec<_> = paths.iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn a_panic_inside_a_namespace_reaches_the_test() {
    let Some(lab) = Lab::new("enter", &[]) else { return };
    let netns = lab.netns("only");
    let caught = catch_unwind(AssertUnwindSafe(|| netns.enter(|| panic!("from inside"))));
    let payload = caught.expect_err("the panic must not be swallowed");
    assert_eq!(payload.downcast_ref(), Some(&"from inside"));
}

#[test]
fn a_child_that_a_test_gives_up_on_is_killed() {
    let Some(lab) = Lab::new("give-up", &["sleep"]) else { return };
    let netns = lab.netns("only");
    let child = binary::Killed::start(&mut netns.command("sleep 1000"));
    let process = Path::new("/proc").join(child.id().to_string());
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _child = child;
        panic!("this panic belongs to the test");
    }));
    assert!(caught.is_err());
    assert!(!process.exists(), "{} is still there", process.display());
}

#[test]
fn namespaces_are_separate_and_threads_enter_them() {
    let Some(lab) = Lab::new("separate", &[]) else { return };
    let (one, other) = (lab.netns("one"), lab.netns("other"));
    assert_ne!(one.inode(), other.inode());
    one.sysctl("net/ipv4/ip_forward", "1");
    let forwarding = |netns: &netdrop_tests::Netns| {
        netns.enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("readable"))
    };
    assert_eq!((forwarding(&one).trim(), forwarding(&other).trim()), ("1", "0"));
}

#[test]
fn a_counter_past_its_expected_value_fails_at_once() {
    let caught = catch_unwind(|| wait::until_counter("a counter", 3, || 4));
    assert!(caught.is_err());
}
