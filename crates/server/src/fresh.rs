//! Answers that are asked for once, for all who wait for them.

use std::sync::Arc;
use std::time::Duration;

use stdx::Clock;
use tokio::sync::Mutex;

/// An answer that was asked for after whoever wants it came: of many who come while somebody else asks, one asks for
/// all. Nobody gets what was true before.
pub(crate) struct Fresh<T> {
    clock: Arc<dyn Clock>,
    /// When it was asked for, and what came.
    last: Mutex<Option<(Duration, T)>>,
}

impl<T: Clone> Fresh<T> {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: Mutex::new(None) }
    }

    pub(crate) async fn get<A: Future<Output = T>>(&self, ask: impl FnOnce() -> A) -> T {
        let came = self.clock.monotonic();
        let mut last = self.last.lock().await;
        if let Some((began, answer)) = last.as_ref()
            && *began >= came
        {
            return answer.clone();
        }
        let began = self.clock.monotonic();
        let answer = ask().await;
        *last = Some((began, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use stdx::SystemClock;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_comes_while_somebody_asks_gets_the_next_answer_together() {
        let fresh = Arc::new(Fresh::new(Arc::new(SystemClock::new())));
        let (asked, may_answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let come = || {
            let (fresh, asked, may) = (Arc::clone(&fresh), Arc::clone(&asked), Arc::clone(&may_answer));
            tokio::spawn(async move {
                let ask = || async {
                    let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
                    may.acquire().await.unwrap().forget();
                    number
                };
                fresh.get(ask).await
            })
        };
        let first = come();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..20).map(|_| come()).collect();
        // Until all of them wait: they run on one thread, each until it can't go on.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        may_answer.add_permits(1);
        assert_eq!(first.await.unwrap(), 1);
        may_answer.add_permits(1);
        for other in others {
            assert_eq!(other.await.unwrap(), 2, "one asks for all, after all have come");
        }
        may_answer.add_permits(1);
        assert_eq!(come().await.unwrap(), 3, "what comes later is asked for anew");
    }
}
