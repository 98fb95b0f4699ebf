//! A program on a terminal: what it draws there, and what a person types.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use pserver_cli::exit::Exit;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::program::eventually;

/// A program whose stdin, stdout and stderr are a terminal. Dropped, it is killed.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    /// Our own hold of the program's end, to see how it leaves it.
    line: File,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Becomes true once the screen shows all that was written before [`END`].
    is_at_end: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    pub(crate) fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        Terminal::start_as("xterm-256color", command, columns, rows)
    }

    /// Starts a program on a terminal of this size, which is called `term`.
    pub(crate) fn start_as(term: &str, command: &mut Command, columns: u16, rows: u16) -> Self {
        let (keyboard, line) = pair().expect("the system has terminals");
        tcsetwinsize(&line, winsize(columns, rows)).expect("a terminal has a size");
        let clone = || line.try_clone().expect("there are file descriptors");
        let child = command
            .env("TERM", term)
            .stdin(clone())
            .stdout(clone())
            .stderr(clone())
            .spawn()
            .expect("the program can be started");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            size_of(rows),
            size_of(columns),
            HISTORY,
        )));
        let is_at_end = Arc::<AtomicBool>::default();
        let reader = {
            let is_at_end = Arc::clone(&is_at_end);
            let mut output = keyboard.try_clone().expect("there are file descriptors");
            let screen = Arc::clone(&screen);
            thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(length @ 1..) = output.read(&mut piece) {
                    let (written, end) = match piece[..length].split_last() {
                        Some((&END, written)) => (written, true),
                        _ => (&piece[..length], false),
                    };
                    screen
                        .lock()
                        .expect("nobody panics with it")
                        .process(written);
                    is_at_end.fetch_or(end, Ordering::Relaxed);
                }
            })
        };
        Terminal {
            child,
            keyboard,
            line,
            screen,
            is_at_end,
            reader,
        }
    }

    /// Gives the terminal another size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let mut screen = self.screen.lock().expect("nobody panics with it");
        screen
            .screen_mut()
            .set_size(size_of(rows), size_of(columns));
        tcsetwinsize(&self.line, winsize(columns, rows)).expect("a terminal has a size");
    }

    /// All that was written for good: what scrolled away, then what can be seen now.
    pub(crate) fn everything(&self) -> String {
        let mut parser = self.screen.lock().expect("nobody panics with it");
        let screen = parser.screen_mut();
        let mut rows: Vec<String> = Vec::new();
        screen.set_scrollback(HISTORY);
        let columns = screen.size().1.get();
        for above in (1..=screen.scrollback()).rev() {
            screen.set_scrollback(above);
            rows.extend(screen.rows(0, columns).next());
        }
        screen.set_scrollback(0);
        rows.extend(screen.rows(0, columns));
        rows.iter()
            .map(|row| format!("{}\n", row.trim_end()))
            .collect()
    }

    /// What can be seen now.
    pub(crate) fn seen(&self) -> String {
        let screen = self.screen.lock().expect("nobody panics with it");
        screen.screen().contents()
    }

    /// Whether the screen is one that a program has for itself, beside the person's.
    pub(crate) fn is_programs_own(&self) -> bool {
        let screen = self.screen.lock().expect("nobody panics with it");
        screen.screen().alternate_screen()
    }

    /// Waits until something can be seen.
    #[track_caller]
    pub(crate) fn wait_until_seen(&self, text: &str) {
        eventually(text, || self.seen().contains(text).then_some(()));
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("somebody reads");
    }

    /// Whether the terminal is set as it was at first: keys go to programs a line at a time.
    pub(crate) fn takes_whole_lines(&self) -> bool {
        let settings = tcgetattr(&self.line).expect("it is a terminal");
        settings
            .local_modes
            .contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Asks the program to do as this signal says.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be sent a signal");
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub(crate) fn wait_until_ended(&mut self) -> ExitStatus {
        eventually("the end of a program", || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }

    /// Waits for the end of the program, and until all that it wrote can be seen.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Exit {
        let status = self.wait_until_ended();
        // A terminal that was the program's session's own hangs up with it, and takes no more.
        let _ = self.line.write_all(&[END]);
        eventually("the end of what a program writes", || {
            let is_all = self.is_at_end.load(Ordering::Relaxed) || self.reader.is_finished();
            is_all.then_some(())
        });
        let exit = status.code().and_then(Exit::from_code);
        exit.unwrap_or_else(|| panic!("it ended with {status}:\n{}", self.seen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- seen:\n{}", self.seen());
        }
    }
}

/// What no program writes (the control character ENQ).
const END: u8 = 5;

/// Lines that a terminal keeps of what has scrolled away.
const HISTORY: usize = 1000;

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn size_of(side: u16) -> NonZero<u16> {
    NonZero::new(side).expect("a terminal has some size")
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
