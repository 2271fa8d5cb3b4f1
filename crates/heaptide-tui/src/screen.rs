//! The terminal: taken, given back whatever happens, and the loop in between.

use std::io::{self, Stdout, Write, stdout};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use rustix::process::{Signal, kill_current_process_group};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::emulate_default_handler;

use crate::keys::action_of;
use crate::sources::Sources;
use crate::state::{Next, State};
use crate::view::{Theme, render};

/// How long a signal may wait while no key comes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows a profile until the user has seen enough. A signal that ends programs ends this one, after
/// the terminal was given back.
///
/// # Errors
/// When the terminal cannot be used.
pub fn run(state: &mut State<'_>, sources: &mut dyn Sources, theme: Theme) -> io::Result<()> {
    let signals = Signals::catch()?;
    give_back_on_panic();
    let guard = Guard::take()?;
    let end = show(state, sources, theme, &signals);
    drop(guard);
    if let Some(signal) = end? {
        emulate_default_handler(signal)?;
    }
    Ok(())
}

/// Gives the signal that asked for the end, if one did.
fn show(
    state: &mut State<'_>,
    sources: &mut dyn Sources,
    theme: Theme,
    signals: &Signals,
) -> io::Result<Option<i32>> {
    let mut terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
    loop {
        if let Some(signal) = signals.end() {
            return Ok(Some(signal));
        }
        if signals.continued.swap(false, Ordering::Relaxed) {
            // Somebody else stopped us and had the terminal meanwhile.
            terminal = taken_again()?;
        }
        draw(&mut terminal, state, sources, theme)?;
        loop {
            if event::poll(LOOK_EVERY)? {
                break;
            }
            if signals.is_pending() {
                break;
            }
        }
        // All keys that are there already, before the next screen is drawn.
        while event::poll(Duration::ZERO)? {
            let Event::Key(key) = event::read()? else {
                continue;
            };
            let Some(action) = action_of(key, state.is_typing()) else {
                continue;
            };
            match state.apply(action) {
                Next::Go => {}
                Next::Quit => return Ok(None),
                Next::Suspend => terminal = suspend()?,
            }
        }
    }
}

fn draw(
    terminal: &mut Terminal<CrosstermBackend<Stdout>>,
    state: &mut State<'_>,
    sources: &mut dyn Sources,
    theme: Theme,
) -> io::Result<()> {
    terminal.draw(|frame| {
        state.fit(frame.area());
        state.refresh(sources);
        render(frame, state, theme);
    })?;
    Ok(())
}

/// Stops the whole job, as the shell's own Ctrl-Z does, and goes on when it comes back.
fn suspend() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    give_back_terminal();
    kill_current_process_group(Signal::TSTP)?;
    taken_again()
}

/// The terminal after somebody else had it: empty, so that all of the next screen is drawn.
///
/// `Terminal::clear` would ask the terminal where the cursor is, and not every terminal answers.
fn taken_again() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    // Raw mode would not be set again while it is taken for set.
    disable_raw_mode()?;
    take_terminal()?;
    execute!(stdout(), Clear(ClearType::All))?;
    Terminal::new(CrosstermBackend::new(stdout()))
}

fn take_terminal() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen)
}

/// What cannot be given back any more is nobody's to be told of.
fn give_back_terminal() {
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    let _ = stdout().flush();
}

/// Has the terminal while it lives.
struct Guard;

impl Guard {
    fn take() -> io::Result<Self> {
        let guard = Self;
        take_terminal()?;
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        give_back_terminal();
    }
}

/// What a panic says must not vanish with the other screen.
fn give_back_on_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |information| {
        give_back_terminal();
        before(information);
    }));
}

/// Signals that are acted upon between two keys.
struct Signals {
    ends: Vec<(i32, Arc<AtomicBool>)>,
    continued: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let mut ends = Vec::new();
        for signal in [SIGTERM, SIGHUP, SIGINT] {
            let came = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal, Arc::clone(&came))?;
            ends.push((signal, came));
        }
        let continued = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGCONT, Arc::clone(&continued))?;
        Ok(Self { ends, continued })
    }

    fn end(&self) -> Option<i32> {
        let came = |pair: &&(i32, Arc<AtomicBool>)| pair.1.load(Ordering::Relaxed);
        self.ends.iter().find(came).map(|(signal, _)| *signal)
    }

    fn is_pending(&self) -> bool {
        self.end().is_some() || self.continued.load(Ordering::Relaxed)
    }
}
