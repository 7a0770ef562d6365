//! Scenario harness: provokes real drops in namespaces of its own and holds netdrop's output against
//! the kernel's counters.
//!
//! A scenario reads as a story: a [`Lab`] gives namespaces, a [`Trace`] watches one of them, traffic is
//! sent, the kernel's own counter says how many packets went, and the [`Outcome`] must agree.
//! Everything a lab makes is removed in `Drop`, also when the test panics. Functions here panic with
//! what they tried, because the only thing a test can do about an error is fail.

pub mod binary;
pub mod bpf;
pub mod bridge;
pub mod capture;
pub mod cgroup;
pub mod contract;
pub mod counters;
pub mod damage;
pub mod dialogue;
pub mod doctor;
pub mod family;
pub mod firewall;
pub mod flood;
pub mod fragment;
pub mod frame;
pub mod global;
pub mod gso;
pub mod hidden;
pub mod holder;
pub mod hooks;
pub mod lab;
pub mod link;
pub mod listen;
pub mod netns;
pub mod outcome;
pub mod queue;
pub mod raw;
pub mod reason;
pub mod refusal;
pub mod rules;
pub mod scene;
pub mod sockopt;
pub mod softnet;
pub mod stall;
pub mod tap;
pub mod tc;
pub mod tcp;
pub mod trace;
pub mod tracking;
pub mod traffic;
pub mod volume;
pub mod wait;

pub use family::Family;
pub use lab::Lab;
pub use netns::Netns;
pub use outcome::{Dropped, Outcome};
pub use trace::{Trace, Tracing};
