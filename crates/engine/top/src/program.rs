//! The terminal, the keys and the end of `cifar-ps top`.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pserver_cli::console;
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_cli::signals;
use pserver_guard::Credentials;
use pserver_guard::args::CredentialArgs;
use pserver_run::Layout;
use pserver_view::RunView;
use pserver_wire::client::Client;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use tokio::sync::mpsc;

use crate::feed::{News, follow};
use crate::screen::{Surroundings, draw};

/// The screen is drawn anew this often where there is news.
const FRAME: Duration = Duration::from_millis(100);

/// News that may wait to be seen.
const NEWS_AHEAD: usize = 16;

/// Shows the run of the server at `address` until somebody leaves.
///
/// # Errors
///
/// [`Exit::Usage`] if stdout is no terminal or the address none, [`Exit::TryAgain`] if the server does
/// not answer, [`Exit::Permanent`] if it refuses.
pub fn run(address: &str, credentials: &CredentialArgs) -> Result<Exit, Failure> {
    let lack = match io::stdout().is_terminal() && io::stdin().is_terminal() {
        false => Some("stdin or stdout is none"),
        true if !console::can_move_cursor() => Some("TERM names one that cannot be drawn on"),
        true => None,
    };
    if let Some(lack) = lack {
        let error = anyhow!("top draws on a terminal, and {lack}; `cifar-ps explain` writes text");
        return Err(error).or_exit(Exit::Usage);
    }
    let credentials = Credentials::new(credentials).or_exit(Exit::Permanent)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an event loop")?;
    runtime.block_on(show(address, &credentials))
}

async fn show(address: &str, credentials: &Credentials) -> Result<Exit, Failure> {
    let leave = signals::asked_to_leave()?;
    let client = Client::new(address, &Layout::default(), credentials);
    let mut client = client.or_exit(Exit::Usage)?;
    if let Err(error) = client.run().await {
        let exit = match error.is_transient() {
            true => Exit::TryAgain,
            false => Exit::Permanent,
        };
        let error = anyhow::Error::new(error);
        let error = error.context(format!("there is no run to see at {address}"));
        return Err(Failure::new(exit, error));
    }
    let (tell, news) = mpsc::channel(NEWS_AHEAD);
    let following = tokio::spawn(follow(client, tell));
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let result = tokio::select! {
        result = watch(&mut terminal, address, news) => result,
        exit = leave => Ok(exit),
    };
    // Whatever has happened, the terminal is the person's again.
    ratatui::restore();
    following.abort();
    Ok(result?)
}

/// Draws news until a key says to leave.
async fn watch(
    terminal: &mut DefaultTerminal,
    server: &str,
    mut news: mpsc::Receiver<News>,
) -> anyhow::Result<Exit> {
    let mut keys = keys();
    let mut view = RunView::default();
    let mut around = Surroundings {
        server: server.to_owned(),
        ..Surroundings::default()
    };
    let mut frames = tokio::time::interval(FRAME);
    let mut is_old = true;
    loop {
        tokio::select! {
            Some(news) = news.recv() => {
                take_in(news, &mut view, &mut around)?;
                is_old = true;
            }
            event = keys.recv() => match event {
                Some(Event::Key(key)) if leaves(key) => return Ok(Exit::Complete),
                Some(_) => is_old = true,
                None => return Err(anyhow!("the terminal gives no more keys")),
            },
            _ = frames.tick(), if is_old => {
                terminal.draw(|frame| draw(frame, &view, &around))?;
                is_old = false;
            }
        }
    }
}

fn take_in(news: News, view: &mut RunView, around: &mut Surroundings) -> anyhow::Result<()> {
    match news {
        News::Lines {
            lines,
            damage,
            begins_anew,
            read,
        } => {
            if begins_anew {
                *view = RunView::default();
            }
            lines.iter().for_each(|line| view.add(line));
            view.add_damage(&damage);
            around.away = None;
            around.read = read;
        }
        News::Away(reason) => around.away = Some(reason),
        News::Over(reason) => return Err(anyhow!(reason)),
    }
    Ok(())
}

fn leaves(key: KeyEvent) -> bool {
    let is_control_c =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.code == KeyCode::Char('q') || key.code == KeyCode::Esc || is_control_c
}

/// The keys that are pressed, and the changes of the terminal's size, read by a thread that ends with
/// the process.
fn keys() -> mpsc::UnboundedReceiver<Event> {
    let (pressed, keys) = mpsc::unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if pressed.send(event).is_err() {
                return;
            }
        }
    });
    keys
}
