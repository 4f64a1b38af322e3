//! A live view on a terminal: a [`Board`] drawn in place, and above it the lines that stay.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plan::Plan;
use solver::Event;
use sys::terminal::window_size;

use crate::progress::Renderer;
use crate::progress::board::{Board, Room};

/// Times go on even if nothing happens.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// For terminals that do not tell their size.
const USUAL_ROOM: Room = Room { rows: 24, columns: 80 };

/// Draws on standard error.
pub(crate) struct Tty {
    view: Arc<View>,
    /// Dropped to end the thread that redraws.
    ticker: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

struct View {
    began: Instant,
    board: Mutex<Board>,
    /// One bar whose message is the whole view: several lines are then drawn at once.
    bar: ProgressBar,
}

impl Tty {
    pub(crate) fn new(plan: &Plan) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
            .with_style(ProgressStyle::with_template("{msg}").expect("the template is well formed"));
        let view = Arc::new(View { began: Instant::now(), board: Mutex::new(Board::new(plan)), bar });
        let ticker = Some(start_ticker(Arc::clone(&view)));
        Self { view, ticker: Mutex::new(ticker) }
    }
}

/// Redraws until the sender is dropped. The first drawing waits, too: a build that is done at once shows no view.
fn start_ticker(view: Arc<View>) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = channel();
    let redraw = move || {
        while stopped.recv_timeout(REDRAW_EVERY) == Err(RecvTimeoutError::Timeout) {
            view.draw();
        }
    };
    (stop, std::thread::spawn(redraw))
}

impl View {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) {
        let lines = self.board().view(self.began.elapsed(), room());
        self.bar.set_message(lines.join("\n"));
    }
}

/// Asked each time, since windows are resized.
fn room() -> Room {
    match window_size(io::stderr()) {
        Ok(size) if size.rows > 0 && size.columns > 0 => {
            Room { rows: size.rows.into(), columns: size.columns.into() }
        }
        _ => USUAL_ROOM,
    }
}

impl Renderer for Tty {
    fn event(&self, event: Event) {
        let kept = self.view.board().fold(event, self.view.began.elapsed(), room().columns);
        for line in kept {
            self.view.bar.println(line);
        }
    }

    fn finish(&self) {
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, thread)) = ticker {
            drop(stop);
            if thread.join().is_err() {
                tracing::warn!("the thread that draws ended early");
            }
        }
        self.view.bar.finish_and_clear();
    }
}

impl Drop for Tty {
    /// The terminal is left clean also when the solver panics.
    fn drop(&mut self) {
        self.finish();
    }
}
