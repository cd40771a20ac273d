//! The walk through a file's containers, and everything that bounds it.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};
use std::ops::ControlFlow;

use detection::{Note, NoteCode, Unpacking};

use super::detect::formats;
use super::fields::count;
use super::label::{inner_name, printable};
use super::note::Fault;
use super::timed::Timed;

/// Who looks at what comes out.
pub trait Visitor {
    /// A member: the names that lead to it, from the outermost container's member on, and its bytes.
    /// Breaking ends the walk.
    fn member(&mut self, inside: &[String], bytes: &[u8]) -> ControlFlow<()>;
    /// Something that was not looked at, or not in the usual way.
    fn note(&mut self, note: Note);
}

/// What a walk came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Members of all depths, without the file itself.
    pub members: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The deepest one; the file itself is at 0.
    pub depth: u32,
    /// Notes, with those beyond [`Unpacking::notes`], which the visitor did not get.
    pub notes: u64,
}

/// Hands out all that is in `bytes`, which are called `name`; the file itself is the caller's. `is_late` is
/// asked at least once for each MiB and member, and ends the walk when it says so.
pub fn unpack(
    name: &str,
    bytes: &[u8],
    limits: &Unpacking,
    is_late: &dyn Fn() -> bool,
    visitor: &mut dyn Visitor,
) -> Totals {
    let mut walk = Walk {
        limits,
        is_late,
        visitor,
        name,
        inside: Vec::new(),
        justified: limits.justified(count(bytes)),
        depth: 0,
        held: 0,
        totals: Totals::default(),
    };
    // The walk has said by a note why it stopped, or the visitor wanted it to.
    let _ended: Step = walk.open(bytes);
    walk.totals
}

/// The walk ends here, whatever is left.
#[derive(Debug)]
pub(super) struct Stop;

pub(super) type Step<T = ()> = Result<T, Stop>;

/// What a decoder gave, and why it gave no more.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) bytes: Vec<u8>,
    pub(super) fault: Option<Fault>,
    /// The fault is one of the whole walk.
    stops: bool,
}

/// Decoded between two looks at the clock: as much as there is already, within these bounds.
const ROUND_BYTES_MIN: usize = 32 << 10;
const ROUND_BYTES_MAX: usize = 1 << 20;

pub(super) struct Walk<'a> {
    limits: &'a Unpacking,
    is_late: &'a dyn Fn() -> bool,
    visitor: &'a mut dyn Visitor,
    /// Of the file itself.
    name: &'a str,
    /// Where the walk is.
    inside: Vec<String>,
    /// Bytes in all that the file's size explains.
    justified: u64,
    depth: u32,
    /// Decoded bytes in memory now.
    held: u64,
    totals: Totals,
}

impl<'a> Walk<'a> {
    /// What to call the only member of the container that is open now.
    pub(super) fn inner_name(&self) -> Vec<u8> {
        inner_name(self.inside.last().map_or(self.name, String::as_str)).as_bytes().to_vec()
    }

    pub(super) fn window_bytes_max(&self) -> u32 {
        self.limits.window_bytes
    }

