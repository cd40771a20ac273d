//! A plan: everything that people do and that goes wrong, with its time, as lines of text. It is
//! drawn from the seed before the run, so that a failure can be shrunk to the lines that matter.

use std::fmt;
use std::str::FromStr;

use policy::Role;

use crate::host::Fault;
use crate::mirror::Manner;
use crate::network::Node;
use crate::seed::Draw;
use crate::world::{ENDPOINTS, MIRRORS, WITNESSES};

/// How many steps a drawn plan has.
const STEPS: u64 = 20;

/// What happens in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A version is built, approved, released and published; for canaries first, or for all.
    Release(Reach),
    /// The newest release goes to all.
    Promote,
    /// What is current goes into the channel.
    Freshen,
    /// An entry in a stream of this organisation's.
    Append(Node),
    /// The release so far behind the newest is revoked, with all below it.
    Revoke(u64),
    /// The product is stopped.
    Stop,
    /// The stop ends.
    Lift,
    /// A policy succeeds in which this key is another.
    Succeed(Node, Role),
    /// An endpoint looks for news; its machine dies after so many steps of its disk.
    Update(u8, Option<u64>),
    /// An endpoint loses its memory: for trying the oracles.
    Forget(u8),
    /// An auditor reads both logs.
    Audit,
    /// A process dies and is started again.
    Restart(Node),
    /// A process dies and stays away for so many seconds.
    Away(Node, u64),
    /// The write after so many of a machine's next ones goes wrong.
    Fail(Node, u64, Fault),
    /// A link is cut.
    Cut(Node, Node),
    /// All links work again.
    Heal,
    /// Messages are lost, delayed, doubled.
    Weather(u64, u64, u64),
    /// A machine's clock is so many seconds off.
    Clock(Node, i64),
    /// A mirror changes its manner.
    Mirror(u8, Manner),
    /// A machine's store is copied.
    Backup(Node),
    /// It is put back as copied; a log's gets its newest state again after so many seconds.
    Restore(Node, u64),
    /// A second sequencer works on a log for so many seconds.
    Rival(Node, u64),
    /// The first witness forgets, or (`honest`) does not.
    Liar(bool),
    /// The first witness says that it starts from this size.
    Size(u64),
    /// Somebody with the log's key asks all witnesses to cosign another tree.
    Fork(Node),
}

/// For whom a release is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Canary,
    All,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How long after the step before, in milliseconds.
    pub(crate) after_ms: u64,
    pub(crate) operation: Operation,
    /// After so many milliseconds the process that does it dies, wherever it is.
    pub(crate) dies_ms: Option<u64>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Operation as O;
        write!(f, "{} ", self.after_ms)?;
        match &self.operation {
            O::Release(Reach::Canary) => f.write_str("release canary"),
            O::Release(Reach::All) => f.write_str("release all"),
            O::Promote => f.write_str("promote"),
            O::Freshen => f.write_str("freshen"),
            O::Append(node) => write!(f, "append {node}"),
            O::Revoke(back) => write!(f, "revoke {back}"),
            O::Stop => f.write_str("stop"),
            O::Lift => f.write_str("lift"),
            O::Succeed(node, role) => write!(f, "succeed {node} {role}"),
            O::Update(endpoint, None) => write!(f, "update {endpoint}"),
            O::Update(endpoint, Some(steps)) => write!(f, "update {endpoint} {steps}"),
            O::Forget(endpoint) => write!(f, "forget {endpoint}"),
            O::Audit => f.write_str("audit"),
            O::Restart(node) => write!(f, "restart {node}"),
            O::Away(node, seconds) => write!(f, "away {node} {seconds}"),
            O::Fail(node, after, fault) => write!(f, "fail {node} {after} {fault}"),
            O::Cut(one, other) => write!(f, "cut {one} {other}"),
            O::Heal => f.write_str("heal"),
            O::Weather(lost, delay, doubled) => write!(f, "weather {lost} {delay} {doubled}"),
            O::Clock(node, seconds) => write!(f, "clock {node} {seconds}"),
            O::Mirror(mirror, manner) => write!(f, "mirror {mirror} {manner}"),
            O::Backup(node) => write!(f, "backup {node}"),
            O::Restore(node, seconds) => write!(f, "restore {node} {seconds}"),
            O::Rival(node, seconds) => write!(f, "rival {node} {seconds}"),
            O::Liar(true) => f.write_str("liar forgets"),
            O::Liar(false) => f.write_str("liar honest"),
            O::Size(size) => write!(f, "size {size}"),
            O::Fork(node) => write!(f, "fork {node}"),
        }?;
        self.dies_ms.map_or(Ok(()), |ms| write!(f, " dies {ms}"))
    }
}

