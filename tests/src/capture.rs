//! Captures that netdrop writes, read by a parser that is not netdrop's.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, OptionCode, PcapBlockOwned, PcapNGOption, PcapNGSlice};
use rustix::process::{Pid, Signal, kill_process};

use crate::binary::{self, Killed, ended};
use crate::netns::Netns;
use crate::wait;

/// Link types (<https://www.tcpdump.org/linktypes.html>).
pub mod linktype {
    /// Ethernet.
    pub const ETHERNET: i32 = 1;
    /// An IP header and nothing before it.
    pub const RAW: i32 = 101;
    /// Linux cooked capture.
    pub const LINUX_SLL: i32 = 113;
}

/// `if_tsresol` of nanoseconds.
const NANOSECONDS: u8 = 9;

/// A capture taken apart.
#[derive(Debug, Default)]
pub struct Capture {
    /// `shb_userappl`.
    pub application: String,
    /// In the order of their numbers.
    pub interfaces: Vec<Interface>,
    /// In the order written.
    pub packets: Vec<Packet>,
    /// The comment of the first statistics block: there is one once the run has ended.
    pub sums: Option<String>,
}

/// What the capture calls an interface.
#[derive(Debug, PartialEq, Eq)]
pub struct Interface {
    /// `if_name`.
    pub name: Option<String>,
    /// `if_description`.
    pub description: String,
    /// See [`linktype`].
    pub linktype: i32,
}

/// A captured packet.
#[derive(Debug)]
pub struct Packet {
    /// Index into [`Capture::interfaces`].
    pub interface: usize,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// The bytes there are.
    pub bytes: Vec<u8>,
    /// The length the packet had.
    pub original: usize,
    /// `opt_comment`.
    pub comment: String,
    /// `epb_flags`.
    pub flags: u32,
}

impl Packet {
    /// A word of the comment: of `cause=port-closed` the second half.
    pub fn word(&self, key: &str) -> Option<&str> {
        let start = format!("{key}=");
        self.comment.split(' ').find_map(|word| word.strip_prefix(&*start))
    }
}

impl Capture {
    /// Takes a capture apart, of which every block must be whole.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut capture = Self::default();
        let blocks = PcapNGSlice::from_slice(bytes).map_err(|error| format!("no section: {error}"))?;
        for (number, block) in blocks.enumerate() {
            let block = block.map_err(|error| format!("block {number}: {error}"))?;
            capture.take(block).map_err(|why| format!("block {number}: {why}"))?;
        }
        Ok(capture)
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&bytes)
    }

    fn take(&mut self, block: PcapBlockOwned<'_>) -> Result<(), String> {
        match block {
            PcapBlockOwned::NG(Block::SectionHeader(section)) => {
                self.application = text(section.shb_userappl())?;
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                if interface.if_tsresol != NANOSECONDS {
                    return Err(format!("if_tsresol is {}", interface.if_tsresol));
                }
                self.interfaces.push(Interface {
                    name: interface.if_name().map(|name| text(Some(name))).transpose()?,
                    description: text(interface.if_description())?,
                    linktype: interface.linktype.0,
                });
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = packet.if_id as usize;
                if interface >= self.interfaces.len() {
                    return Err(format!("interface {interface} is not described yet"));
                }
                self.packets.push(Packet {
                    interface,
                    time: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
                    bytes: packet.packet_data().to_vec(),
                    original: packet.origlen as usize,
                    comment: comment(&packet.options).ok_or("a packet without comment")?,
                    flags: flags(&packet.options).ok_or("a packet without flags")?,
                });
            }
            PcapBlockOwned::NG(Block::InterfaceStatistics(statistics)) => {
                if let Some(sums) = comment(&statistics.options) {
                    self.sums = Some(sums);
                }
            }
            _ => return Err("is of a kind that netdrop does not write".to_owned()),
        }
        Ok(())
    }

    /// The interface of a packet.
    pub fn interface_of(&self, packet: &Packet) -> &Interface {
        &self.interfaces[packet.interface]
    }

    /// Packets with this link type.
    pub fn with_linktype(&self, linktype: i32) -> Vec<&Packet> {
        self.packets.iter().filter(|packet| self.interface_of(packet).linktype == linktype).collect()
    }
}

