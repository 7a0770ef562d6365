//! The far end of the measured connections: a listener and its thread, which ends with it.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use rustix::net::{Shutdown, shutdown};

use super::{
    cpus,
    nat::{Nat, SERVER},
};

/// A listener in the server's namespace; dropped, it ends its thread once that has served its last connection.
pub(super) struct Server {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a port that the kernel chooses, and serves connections one by one on this CPU.
    pub(super) fn start(
        nat: &Nat,
        cpu: usize,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + 'static,
    ) -> Result<Self> {
        let listener =
            nat.in_server(|| TcpListener::bind((SERVER, 0)).context("cannot listen on a TCP socket"))?;
        let address = listener.local_addr().context("getsockname")?;
        let listener = Arc::new(listener);
        let thread = thread::spawn({
            let listener = Arc::clone(&listener);
            move || {
                // Pinned only for steadier figures: without it they are still right.
                let _where_it_is = cpus::pin(cpu);
                while let Ok((stream, _)) = listener.accept() {
                    // A connection that fails here fails at the client, which says so.
                    let _ = serve(stream);
                }
                // However the loop ended: nobody shall wait to be served any more.
                let _ = shutdown(&*listener, Shutdown::Both);
            }
        });
        Ok(Self { listener, address, thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes `accept`, which then fails. Fails itself when the thread has done so before.
        let _ = shutdown(&*self.listener, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}
