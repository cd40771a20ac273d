//! Blocking code as a future: it gets a stack of its own and runs by turns with the simulation,
//! never at the same time.
//!
//! Endpoints and the commands of an organisation block on the network. Here each runs on a thread
//! of its own, but the runtime's thread stands still while that one runs, until it asks for
//! something that takes simulated time. Dropping the future unwinds the stack where it stands: the
//! death of a process at that point.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;

use tokio::sync::Notify;

use crate::network::{Delivery, Network, Parcel};

/// What the stack stops for.
enum Stop {
    /// A request is to be carried.
    Request(Parcel),
    /// A future on the stack waits to be woken.
    Wait(Arc<Wakeup>),
    /// The work panicked.
    Panicked(Box<dyn Any + Send>),
}

/// How it goes on.
enum Go {
    On,
    With(Delivery),
    Die,
}

/// The stack's end of the two channels.
struct Stack {
    stops: Sender<Stop>,
    goes: Receiver<Go>,
}

thread_local! {
    static STACK: RefCell<Option<Stack>> = const { RefCell::new(None) };
}

/// What unwinds a stack that dies.
struct Death;

#[derive(Default)]
struct Wakeup(Notify);

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Unwinds the present stack: its process is dead.
pub(crate) fn die() -> ! {
    resume_unwind(Box::new(Death))
}

fn suspend(stop: Stop) -> Go {
    STACK.with_borrow(|stack| {
        let stack = stack.as_ref().expect("only what runs on a stack of its own may block");
        if stack.stops.send(stop).is_err() {
            return Go::Die;
        }
        stack.goes.recv().unwrap_or(Go::Die)
    })
}

/// Sends a request from this stack, and blocks for its answer.
pub(crate) fn request(parcel: Parcel) -> Delivery {
    match suspend(Stop::Request(parcel)) {
        Go::With(delivery) => delivery,
        Go::On | Go::Die => die(),
    }
}

/// Runs a future on this stack.
pub(crate) fn wait_for<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let wakeup = Arc::new(Wakeup::default());
    let waker = Waker::from(Arc::clone(&wakeup));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        if let Go::Die = suspend(Stop::Wait(Arc::clone(&wakeup))) {
            die();
        }
    }
}

/// The simulation's end; dropping it kills the stack and waits for its end.
struct Reins {
    goes: Sender<Go>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Reins {
    fn drop(&mut self) {
        // A stack that has ended already takes no more orders.
        let _ = self.goes.send(Go::Die);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `work` on a stack of its own, its requests carried by `network`. `None`: it died.
pub(crate) async fn on_a_stack<T: Send + 'static>(
    network: Arc<Network>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (stops, stopped) = channel();
    let (goes, orders) = channel();
    let (done, result) = channel();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::spawn(move || {
        let _entered = runtime.enter();
        if !matches!(orders.recv(), Ok(Go::On)) {
            return;
        }
        let panicked = stops.clone();
        STACK.set(Some(Stack { stops, goes: orders }));
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(output) => drop(done.send(output)),
            Err(payload) if payload.is::<Death>() => {}
            Err(payload) => drop(panicked.send(Stop::Panicked(payload))),
        }
        STACK.set(None);
    });
    let reins = Reins { goes, thread: Some(thread) };
    let mut go = Go::On;
    loop {
        if reins.goes.send(go).is_err() {
            return None;
        }
        // This thread stands still while the other runs, so that there is one order of events.
        go = match stopped.recv() {
            Ok(Stop::Request(parcel)) => Go::With(Arc::clone(&network).carry(parcel).await),
            Ok(Stop::Wait(wakeup)) => {
                wakeup.0.notified().await;
                Go::On
            }
            Ok(Stop::Panicked(payload)) => resume_unwind(payload),
            Err(_) => return result.recv().ok(),
        };
    }
}