    /// Bytes for a decoder.
    pub(super) fn timed<'b>(&self, bytes: &'b [u8]) -> Timed<'b>
    where
        'a: 'b,
    {
        Timed::new(bytes, self.is_late)
    }

    /// What the walk may still give out before it ends.
    pub(super) fn bytes_left(&self) -> u64 {
        self.justified.min(self.limits.bytes).saturating_sub(self.totals.bytes)
    }

    /// A member that is opened without being handed out itself.
    pub(super) fn within(&mut self, name: &[u8], open: impl FnOnce(&mut Self) -> Step) -> Step {
        self.inside.push(printable(name));
        self.depth += 1;
        let opened = open(self);
        self.depth -= 1;
        self.inside.pop();
        opened
    }

    /// To be called in each loop over what a header claims.
    pub(super) fn tick(&mut self) -> Step {
        if (self.is_late)() {
            return self.stop(Fault::new(NoteCode::Timeout, "the time is over"));
        }
        Ok(())
    }

    /// Something about the container that is open now.
    pub(super) fn note(&mut self, fault: Fault) {
        self.totals.notes += 1;
        if self.totals.notes <= self.limits.notes {
            let Fault { code, detail } = fault;
            self.visitor.note(Note { inside: self.inside.clone(), code, message: detail.into_owned() });
        }
    }

    /// Something about a member of the container that is open now.
    pub(super) fn note_of(&mut self, name: &[u8], fault: Fault) {
        self.inside.push(printable(name));
        self.note(fault);
        self.inside.pop();
    }

    /// A member that lies in its container as it is.
    pub(super) fn stored(&mut self, name: &[u8], bytes: &[u8]) -> Step {
        self.tick()?;
        self.charge(count(bytes))?;
        let most = usize::try_from(self.limits.member_bytes).unwrap_or(usize::MAX);
        let seen = bytes.get(..most).unwrap_or(bytes);
        self.enter(name, seen, |_, _| Ok(()))?;
        if seen.len() < bytes.len() {
            self.note_of(name, too_large());
        }
        Ok(())
    }

    /// A member that takes decoding.
    pub(super) fn decoded(&mut self, name: &[u8], reader: &mut dyn Read) -> Step {
        let decoded = self.decode(reader)?;
        self.member(name, decoded)
    }

    /// What [`Walk::decode`] gave.
    pub(super) fn member(&mut self, name: &[u8], decoded: Decoded) -> Step {
        self.member_and(name, decoded, |_, _| Ok(()))
    }

    /// The same, where the container knows more of what is in its member than the member's bytes tell.
    pub(super) fn member_and(
        &mut self,
        name: &[u8],
        decoded: Decoded,
        more: impl FnOnce(&mut Self, &[u8]) -> Step,
    ) -> Step {
        let Decoded { bytes, fault, stops } = decoded;
        let entered = self.enter(name, &bytes, more);
        self.held = self.held.saturating_sub(count(&bytes));
        entered?;
        if let Some(fault) = fault {
            self.note_of(name, fault);
        }
        if stops { Err(Stop) } else { Ok(()) }
    }

    /// Reads until the end, an error or a bound, whichever comes first. What comes out counts as held until
    /// it goes to [`Walk::member`] or [`Walk::drop`].
    pub(super) fn decode(&mut self, reader: &mut dyn Read) -> Step<Decoded> {
        let mut decoded = Decoded::default();
        loop {
            if (self.is_late)() {
                decoded.end(Fault::new(NoteCode::Timeout, "the time is over"), true);
                return Ok(decoded);
            }
            let room = self.room(count(&decoded.bytes));
            let fair = decoded.bytes.len().clamp(ROUND_BYTES_MIN, ROUND_BYTES_MAX);
            let round = usize::try_from(room.bytes).unwrap_or(usize::MAX).min(fair);
            if round == 0 {
                // Only a member that goes on has met the bound.
                let mut probe = [0];
                if !matches!(reader.read(&mut probe), Ok(0)) {
                    decoded.end(room.fault, room.stops);
                }
                return Ok(decoded);
            }
            reserve(&mut decoded.bytes, round);
            let before = decoded.bytes.len();
            let result = (&mut *reader).take(round.try_into().unwrap_or(u64::MAX)).read_to_end(&mut decoded.bytes);
            let came = decoded.bytes.len().saturating_sub(before);
            self.held += came.try_into().unwrap_or(0);
            self.totals.bytes += came.try_into().unwrap_or(0);
            if let Err(error) = result {
                let stops = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::QuotaExceeded);
                decoded.end(error.into(), stops);
                return Ok(decoded);
            }
            if came < round {
                return Ok(decoded);
            }
        }
    }

    /// Forgets what [`Walk::decode`] gave.
    pub(super) fn forget(&mut self, decoded: Decoded) {
        self.held = self.held.saturating_sub(count(&decoded.bytes));
    }

    fn room(&self, member: u64) -> Room {
        let totals = self.totals.bytes;
        let choices = [
            (self.justified, totals, Fault::new(NoteCode::Bomb, "more bytes than the file's size explains"), true),
            (self.limits.bytes, totals, Fault::new(NoteCode::TooLarge, "all members together are too large"), true),
            (self.limits.member_bytes, member, too_large(), false),
            (self.limits.held_bytes, self.held, Fault::new(NoteCode::TooLarge, "too much is open at once"), false),
        ];
        let rooms = choices.map(|(most, used, fault, stops)| Room { bytes: most.saturating_sub(used), fault, stops });
        // The first of equals: what ends the walk goes before what ends the member.
        rooms.into_iter().min_by_key(|room| room.bytes).unwrap_or(Room { bytes: 0, fault: too_large(), stops: true })
    }

    /// Bytes that are handed out without being decoded.
    fn charge(&mut self, bytes: u64) -> Step {
        self.totals.bytes = self.totals.bytes.saturating_add(bytes);
        let room = self.room(0);
        if room.bytes == 0 && room.stops && bytes > 0 {
            return self.stop(room.fault);
        }
        Ok(())
    }

    fn stop<T>(&mut self, fault: Fault) -> Step<T> {
        self.note(fault);
        Err(Stop)
    }

    /// Hands a member out and opens it.
    fn enter(&mut self, name: &[u8], bytes: &[u8], more: impl FnOnce(&mut Self, &[u8]) -> Step) -> Step {
        if self.totals.members >= self.limits.members {
            return self.stop(Fault::new(NoteCode::TooMany, "more members than allowed"));
        }
        self.totals.members += 1;
        self.totals.depth = self.totals.depth.max(self.depth);
        self.inside.push(printable(name));
        let looked = self.look(bytes, more);
        self.inside.pop();
        looked
    }

    fn look(&mut self, bytes: &[u8], more: impl FnOnce(&mut Self, &[u8]) -> Step) -> Step {
        if self.visitor.member(&self.inside, bytes).is_break() {
            return Err(Stop);
        }
        self.open(bytes)?;
        self.depth += 1;
        let done = more(self, bytes);
        self.depth -= 1;
        done
    }

    fn open(&mut self, bytes: &[u8]) -> Step {
        for format in formats(bytes) {
            if self.depth >= self.limits.depth {
                self.note(Fault::new(NoteCode::TooDeep, "containers in containers"));
                return Ok(());
            }
            self.depth += 1;
            let opened = format.open(self, bytes);
            self.depth -= 1;
            opened?;
        }
        Ok(())
    }
}

