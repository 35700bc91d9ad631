//! A bounded queue with many writers and many readers.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Jobs for a handful of threads. Closing it lets the readers drain what is in it and then stop.
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    capacity: usize,
}

struct Inner<T> {
    jobs: VecDeque<T>,
    closed: bool,
}

/// What a reader got.
pub(super) enum Next<T> {
    Job(T),
    /// Nothing came in time.
    Idle,
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let inner = Inner { jobs: VecDeque::new(), closed: false };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), capacity }
    }

    /// Adds a job, or hands it back when the queue is full or closed.
    pub(super) fn push(&self, job: T) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.closed || inner.jobs.len() >= self.capacity {
            return Err(job);
        }
        inner.jobs.push_back(job);
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a job for at most `patience`.
    pub(super) fn next(&self, patience: Duration) -> Next<T> {
        let deadline = Instant::now() + patience;
        let mut inner = self.lock();
        loop {
            if let Some(job) = inner.jobs.pop_front() {
                return Next::Job(job);
            }
            if inner.closed {
                return Next::Closed;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Next::Idle };
            inner = self.changed.wait_timeout(inner, left).expect("nothing panics while it holds a queue").0;
        }
    }

    /// Waits for a job for as long as it takes. `None` when the queue is closed and empty.
    pub(super) fn wait(&self) -> Option<T> {
        loop {
            match self.next(Duration::from_secs(3600)) {
                Next::Job(job) => return Some(job),
                Next::Idle => {}
                Next::Closed => return None,
            }
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().expect("nothing panics while it holds a queue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_closed_queue_hands_the_job_back() {
        let queue = Queue::new(1);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Err(2));
        queue.close();
        assert_eq!(queue.wait(), Some(1));
        assert_eq!(queue.wait(), None);
        assert_eq!(queue.push(3), Err(3));
    }
}
