//! Signals that ask a program to leave.

use std::io;

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

/// Waits for SIGINT or SIGTERM and returns the exit code that leaving on it has.
///
/// The signals are caught from this call on, before the returned future is first polled.
///
/// # Errors
///
/// If the handlers cannot be installed.
pub fn asked_to_leave() -> io::Result<impl Future<Output = Exit> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => Exit::Interrupted,
            _ = terminate.recv() => Exit::Terminated,
        }
    })
}

/// Makes the kernel send SIGTERM to this process when the one that started it dies, however it
/// dies: a launcher that is killed leaves nothing running.
///
/// # Errors
///
/// If the kernel refuses.
pub fn leave_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::TERM))?)
}
