//! What looks at a run while it is measured: a browser has its page open, and its metrics are collected
//! every second.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::browser;

/// Until a browser has done all that it does only once, of which the last comes after half a minute.
pub const TIME_TO_START: Duration = Duration::from_secs(40);

/// Between two collections of the metrics.
const COLLECT_AGAIN: Duration = Duration::from_secs(1);

const REQUEST: &[u8] = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// They look until they are told to leave, or dropped.
#[derive(Debug)]
pub struct Spectators {
    browser: Child,
    _profile: TempDir,
    /// Closed to tell the collector to leave.
    leave: Option<mpsc::Sender<()>>,
    collector: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Spectators {
    /// Has the page at `address` looked at with this browser.
    ///
    /// # Errors
    ///
    /// If the browser cannot be started.
    pub fn come(browser: &Path, address: &str) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir().context("cannot make a folder for the browser")?;
        let url = format!("http://{address}/");
        let child = browser::headless(browser, profile.path(), &url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", browser.display()))?;
        let (leave, told_to_leave) = mpsc::channel::<()>();
        let address = address.to_owned();
        let collector = thread::spawn(move || {
            while told_to_leave.recv_timeout(COLLECT_AGAIN) == Err(RecvTimeoutError::Timeout) {
                collect(&address)?;
            }
            Ok(())
        });
        Ok(Spectators {
            browser: child,
            _profile: profile,
            leave: Some(leave),
            collector: Some(collector),
        })
    }

    /// Has them leave; fails if one of them has not looked to the end.
    ///
    /// # Errors
    ///
    /// As said.
    pub fn leave(mut self) -> anyhow::Result<()> {
        self.leave = None;
        let collector = self.collector.take().context("it leaves once")?;
        let collected = collector.join();
        collected.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let ended = self.browser.try_wait()?;
        ensure!(ended.is_none(), "the browser has ended: {ended:?}");
        Ok(())
    }
}

impl Drop for Spectators {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

/// Gets the metrics once.
fn collect(address: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).context("cannot reach the metrics")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.lines().next().unwrap_or("nothing");
    ensure!(
        status.contains(" 200 "),
        "metrics are answered with {status}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn metrics_that_do_not_come_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            for answer in [
                "HTTP/1.0 200 OK\r\n\r\nstep 1\n",
                "HTTP/1.0 404 Not Found\r\n\r\n",
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; REQUEST.len()];
                stream.read_exact(&mut request).unwrap();
                assert_eq!(request, REQUEST);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        collect(&address).unwrap();
        let error = collect(&address).unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
        server.join().unwrap();
        assert!(collect(&address).is_err(), "nobody listens");
    }
}
