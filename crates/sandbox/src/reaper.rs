//! Undoing what is left of ended processes, off the way of whoever waited for them.
//!
//! The last reference to a mount namespace unmounts its file systems, which takes several milliseconds of waiting in the kernel: more
//! than the rest of a short command. We hold such a reference while a process runs, so that the kernel does not unmount before it
//! tells us of the end; this thread then drops it.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use crate::SandboxError;
use crate::cgroup::Group;

/// What is left of an ended process.
#[derive(Debug)]
pub(crate) struct Remains {
    /// Its mount namespace, as the last reference to it.
    pub(crate) namespace: Option<OwnedFd>,
    /// Its groups.
    pub(crate) group: Option<Group>,
}

enum Task {
    Undo(Remains),
    Tell(Sender<()>),
}

/// Hands remains to the thread. Dropping it waits until all are undone.
#[derive(Debug)]
pub(crate) struct Reaper {
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    pub(crate) fn new() -> Result<Self, SandboxError> {
        let (tasks, received) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("sandbox-reaper".to_owned())
            .spawn(move || work(&received))
            .map_err(|source| SandboxError::Prepare { step: "start a thread", source })?;
        Ok(Self { tasks: Some(tasks), thread: Some(thread) })
    }

    /// Undoes `remains`, soon.
    pub(crate) fn undo(&self, remains: Remains) {
        self.send(Task::Undo(remains));
    }

    /// Waits until everything handed over so far is undone.
    pub(crate) fn settle(&self) {
        let (told, done) = mpsc::channel();
        self.send(Task::Tell(told));
        if done.recv().is_err() {
            tracing::error!("the reaper thread is gone");
        }
    }

    fn send(&self, task: Task) {
        let tasks = self.tasks.as_ref().expect("only dropping the reaper takes it");
        // Without the thread the task is dropped here and now, which undoes it just as well.
        if tasks.send(task).is_err() {
            tracing::error!("the reaper thread is gone");
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.tasks = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the reaper thread panicked");
        }
    }
}

fn work(tasks: &Receiver<Task>) {
    for task in tasks {
        match task {
            Task::Undo(remains) => drop(remains),
            Task::Tell(told) => {
                let heard = told.send(()).is_ok();
                tracing::trace!(heard, "settled");
            }
        }
    }
}
