//! Calls that wait to be fetched, and calls that are out. No I/O.
//!
//! # Invariants
//! - A call is in the queue, or out, or over; its [`Asked`] takes it from wherever it is when it is dropped.
//! - Whoever claims a call's answer is the only one: a second answer finds nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dunlin_model::{FunctionError, RequestId};
use tokio::sync::{Notify, oneshot};

use super::{Dialect, Purpose};

/// A call as it is handed out.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) id: RequestId,
    pub(super) purpose: Purpose,
    pub(super) deadline_ms: i64,
    pub(super) retry_count: u32,
    pub(super) event: Bytes,
}

/// How a call was answered.
#[derive(Debug)]
pub(super) enum Verdict {
    Done(Bytes),
    Failed(FunctionError),
    TooLarge,
    BrokenOff,
}

/// What a program said first.
#[derive(Clone, Debug)]
pub(super) enum First {
    Asked,
    CannotStart(FunctionError),
}

#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    /// A call came into the queue.
    arrived: Notify,
    /// The program said its first word.
    greeted: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Waiting>,
    out: HashMap<RequestId, oneshot::Sender<Verdict>>,
    first: Option<First>,
    dialect: Option<Dialect>,
}

struct Waiting {
    delivery: Delivery,
    fetched: Arc<AtomicBool>,
    answer: oneshot::Sender<Verdict>,
}

/// A call somebody waits for.
pub(super) struct Asked {
    desk: Arc<Desk>,
    id: RequestId,
    fetched: Arc<AtomicBool>,
    answer: oneshot::Receiver<Verdict>,
}

impl Asked {
    /// The answer; `None` when it will never come.
    pub(super) async fn answer(&mut self) -> Option<Verdict> {
        (&mut self.answer).await.ok()
    }

    /// Whether the program has it.
    pub(super) fn was_fetched(&self) -> bool {
        self.fetched.load(Ordering::Acquire)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        state.queue.retain(|waiting| waiting.delivery.id != self.id);
        state.out.remove(&self.id);
    }
}

impl Desk {
    pub(super) fn enqueue(self: &Arc<Self>, delivery: Delivery) -> Asked {
        let (sender, answer) = oneshot::channel();
        let (id, fetched) = (delivery.id.clone(), Arc::<AtomicBool>::default());
        self.state().queue.push_back(Waiting { delivery, fetched: Arc::clone(&fetched), answer: sender });
        self.arrived.notify_one();
        Asked { desk: Arc::clone(self), id, fetched, answer }
    }

    /// The next call, as soon as there is one. From now on it is out.
    pub(super) async fn next(&self, dialect: Dialect) -> Delivery {
        {
            let mut state = self.state();
            state.first.get_or_insert(First::Asked);
            state.dialect.get_or_insert(dialect);
        }
        self.greeted.notify_waiters();
        loop {
            let arrived = self.arrived.notified();
            if let Some(delivery) = self.take() {
                return delivery;
            }
            arrived.await;
        }
    }

    fn take(&self) -> Option<Delivery> {
        let mut state = self.state();
        let waiting = state.queue.pop_front()?;
        waiting.fetched.store(true, Ordering::Release);
        state.out.insert(waiting.delivery.id.clone(), waiting.answer);
        if !state.queue.is_empty() {
            // One notice may have stood for several calls.
            self.arrived.notify_one();
        }
        Some(waiting.delivery)
    }

    /// The right to answer the call that is out under `id`, for the first who asks.
    pub(super) fn claim(&self, id: &str) -> Option<Claim> {
        let id: RequestId = id.parse().ok()?;
        self.state().out.remove(&id).map(|answer| Claim(Some(answer)))
    }

    /// The program cannot start. Only its first word counts.
    pub(super) fn cannot_start(&self, error: FunctionError) -> bool {
        let mut state = self.state();
        let first = state.first.is_none();
        if first {
            state.first = Some(First::CannotStart(error));
        }
        drop(state);
        self.greeted.notify_waiters();
        first
    }

