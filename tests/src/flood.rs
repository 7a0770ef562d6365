//! Floods: very many datagrams from threads pinned to CPUs, counted exactly.

use std::array;
use std::io::IoSlice;
use std::net::UdpSocket;
use std::thread;

use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::netns::Netns;
use crate::traffic::parse;

/// Datagrams handed over with one system call.
const BATCH: usize = 64;

/// A stream of small datagrams to one address.
#[derive(Clone, Debug)]
pub struct Flood {
    to: String,
    count: u64,
    cpu: Option<usize>,
}

impl Flood {
    /// `count` datagrams to `to`.
    pub fn new(to: &str, count: u64) -> Self {
        Self { to: to.to_owned(), count, cpu: None }
    }

    /// Sent from this CPU only.
    #[must_use]
    pub fn on_cpu(self, cpu: usize) -> Self {
        Self { cpu: Some(cpu), ..self }
    }

    /// Sends everything; returns when the kernel took or refused the last one.
    #[track_caller]
    pub fn send_from(&self, netns: &Netns) {
        Self::send_all(std::slice::from_ref(self), netns);
    }

    /// Sends several floods at the same time, each from a thread of its own.
    #[track_caller]
    pub fn send_all(floods: &[Self], netns: &Netns) {
        // The sockets belong to the namespace, so the threads need not.
        let sockets: Vec<UdpSocket> = floods.iter().map(|flood| flood.socket(netns)).collect();
        thread::scope(|scope| {
            for (flood, socket) in floods.iter().zip(&sockets) {
                scope.spawn(|| flood.send(socket));
            }
        });
    }

    /// A connected socket in `netns`.
    #[track_caller]
    fn socket(&self, netns: &Netns) -> UdpSocket {
        let target = parse(&self.to);
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = netns.udp_socket(any);
        socket.connect(target).unwrap_or_else(|error| panic!("connect UDP to {target}: {error}"));
        socket
    }

    /// Sends all datagrams through `socket`.
    fn send(&self, socket: &UdpSocket) {
        if let Some(cpu) = self.cpu {
            pin(cpu);
        }
        let payload = [IoSlice::new(b"netdrop flood")];
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] = array::from_fn(|_| Default::default());
        let mut messages = controls.each_mut().map(|control| MMsgHdr::new(&payload, control));
        let mut left = self.count;
        while left > 0 {
            let batch = left.min(BATCH as u64) as usize;
            match sendmmsg(socket, &mut messages[..batch], SendFlags::empty()) {
                Ok(sent) => left -= sent as u64,
                // The first message of the batch was dropped on its way out: it counts as sent.
                Err(Errno::PERM) => left -= 1,
                // An ICMP error of an earlier datagram: nothing was sent.
                Err(Errno::CONNREFUSED) => {}
                Err(error) => panic!("sendmmsg to {}: {error}", self.to),
            }
        }
    }
}

/// Pins the calling thread to one CPU.
#[track_caller]
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).unwrap_or_else(|error| panic!("pin to CPU {cpu}: {error}"));
}

/// Does `work` on each CPU, one after the other.
#[track_caller]
pub fn on_each_cpu(work: impl Fn() + Sync) {
    cpus().into_iter().for_each(|cpu| on_cpus(&[cpu], &work));
}

/// Does `work` on all CPUs at the same time.
#[track_caller]
pub fn on_all_cpus(work: impl Fn() + Sync) {
    on_cpus(&cpus(), &work);
}

/// Does `work` on these CPUs at the same time.
#[track_caller]
fn on_cpus(cpus: &[usize], work: &(impl Fn() + Sync)) {
    thread::scope(|scope| {
        for cpu in cpus {
            scope.spawn(|| {
                pin(*cpu);
                work();
            });
        }
    });
}

/// The CPUs this process may run on, in order.
#[track_caller]
pub fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|error| panic!("sched_getaffinity: {error}"));
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}