fn text<E: std::fmt::Debug>(option: Option<Result<&str, E>>) -> Result<String, String> {
    let text = option.ok_or("an option is missing")?.map_err(|error| format!("{error:?}"))?;
    Ok(text.to_owned())
}

fn comment(options: &[PcapNGOption<'_>]) -> Option<String> {
    let option = options.iter().find(|option| option.code == OptionCode::Comment)?;
    option.as_str().ok().map(str::to_owned)
}

fn flags(options: &[PcapNGOption<'_>]) -> Option<u32> {
    /// `epb_flags`, which the parser has no name for.
    const EPB_FLAGS: OptionCode = OptionCode(2);
    let option = options.iter().find(|option| option.code == EPB_FLAGS)?;
    option.as_bytes().ok()?.try_into().ok().map(u32::from_ne_bytes)
}

/// A running `netdrop trace --pcap -` whose stdout is a pipe.
pub struct Piped {
    child: Killed,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Piped {
    /// Starts it over one namespace and waits until it traces. The reader takes the bytes of `at_most` reads,
    /// each of some packets at least, and closes the pipe then.
    #[track_caller]
    pub fn start(netns: &Netns, at_most: usize) -> Self {
        let netns = netns.path().to_string_lossy();
        let mut command = binary::command(&["trace", "--pcap", "-", "--netns", &netns]);
        let mut child = Killed::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let stdout: Arc<Mutex<Vec<u8>>> = Arc::default();
        let stderr: Arc<Mutex<Vec<String>>> = Arc::default();
        let (mut pipe, bytes) = (child.0.stdout.take().expect("stdout is piped"), Arc::clone(&stdout));
        let first = thread::spawn(move || {
            let mut part = [0; 4096];
            for _ in 0..at_most {
                match pipe.read(&mut part) {
                    Ok(0) | Err(_) => return,
                    Ok(length) => lock(&bytes).extend_from_slice(&part[..length]),
                }
            }
        });
        let (pipe, lines) = (child.0.stderr.take().expect("stderr is piped"), Arc::clone(&stderr));
        let second = thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { return };
                lock(&lines).push(line);
            }
        });
        let piped = Self { child, stdout, stderr, readers: vec![first, second] };
        wait::until("netdrop traces", || {
            let lines = lock(&piped.stderr).clone();
            let ready = lines.iter().any(|line| line.starts_with("netdrop: tracing"));
            if ready { Ok(()) } else { Err(lines.join("\n")) }
        });
        piped
    }

    /// Waits until this many packets have come through the pipe.
    #[track_caller]
    pub fn await_packets(&self, count: usize) {
        wait::until("packets through the pipe", || {
            // A read may end within a block.
            let capture = Capture::parse(&lock(&self.stdout))?;
            if capture.packets.len() >= count { Ok(()) } else { Err(format!("{}", capture.packets.len())) }
        });
    }

    /// Whether netdrop has ended.
    pub fn has_ended(&mut self) -> bool {
        ended(&mut self.child.0).is_ok()
    }

    /// Ends the trace as Ctrl-C does.
    #[track_caller]
    pub fn stop(self) -> (ExitStatus, Vec<u8>, Vec<String>) {
        let pid = Pid::from_child(&self.child.0);
        kill_process(pid, Signal::INT).unwrap_or_else(|error| panic!("SIGINT to netdrop: {error}"));
        self.finish()
    }

    /// Waits for the end: status, stdout, lines of stderr.
    #[track_caller]
    pub fn finish(mut self) -> (ExitStatus, Vec<u8>, Vec<String>) {
        let status = wait::until("netdrop ends", || ended(&mut self.child.0));
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        (status, lock(&self.stdout).clone(), lock(&self.stderr).clone())
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