    /// The program's first word.
    pub(super) async fn first(&self) -> First {
        loop {
            let greeted = self.greeted.notified();
            tokio::pin!(greeted);
            // Registered before the look: a greeting in between is not missed.
            greeted.as_mut().enable();
            if let Some(first) = self.state().first.clone() {
                return first;
            }
            greeted.await;
        }
    }

    pub(super) fn dialect(&self) -> Option<Dialect> {
        self.state().dialect
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the desk")
    }
}

/// The right to answer one call. Dropped without an answer it says that the answer broke off.
pub(super) struct Claim(Option<oneshot::Sender<Verdict>>);

impl Claim {
    pub(super) fn answer(mut self, verdict: Verdict) {
        if let Some(answer) = self.0.take() {
            // Nobody waits any more: the call was given up meanwhile.
            let _ = answer.send(verdict);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            let _ = answer.send(Verdict::BrokenOff);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Delivery {
        Delivery {
            id: RequestId::random(),
            purpose: Purpose::Handler,
            deadline_ms: 0,
            retry_count: 0,
            event: Bytes::from_static(b"event"),
        }
    }

    #[tokio::test]
    async fn a_call_is_fetched_once_and_answered_once() {
        let desk = Arc::new(Desk::default());
        let given = delivery();
        let mut asked = desk.enqueue(given.clone());
        assert!(!asked.was_fetched());
        assert!(desk.claim(given.id.as_str()).is_none(), "nobody answers what nobody has fetched");
        assert_eq!(desk.next(Dialect::Fc).await.id, given.id);
        assert!(asked.was_fetched() && desk.take().is_none());
        desk.claim(given.id.as_str()).unwrap().answer(Verdict::Done(Bytes::from_static(b"answer")));
        assert!(desk.claim(given.id.as_str()).is_none());
        assert!(matches!(asked.answer().await, Some(Verdict::Done(answer)) if answer == "answer"));
    }

    #[tokio::test]
    async fn a_call_that_was_given_up_is_neither_fetched_nor_answered() {
        let desk = Arc::new(Desk::default());
        let given = delivery();
        drop(desk.enqueue(delivery()));
        let asked = desk.enqueue(given.clone());
        assert_eq!(desk.next(Dialect::Lambda).await.id, given.id);
        drop(asked);
        assert!(desk.claim(given.id.as_str()).is_none());
        assert!(desk.take().is_none());
    }

    #[tokio::test]
    async fn every_caller_of_next_gets_a_call_when_there_are_as_many() {
        let desk = Arc::new(Desk::default());
        let fetchers: Vec<_> = (0..8)
            .map(|_| {
                let desk = Arc::clone(&desk);
                tokio::spawn(async move { desk.next(Dialect::Fc).await.id })
            })
            .collect();
        tokio::task::yield_now().await;
        let asked: Vec<_> = (0..8).map(|_| desk.enqueue(delivery())).collect();
        for fetcher in fetchers {
            fetcher.await.unwrap();
        }
        assert!(asked.iter().all(Asked::was_fetched));
    }

    #[tokio::test]
    async fn an_answer_that_is_dropped_has_broken_off() {
        let desk = Arc::new(Desk::default());
        let given = delivery();
        let mut asked = desk.enqueue(given.clone());
        desk.next(Dialect::Fc).await;
        drop(desk.claim(given.id.as_str()));
        assert!(matches!(asked.answer().await, Some(Verdict::BrokenOff)));
    }

    #[tokio::test]
    async fn only_the_first_word_counts() {
        let desk = Desk::default();
        let error = FunctionError::worded(dunlin_model::ErrorType::InitializationError, None, "no");
        assert!(desk.cannot_start(error.clone()));
        assert!(!desk.cannot_start(error));
        assert!(matches!(desk.first().await, First::CannotStart(_)));
    }
}
