//! New connections through NAT, as fast as they can be made: how much slower netdrop makes them.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use super::{
    cpus,
    nat::Nat,
    report::{Bar, Part},
    server::Server,
    tool::Programs,
    turns::Turns,
};
use crate::interrupt::Interrupt;

/// Connections of each burst that come before the clock starts: caches, neighbours and the tool's first pages.
const WARM_UP: u64 = 5_000;

/// The least share of connections a second that may be left.
const KEPT: f64 = 0.95;

/// What is measured.
pub(super) struct Plan {
    /// Bursts with netdrop, and as many without.
    pub(super) pairs: u32,
    /// Connections of a burst.
    pub(super) connections: u64,
}

/// A server and its client, both on one CPU: they take turns and never wait for another CPU.
struct Lane {
    cpu: usize,
    server: Server,
}

/// Measures connections a second, without netdrop and with it.
pub(super) fn run(interrupt: Interrupt, programs: &Programs, plan: &Plan) -> Result<Part> {
    let turns =
        Turns::take("storm", plan.pairs, programs, interrupt, |nat| burst(nat, plan.connections, interrupt))?;
    let (share, (low, high)) = (turns.share(), turns.shares.quartiles());
    let text = format!(
        "connections a second that are left with all hooks on: {share:.3}, at least {KEPT:.3} \
         (quartiles by pair {low:.3}..{high:.3})"
    );
    Ok(Part {
        name: "storm",
        about: format!(
            "new TCP connections a second through a masquerading router, medians of {} pairs of {} connections",
            turns.pairs, plan.connections
        ),
        table: turns.table("CONNECTIONS/s", 0),
        bars: vec![Bar { met: share >= KEPT, text }],
        json: json!({ "connections": plan.connections, "per_second": turns.json() }),
        notes: turns.notes,
    })
}

/// Makes that many connections over all CPUs; returns how many a second.
fn burst(nat: &Nat, connections: u64, interrupt: Interrupt) -> Result<f64> {
    // The server closes first: TIME_WAIT is on its side, and the client's ports are free again at once.
    let close = |stream| {
        drop::<TcpStream>(stream);
        Ok(())
    };
    let lane = |cpu| Ok(Lane { cpu, server: Server::start(nat, cpu, close)? });
    let lanes = cpus::allowed()?.into_iter().map(lane).collect::<Result<Vec<_>>>()?;
    connect(nat, &lanes, WARM_UP, interrupt)?;
    connect(nat, &lanes, connections, interrupt)
}

/// Makes connections in all lanes; returns how many a second.
fn connect(nat: &Nat, lanes: &[Lane], connections: u64, interrupt: Interrupt) -> Result<f64> {
    // A fast lane takes more of them: no CPU is idle while another one is still at it.
    let taken = AtomicU64::new(0);
    let client = |lane: &Lane| {
        cpus::pin(lane.cpu)?;
        while taken.fetch_add(1, Ordering::Relaxed) < connections {
            if interrupt.is_set() {
                bail!("interrupted");
            }
            once(lane.server.address())?;
        }
        Ok(())
    };
    nat.in_client(|| {
        thread::scope(|scope| {
            let start = Instant::now();
            let clients: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| client(lane))).collect();
            for client in clients {
                client.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            Ok(connections as f64 / start.elapsed().as_secs_f64())
        })
    })
}

/// One connection: opened, closed by the server, closed.
fn once(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    match stream.read(&mut [0]).with_context(|| format!("cannot read from {address}"))? {
        0 => Ok(()),
        _ => bail!("{address} sent what nobody asked for"),
    }
}