/// The words of a line, one after the other.
struct Words<'a>(std::iter::Peekable<std::str::SplitWhitespace<'a>>);

impl Words<'_> {
    fn next<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.0.next().ok_or("a word is missing")?;
        word.parse().map_err(|_| format!("`{word}` is not what belongs there"))
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = Words(line.split_whitespace().peekable());
        let after_ms = words.next()?;
        let operation = operation(&mut words)?;
        let dies_ms = match words.0.next() {
            None => None,
            Some("dies") => Some(words.next()?),
            Some(other) => return Err(format!("`{other}` is one word too many")),
        };
        Ok(Self { after_ms, operation, dies_ms })
    }
}

fn operation(words: &mut Words<'_>) -> Result<Operation, String> {
    use Operation as O;
    let name: String = words.next()?;
    Ok(match name.as_str() {
        "release" => O::Release(match words.next::<String>()?.as_str() {
            "canary" => Reach::Canary,
            _ => Reach::All,
        }),
        "promote" => O::Promote,
        "freshen" => O::Freshen,
        "append" => O::Append(words.next()?),
        "revoke" => O::Revoke(words.next()?),
        "stop" => O::Stop,
        "lift" => O::Lift,
        "succeed" => O::Succeed(words.next()?, role(&words.next::<String>()?)?),
        "update" => {
            let endpoint = words.next()?;
            let is_number = words.0.peek().is_some_and(|word| *word != "dies");
            O::Update(endpoint, if is_number { Some(words.next()?) } else { None })
        }
        "forget" => O::Forget(words.next()?),
        "audit" => O::Audit,
        "restart" => O::Restart(words.next()?),
        "away" => O::Away(words.next()?, words.next()?),
        "fail" => O::Fail(words.next()?, words.next()?, words.next()?),
        "cut" => O::Cut(words.next()?, words.next()?),
        "heal" => O::Heal,
        "weather" => O::Weather(words.next()?, words.next()?, words.next()?),
        "clock" => O::Clock(words.next()?, words.next()?),
        "mirror" => O::Mirror(words.next()?, words.next()?),
        "backup" => O::Backup(words.next()?),
        "restore" => O::Restore(words.next()?, words.next()?),
        "rival" => O::Rival(words.next()?, words.next()?),
        "liar" => O::Liar(words.next::<String>()? == "forgets"),
        "size" => O::Size(words.next()?),
        "fork" => O::Fork(words.next()?),
        other => return Err(format!("there is no operation `{other}`")),
    })
}

const ROLES: [Role; 6] = [Role::Builder, Role::Release, Role::Approver, Role::Status, Role::Policy, Role::Recorder];

fn role(name: &str) -> Result<Role, String> {
    ROLES.into_iter().find(|role| role.to_string() == name).ok_or_else(|| format!("there is no role `{name}`"))
}

/// A plan as text, a step a line; empty lines and what follows a `#` say nothing.
pub(crate) fn parse(text: &str) -> Result<Vec<Step>, String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().map_err(|error| format!("`{line}`: {error}")))
        .collect()
}

/// The plan of a seed.
pub(crate) fn draw(seed: u64) -> Vec<Step> {
    let mut draw = Draw::new(seed ^ 0x706c_616e);
    (0..STEPS).map(|_| step(&mut draw)).collect()
}

