//! Which processes run, which die, and what is put back from where.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::Broken;
use crate::host::Disk;
use crate::mirror::Manner;
use crate::network::{Node, Service};
use crate::organisation::Process;
use crate::witnesses::{Lie, Running, start};
use crate::world::{MIRRORS, WITNESSES, World};

/// Between the death of a process and its next start lies at least this.
const DEAD: Duration = Duration::from_millis(100);

/// A process; dropped, it dies.
enum Alive {
    Organisation { _process: Process },
    Witness { _running: Running },
}

/// All machines that run something.
pub(crate) struct Machines {
    world: Arc<World>,
    broken: Broken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    alive: BTreeMap<Node, Alive>,
    /// Who is not to be started at the moment.
    away: BTreeMap<Node, u64>,
    backups: BTreeMap<Node, Disk>,
    /// What a log had before an old copy was put in its place.
    newest: BTreeMap<Node, Disk>,
    lie: Option<Lie>,
    /// Kept for as long as the mirrors are to answer.
    mirrors: Vec<tokio::sync::watch::Sender<()>>,
}

impl Machines {
    pub(crate) fn new(world: &Arc<World>, broken: Broken) -> Arc<Self> {
        let machines = Self { world: Arc::clone(world), broken, state: Mutex::default() };
        for mirror in 0..MIRRORS {
            machines.start_mirror(mirror);
        }
        Arc::new(machines)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_mirror(&self, number: u8) {
        let world = Arc::clone(&self.world);
        let (life, living) = tokio::sync::watch::channel(());
        let handle = Arc::new(move |parcel| {
            let world = Arc::clone(&world);
            Box::pin(async move { world.mirrors.answer(number, &parcel) }) as _
        });
        self.world.network.serve(Node::Mirror(number), Some(Service { handle, life: living }));
        self.lock().mirrors.push(life);
    }

    /// Starts what is to run on a machine.
    pub(crate) fn start(&self, node: Node) {
        if self.lock().away.get(&node).is_some_and(|times| *times > 0) {
            return;
        }
        let alive = match node {
            Node::Witness(number) => {
                let forgets = self.broken == Broken::ForgetfulWitnesses && number < 2;
                let lie = if forgets { Some(Lie::Forgets) } else { self.lock().lie.filter(|_| number == 0) };
                // The first one may be faulty, so nothing is held against it.
                let honest = number != 0 || forgets;
                let running = start(&self.world, number, lie.unwrap_or(Lie::None), honest);
                Alive::Witness { _running: running }
            }
            _ => Alive::Organisation { _process: Process::start(&self.world, node) },
        };
        self.lock().alive.insert(node, alive);
    }

    /// Lets what runs on a machine die.
    pub(crate) fn kill(&self, node: Node) {
        let dead = self.lock().alive.remove(&node);
        if let Node::Witness(_) = node {
            self.world.network.serve(node, None);
        }
        drop(dead);
    }

    pub(crate) async fn restart(&self, node: Node) {
        self.kill(node);
        sleep(DEAD).await;
        self.start(node);
    }

    pub(crate) async fn leave(&self, node: Node, time: Duration) {
        *self.lock().away.entry(node).or_default() += 1;
        self.kill(node);
        sleep(time).await;
        self.lock().away.entry(node).and_modify(|times| *times = times.saturating_sub(1));
        self.restart(node).await;
    }

    pub(crate) async fn lie(&self, lie: Lie) {
        self.lock().lie = Some(lie);
        self.restart(Node::Witness(0)).await;
    }

    pub(crate) fn back_up(&self, node: Node) {
        let copy = self.world.hosts[&node].disk().clone();
        self.lock().backups.insert(node, copy);
    }

    /// Puts an old copy in the place of a store; gives whether there is one.
    pub(crate) async fn restore(&self, node: Node) -> bool {
        let Some(copy) = self.lock().backups.get(&node).cloned() else { return false };
        self.kill(node);
        sleep(DEAD).await;
        let newest = std::mem::replace(&mut *self.world.hosts[&node].disk(), copy);
        if !matches!(node, Node::Witness(_)) {
            let mut state = self.lock();
            // An old copy may be put over another one that was not old.
            let is_newest = state.newest.get(&node).is_none_or(|other| history(&newest) >= history(other));
            if is_newest {
                state.newest.insert(node, newest);
            }
        }
        self.start(node);
        true
    }

    /// Puts the newest state of a log back, as its operator has to.
    pub(crate) async fn put_back(&self, node: Node) {
        let Some(newest) = self.lock().newest.remove(&node) else { return };
        self.kill(node);
        sleep(DEAD).await;
        let mut disk = self.world.hosts[&node].disk();
        // Where the copy was not old after all, the log has gone on from it.
        if history(&newest) >= history(&disk) {
            *disk = newest;
        }
        drop(disk);
        self.start(node);
    }

    /// Ends every fault, and starts everything afresh.
    pub(crate) async fn heal(&self) {
        self.world.network.heal();
        for mirror in 0..MIRRORS {
            self.world.mirrors.set(mirror, Manner::Fresh);
        }
        for clock in self.world.clocks.values() {
            clock.set_off(0);
        }
        self.lock().lie = None;
        self.lock().away.clear();
        for node in [Node::Vendor, Node::Supervisor] {
            self.put_back(node).await;
        }
        self.world.hosts.values().for_each(|host| host.mend());
        for node in nodes() {
            self.restart(node).await;
        }
    }
}

/// Every machine that runs a process which can die.
pub(crate) fn nodes() -> impl Iterator<Item = Node> {
    (0..WITNESSES).map(Node::Witness).chain([Node::Vendor, Node::Supervisor])
}

/// How many checkpoints a log has signed.
fn history(disk: &Disk) -> usize {
    disk.objects.keys().filter(|key| key.starts_with("history/")).count()
}

/// What a witness had, for a liar that hides what it has done.
pub(crate) fn hide(world: &World) -> impl FnOnce() + use<'_> {
    let before = world.hosts[&Node::Witness(0)].disk().clone();
    move || *world.hosts[&Node::Witness(0)].disk() = before
}
