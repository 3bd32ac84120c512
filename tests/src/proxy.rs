//! A TCP proxy whose manners change at run time: it forwards, stops, cuts or dawdles, and counts what passes.

use crate::listen::{Listener, Shared};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What happens to what passes. Amounts are bytes from the server to the client, per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Everything passes.
    Forward,
    /// Connections are accepted; after so many bytes the server is heard no more.
    Hang {
        /// Bytes that still pass.
        after: u64,
    },
    /// The connection ends after so many bytes.
    Cut {
        /// Bytes that still pass.
        after: u64,
    },
    /// Everything passes, at most this fast.
    Slow {
        /// Bytes per second.
        rate: u32,
    },
}

/// A proxy before one server.
#[derive(Debug)]
pub struct Proxy {
    listener: Listener,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    down: u64,
    up: u64,
    hung: usize,
    ended: bool,
}

/// What a chunk may do.
enum Verdict {
    Pass(usize),
    End,
}

impl Proxy {
    /// Starts one that forwards.
    pub fn start(server: SocketAddr) -> Self {
        let inner = Arc::new(Inner {
            state: Mutex::new(State {
                manner: Manner::Forward,
                down: 0,
                up: 0,
                hung: 0,
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let common = Arc::clone(&inner);
        let listener = Listener::start(move |client, shared| common.serve(client, server, shared));
        Self { listener, inner }
    }

    /// Changes its manners, for connections that are open too.
    pub fn set(&self, manner: Manner) {
        self.inner.lock().manner = manner;
        self.inner.changed.notify_all();
    }

    /// Bytes that came from the server so far.
    pub fn down(&self) -> u64 {
        self.inner.lock().down
    }

    /// Bytes that went to the server so far.
    pub fn up(&self) -> u64 {
        self.inner.lock().up
    }

    /// Waits until something hangs.
    ///
    /// # Panics
    /// Nothing does.
    pub fn wait_hanging(&self) {
        crate::eventually("something hangs in the proxy", || {
            (self.inner.lock().hung > 0).then_some(())
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inner.lock().ended = true;
        self.inner.changed.notify_all();
    }
}

impl Deref for Proxy {
    type Target = Listener;

    fn deref(&self) -> &Listener {
        &self.listener
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, client: TcpStream, server: SocketAddr, shared: &Shared) {
        let Ok(server) = TcpStream::connect(server) else {
            return;
        };
        let closed = AtomicBool::new(false);
        let gone = || closed.load(Ordering::SeqCst) || shared.ended();
        std::thread::scope(|scope| {
            scope.spawn(|| self.pump(&server, &client, true, &closed, &gone));
            self.pump(&client, &server, false, &closed, &gone);
        });
    }

    /// Carries one direction until it ends, and then ends both.
    fn pump(
        &self,
        from: &TcpStream,
        to: &TcpStream,
        down: bool,
        closed: &AtomicBool,
        gone: &dyn Fn() -> bool,
    ) {
        let (mut from, mut to) = (from, to);
        let (mut buffer, mut passed) = ([0; 16 * 1024], 0);
        'reading: while let Ok(n @ 1..) = from.read(&mut buffer) {
            let mut at = 0;
            while at < n {
                let Verdict::Pass(count) = self.judge(down, passed, n - at, gone) else {
                    break 'reading;
                };
                if to.write_all(&buffer[at..at + count]).is_err() {
                    break 'reading;
                }
                (at, passed) = (at + count, passed + count as u64);
                let mut state = self.lock();
                *(if down { &mut state.down } else { &mut state.up }) += count as u64;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
        closed.store(true, Ordering::SeqCst);
        // Wakes the other direction where it waits for better manners.
        self.changed.notify_all();
    }

    /// Waits until something of what is there may pass.
    fn judge(&self, down: bool, passed: u64, there: usize, gone: &dyn Fn() -> bool) -> Verdict {
        let mut state = self.lock();
        let mut counted = false;
        let verdict = loop {
            if state.ended || gone() {
                break Verdict::End;
            }
            let rest = |after: u64| usize::try_from(after.saturating_sub(passed)).unwrap_or(there);
            match state.manner {
                Manner::Forward => break Verdict::Pass(there),
                Manner::Cut { after } if down && rest(after) == 0 => break Verdict::End,
                Manner::Hang { after } if down && rest(after) == 0 => {}
                Manner::Cut { after } | Manner::Hang { after } => {
                    let most = if down { rest(after) } else { there };
                    break Verdict::Pass(there.min(most));
                }
                Manner::Slow { rate } => {
                    // A tenth of a second's worth at a time.
                    let most = usize::try_from(rate / 10).unwrap_or(1).max(1);
                    let tick = Duration::from_millis(100);
                    let waited = self.changed.wait_timeout(state, tick);
                    (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    if !matches!(state.manner, Manner::Slow { .. }) {
                        continue;
                    }
                    break Verdict::Pass(there.min(most));
                }
            }
            if !counted {
                counted = true;
                state.hung += 1;
            }
            let look = Duration::from_millis(200);
            let waited = self.changed.wait_timeout(state, look);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        };
        if counted {
            state.hung -= 1;
        }
        verdict
    }
}
