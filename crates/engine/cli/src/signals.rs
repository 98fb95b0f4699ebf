//! Signals that ask a program to leave.

use std::{io, thread};

use rustix::process::{Signal, getpid, kill_process};
use signal_hook::low_level::exit;
use tokio::signal::unix::{SignalKind, signal};

use crate::console;
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

/// Has SIGINT and SIGTERM end this process at once, with the exit code of the signal.
///
/// For programs that have nothing to finish. Without it the kernel ends them as well, but not where they are
/// the first process of a container: that one gets no signal that it does not catch. Destructors do not run:
/// those of libtorch take away what other threads still compute with.
///
/// # Errors
///
/// If the handlers cannot be installed, or there is no thread to wait for them.
pub fn end_when_asked() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = {
        let _context = runtime.enter();
        asked_to_leave()?
    };
    let wait = move || {
        let code = runtime.block_on(asked) as i32;
        console::finish();
        exit(code)
    };
    thread::Builder::new().spawn(wait)?;
    Ok(())
}

/// Has this process receive SIGTERM when its stdin ends.
///
/// That is a pipe of which only the process that started this one holds the other end. The kernel closes
/// that end when the process dies, however it dies: a launcher that is killed leaves nothing running. One
/// that died before this call has closed it already. A death signal (`PR_SET_PDEATHSIG`) would miss that,
/// and it is sent when the thread ends that started this process, even if the launcher goes on.
///
/// # Errors
///
/// If there is no thread to wait for it.
pub fn leave_with_parent() -> io::Result<()> {
    let wait = || {
        // Nobody writes there, and an error is an end as well.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        // A process may signal itself.
        let _ = kill_process(getpid(), Signal::TERM);
    };
    thread::Builder::new()
        .name("parent".to_owned())
        .spawn(wait)?;
    Ok(())
}