fn step(draw: &mut Draw) -> Step {
    // Mostly things meet each other; now and then hours pass, so that evidence gets old.
    let after_ms = match draw.below(20) {
        0..9 => draw.below(300),
        9..17 => draw.below(30_000),
        17..19 => draw.below(1_800_000),
        _ => draw.below(8 * 3_600_000),
    };
    let operation = drawn(draw);
    let may_die = matches!(
        operation,
        Operation::Release(_)
            | Operation::Promote
            | Operation::Freshen
            | Operation::Append(_)
            | Operation::Revoke(_)
            | Operation::Stop
            | Operation::Lift
            | Operation::Succeed(..)
            | Operation::Update(..)
    );
    let dies_ms = (may_die && draw.happens(200)).then(|| draw.below(3_000));
    Step { after_ms, operation, dies_ms }
}

fn organisation(draw: &mut Draw) -> Node {
    *draw.pick(&[Node::Vendor, Node::Supervisor])
}

fn machine(draw: &mut Draw) -> Node {
    let mut all = vec![Node::Vendor, Node::Supervisor, Node::Vendor, Node::Supervisor];
    all.extend((0..WITNESSES).map(Node::Witness));
    *draw.pick(&all)
}

fn number(draw: &mut Draw, bound: u8) -> u8 {
    u8::try_from(draw.below(u64::from(bound))).unwrap()
}

/// So often does each kind of operation come, of a hundred times.
fn drawn(draw: &mut Draw) -> Operation {
    use Operation as O;
    match draw.below(100) {
        0..14 => O::Release(*draw.pick(&[Reach::All, Reach::All, Reach::Canary])),
        14..16 => O::Promote,
        16..19 => O::Freshen,
        19..24 => O::Append(organisation(draw)),
        24..26 => O::Revoke(draw.below(2)),
        26..28 => O::Stop,
        28..30 => O::Lift,
        30..33 => O::Succeed(organisation(draw), *draw.pick(&ROLES)),
        33..48 => {
            let endpoint = number(draw, ENDPOINTS);
            O::Update(endpoint, draw.happens(300).then(|| draw.below(25)))
        }
        48..51 => O::Audit,
        51..57 => O::Restart(machine(draw)),
        57..60 => O::Away(machine(draw), *draw.pick(&[60, 3_600, 100_000])),
        60..71 => fault(draw),
        71..76 => cut(draw),
        76..79 => O::Heal,
        79..83 => O::Weather(draw.below(150), draw.below(3_000), draw.below(300)),
        83..88 => clock(draw),
        88..93 => O::Mirror(number(draw, MIRRORS), *draw.pick(&Manner::ALL)),
        93..95 => O::Backup(*draw.pick(&[Node::Vendor, Node::Supervisor, Node::Witness(0)])),
        95..97 => O::Restore(*draw.pick(&[Node::Vendor, Node::Supervisor, Node::Witness(0)]), draw.below(600)),
        97 => O::Rival(organisation(draw), draw.below(600)),
        98 => draw.pick(&[O::Liar(true), O::Liar(false), O::Size(0), O::Size(5), O::Size(1_000)]).clone(),
        _ => O::Fork(organisation(draw)),
    }
}

fn fault(draw: &mut Draw) -> Operation {
    let kind = match draw.below(5) {
        0 => Fault::NotApplied,
        1 => Fault::Applied,
        2 => Fault::Slow(draw.below(5_000)),
        3 => Fault::CrashBefore,
        _ => Fault::CrashAfter,
    };
    Operation::Fail(organisation(draw), draw.below(12), kind)
}

fn cut(draw: &mut Draw) -> Operation {
    let one = machine(draw);
    let other = match draw.below(3) {
        0 => Node::Endpoint(number(draw, ENDPOINTS)),
        1 => Node::Witness(number(draw, WITNESSES)),
        _ => organisation(draw),
    };
    Operation::Cut(one, other)
}

fn clock(draw: &mut Draw) -> Operation {
    // To 2099 and back, or a little. Witnesses look after their clocks; one of them may not.
    let seconds = *draw.pick(&[-400_000_000, -3_600, -60, 0, 0, 60, 3_600, 2_300_000_000]);
    let endpoint = Node::Endpoint(number(draw, ENDPOINTS));
    let node = *draw.pick(&[endpoint, endpoint, Node::Vendor, Node::Supervisor, Node::Witness(0)]);
    Operation::Clock(node, seconds)
}
