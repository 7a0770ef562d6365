//! One established connection through NAT that moves a lot: whether netdrop is felt there at all.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    cpus,
    nat::Nat,
    report::{Bar, Part},
    server::Server,
    stats::Sample,
    tool::Programs,
    turns::Turns,
};
use crate::interrupt::Interrupt;

/// Bytes that the receiver confirms at once, and how many of them make a GiB.
const UNIT: usize = 64 << 20;
const UNITS_PER_GIB: u64 = (1 << 30) / UNIT as u64;

/// Units of each transfer that come before the clock starts: windows grow, the tool's first pages come.
const WARM_UP: u64 = 8;

/// Bytes of one system call.
const CHUNK: usize = 256 << 10;

/// How far the quartiles without netdrop may lie apart, as a share of the median: wider ones hide any cost.
const STEADY: f64 = 0.2;

/// What is measured.
pub(super) struct Plan {
    /// Transfers with netdrop, and as many without.
    pub(super) pairs: u32,
    /// GiB of a transfer.
    pub(super) gib: u64,
}

/// Measures the time of a GiB, without netdrop and with it.
pub(super) fn run(interrupt: Interrupt, programs: &Programs, plan: &Plan) -> Result<Part> {
    let turns =
        Turns::take("bulk", plan.pairs, programs, interrupt, |nat| transfer(nat, plan.gib, interrupt))?;
    let (low, high) = turns.shares.quartiles();
    let (met, verdict) = judge(&turns.alone, &turns.traced);
    let text = format!(
        "time of a GiB with all hooks on, of that without: {:.3} (quartiles by pair {low:.3}..{high:.3}); {verdict}",
        turns.share()
    );
    Ok(Part {
        name: "bulk",
        about: format!(
            "milliseconds that one TCP stream through a masquerading router takes for a GiB, medians of {} pairs of \
             {} GiB",
            turns.pairs, plan.gib
        ),
        table: turns.table("ms/GiB", 1),
        bars: vec![Bar { met, text }],
        json: json!({ "gib": plan.gib, "ms_per_gib": turns.json() }),
        notes: turns.notes,
    })
}

/// Whether nothing can be measured, though it could be.
fn judge(alone: &Sample, traced: &Sample) -> (bool, &'static str) {
    let ((low, high), (fast, _)) = (alone.quartiles(), traced.quartiles());
    if fast > high {
        (false, "the quartiles lie apart: measurable")
    } else if high - low > alone.median() * STEADY {
        (false, "not known, any cost is lost in the noise: a quieter machine, more --pairs or --gib")
    } else {
        (true, "not slower beyond the quartiles: not measurable")
    }
}

/// Moves that many GiB over one connection; returns milliseconds for each.
fn transfer(nat: &Nat, gib: u64, interrupt: Interrupt) -> Result<f64> {
    let cpus = cpus::allowed()?;
    // Sender and receiver each have a CPU of their own where there are two.
    let (sender, receiver) = (cpus[0], cpus[cpus.len() - 1]);
    let server = Server::start(nat, receiver, receive)?;
    nat.in_client(|| {
        cpus::pin(sender)?;
        let address = server.address();
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        send(&mut stream, WARM_UP, interrupt)?;
        let start = Instant::now();
        send(&mut stream, gib * UNITS_PER_GIB, interrupt)?;
        Ok(start.elapsed().as_secs_f64() * 1e3 / gib as f64)
    })
}

/// Sends that many units, and waits until all of them are confirmed.
fn send(stream: &mut TcpStream, units: u64, interrupt: Interrupt) -> Result<()> {
    let chunk = vec![0; CHUNK];
    for _ in 0..units {
        for _ in 0..UNIT / CHUNK {
            stream.write_all(&chunk).context("cannot send")?;
        }
        if interrupt.is_set() {
            bail!("interrupted");
        }
    }
    for _ in 0..units {
        stream.read_exact(&mut [0]).context("the receiver does not confirm")?;
    }
    Ok(())
}

/// Confirms each unit with a byte, until the sender closes.
fn receive(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut left = UNIT;
        while left > 0 {
            let most = left.min(CHUNK);
            match stream.read(&mut chunk[..most])? {
                0 => return Ok(()),
                read => left -= read,
            }
        }
        stream.write_all(&[0])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_means_that_the_quartiles_lie_apart() {
        let met = |traced: &[f64]| {
            let sample = |figures: &[f64]| Sample::new(figures.to_vec()).unwrap();
            judge(&sample(&[100.0, 101.0, 102.0, 103.0]), &sample(traced)).0
        };
        assert!(!met(&[110.0, 111.0, 112.0]));
        assert!(met(&[101.0, 102.0, 112.0]), "they overlap");
        assert!(met(&[90.0, 91.0]), "it is faster");
    }

    #[test]
    fn a_cost_that_is_lost_in_the_noise_is_not_known() {
        let sample = Sample::new(vec![100.0, 150.0, 200.0]).unwrap();
        assert!(!judge(&sample, &sample).0);
    }
}
