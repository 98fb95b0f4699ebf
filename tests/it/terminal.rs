//! A program on a terminal: what it draws there.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use cifar_cli::exit::Exit;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::program::eventually;

/// A program whose stdin, stdout and stderr are a terminal. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Terminal {
    child: Child,
    drawn: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    pub(crate) fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        let (mut screen, line) = pair().expect("the system has terminals");
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&line, size).expect("a terminal has a size");
        let clone = || line.try_clone().expect("there are file descriptors");
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(clone())
            .stdout(clone())
            .stderr(clone())
            .spawn()
            .expect("the program can be started");
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let reader = {
            let drawn = Arc::clone(&drawn);
            thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(length @ 1..) = screen.read(&mut piece) {
                    let mut drawn = drawn.lock().expect("nobody panics with it");
                    drawn.extend_from_slice(&piece[..length]);
                }
            })
        };
        Terminal {
            child,
            drawn,
            reader,
        }
    }

    /// All that was drawn so far, with its control sequences.
    pub(crate) fn drawn(&self) -> String {
        let drawn = self.drawn.lock().expect("nobody panics with it");
        String::from_utf8_lossy(&drawn).into_owned()
    }

    /// Waits until something was drawn.
    #[track_caller]
    pub(crate) fn wait_until_drawn(&self, text: &str) {
        eventually(text, || {
            let ended = self.reader.is_finished();
            let is_drawn = self.drawn().contains(text);
            assert!(is_drawn || !ended, "it ended without drawing {text:?}");
            is_drawn.then_some(())
        });
    }

    /// Asks the program to do as this signal says.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be sent a signal");
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Exit {
        let status = eventually("the end of a program", || {
            self.child.try_wait().expect("a child can be waited for")
        });
        let exit = status.code().and_then(Exit::from_code);
        exit.unwrap_or_else(|| panic!("it ended with {status}:\n{}", self.drawn()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- drawn:\n{}", self.drawn());
        }
    }
}

/// Both ends of a new terminal: the person's and the program's.
fn pair() -> rustix::io::Result<(File, File)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let keyboard = openpt(flags)?;
    grantpt(&keyboard)?;
    unlockpt(&keyboard)?;
    let name = ptsname(&keyboard, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let line = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
    Ok((File::from(keyboard), File::from(line)))
}