struct Room {
    bytes: u64,
    /// What to say if it is used up.
    fault: Fault,
    stops: bool,
}

impl Decoded {
    fn end(&mut self, fault: Fault, stops: bool) {
        self.fault = Some(fault);
        self.stops = stops;
    }

    /// Whether it was cut because one member may not have more bytes.
    pub(super) fn is_cut(&self) -> bool {
        !self.stops && self.fault.as_ref().is_some_and(|fault| fault.code == NoteCode::TooLarge)
    }

    /// Whether the walk ends with it. For those who use the bytes and forget them.
    pub(super) fn stops(&self) -> Step {
        if self.stops { Err(Stop) } else { Ok(()) }
    }

    /// Notes another fault, unless there is one.
    pub(super) fn or_fault(mut self, fault: Option<Fault>) -> Self {
        self.fault = self.fault.or(fault);
        self
    }
}

const fn too_large() -> Fault {
    Fault {
        code: NoteCode::TooLarge,
        detail: Cow::Borrowed("it is larger than allowed, and only its start was looked at"),
    }
}

/// Room for `more` bytes; grows by half, so that memory stays below 1.5 times what came out, and a round.
fn reserve(bytes: &mut Vec<u8>, more: usize) {
    if bytes.capacity() - bytes.len() < more {
        bytes.reserve_exact(more.max(bytes.len() / 2));
    }
}
