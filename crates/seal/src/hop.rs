//! What two workers of one intent say to each other (`docs/formats/worker.md`, "From worker to worker"). Each proves
//! that it has the key that the intent names, by opening what was sealed to it; nobody else can read, forge, reorder,
//! replay or cut off anything, whoever carries it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use attest::StatementId;
use hkdf::Hkdf;
use sha2::Sha256;
use stdx::{Digest, Entropy, EntropyError, Hasher};
use zeroize::Zeroizing;

use crate::frames::TAG_BYTES;
use crate::key::{PrivateKey, PublicKey};
use crate::share::{KEY_BYTES, Share, Wrapped};

/// A share as it is sealed: itself and a tag.
const SEALED_BYTES: usize = KEY_BYTES + TAG_BYTES;

/// A call's number.
const CALL_BYTES: usize = 4;

/// Questions of one session: a query of 512 steps has as many stages at most, of 8 tasks with 64 partitions each.
const CALLS_MAX: u32 = 512 * 8 * 64;

/// Who speaks with whom, and under which intent.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The intent, which names both.
    pub intent: StatementId,
    /// Who asks.
    pub asks: &'a PublicKey,
    /// Who answers.
    pub answers: &'a PublicKey,
}

/// Why something is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// From somebody else, for another place, or changed on its way.
    #[error("it is not what the other worker has sent here")]
    Forged,
    /// It was taken before.
    #[error("it was sent before")]
    Replayed,
    /// More than a session is for.
    #[error("a session has {CALLS_MAX} questions at most")]
    Calls,
    /// No randomness.
    #[error("there is no randomness")]
    Entropy,
}

impl From<EntropyError> for HopError {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

impl Hop<'_> {
    /// What binds keys to these two workers, in this direction, under this intent.
    fn info(&self, part: &str) -> Vec<u8> {
        let Self { intent, asks, answers } = self;
        format!("clerestory/hop/v1\n{part}\n{intent}\n{}\n{}\n", asks.id(), answers.id()).into_bytes()
    }

    /// Begins a session: the message goes to who answers.
    ///
    /// # Errors
    /// [`HopError::Entropy`].
    pub fn begin(&self, entropy: &dyn Entropy) -> Result<(Begun, Vec<u8>), HopError> {
        let share = Share::draw(entropy)?;
        let message = message(share.seal(self.answers, &self.info("asks"), entropy)?);
        Ok((Begun { share, message: message.clone() }, message))
    }

    /// The other side's part: a session, and the message that goes back. Whether who has begun has the key that the
    /// intent names is known with the first question, and not before.
    ///
    /// # Errors
    /// [`HopError::Forged`] if the message is not for this key under this intent; [`HopError::Entropy`].
    pub fn answer(
        &self,
        key: &PrivateKey,
        begun: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<(Answering, Vec<u8>), HopError> {
        let first = wrapped(begun).and_then(|it| Share::open(&it, key, &self.info("asks"))).ok_or(HopError::Forged)?;
        let second = Share::draw(entropy)?;
        let answered = message(second.seal(self.asks, &self.info("answers"), entropy)?);
        let keys = self.keys([&first, &second], [begun, &answered]);
        Ok((Answering { keys, taken: Mutex::default() }, answered))
    }

    /// Ends what [`begin`](Self::begin) has begun.
    ///
    /// # Errors
    /// [`HopError::Forged`].
    pub fn finish(&self, begun: Begun, key: &PrivateKey, answered: &[u8]) -> Result<Asking, HopError> {
        let second = wrapped(answered).and_then(|it| Share::open(&it, key, &self.info("answers")));
        let second = second.ok_or(HopError::Forged)?;
        let keys = self.keys([&begun.share, &second], [&begun.message, answered]);
        Ok(Asking { keys, next: AtomicU32::new(0) })
    }

    /// HKDF-SHA256 over both secrets: who lacks one of the two private keys lacks one of the secrets.
    fn keys(&self, secrets: [&Share; 2], messages: [&[u8]; 2]) -> Arc<Keys> {
        let mut salt = Hasher::default();
        salt.update(&self.info("keys"));
        for message in messages {
            salt.update(Digest::of(message).as_bytes());
        }
        let secret = Zeroizing::new(secrets.map(Share::bytes).map(|it| it.as_slice()).concat());
        let hkdf = Hkdf::<Sha256>::new(Some(salt.finish().as_bytes()), &secret);
        let derive = |purpose: &str| {
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            hkdf.expand(purpose.as_bytes(), &mut *key).expect("32 bytes are fewer than 255 hashes");
            Aes256Gcm::new((&*key).into())
        };
        Arc::new(Keys { questions: derive("clerestory hop: questions"), answers: derive("clerestory hop: answers") })
    }
}

/// HPKE's encapsulated key, and the share.
fn message(Wrapped { mut encapsulated, sealed }: Wrapped) -> Vec<u8> {
    encapsulated.extend(sealed);
    encapsulated
}

fn wrapped(message: &[u8]) -> Option<Wrapped> {
    let (encapsulated, sealed) = message.split_at_checked(message.len().checked_sub(SEALED_BYTES)?)?;
    Some(Wrapped { encapsulated: encapsulated.to_vec(), sealed: sealed.to_vec() })
}

/// A session that waits for its answer.
#[derive(Debug)]
pub struct Begun {
    share: Share,
    message: Vec<u8>,
}

/// A key for each direction. The nonce is the call's number, the frame's, and whether it is the last: none is used twice.
struct Keys {
    questions: Aes256Gcm,
    answers: Aes256Gcm,
}

fn nonce(call: u32, frame: u32, last: bool) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    let digits = call.to_be_bytes().into_iter().chain(frame.to_be_bytes()).chain([0, 0, 0, u8::from(last)]);
    for (byte, digit) in nonce.iter_mut().zip(digits) {
        *byte = digit;
    }
    nonce.into()
}

fn close(cipher: &Aes256Gcm, place: (u32, u32, bool), text: &[u8], ahead: &[u8]) -> Vec<u8> {
    let mut buffer = text.to_vec();
    let (call, frame, last) = place;
    let closed = cipher.encrypt_in_place(&nonce(call, frame, last), b"", &mut buffer);
    closed.expect("a frame is far below AES-GCM's limit");
    [ahead, &buffer].concat()
}

fn open(cipher: &Aes256Gcm, (call, frame, last): (u32, u32, bool), closed: &[u8]) -> Result<Vec<u8>, HopError> {
    let mut buffer = closed.to_vec();
    let opened = cipher.decrypt_in_place(&nonce(call, frame, last), b"", &mut buffer);
    opened.map(|()| buffer).map_err(|_| HopError::Forged)
}

/// Who asks.
pub struct Asking {
    keys: Arc<Keys>,
    next: AtomicU32,
}

impl Asking {
    /// A question as it travels, and what reads its answer.
    ///
    /// # Errors
    /// [`HopError::Calls`].
    pub fn ask(&self, question: &[u8]) -> Result<(Vec<u8>, Answers), HopError> {
        let call =
            self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (next < CALLS_MAX).then_some(next + 1));
        let call = call.map_err(|_| HopError::Calls)?;
        let closed = close(&self.keys.questions, (call, 0, true), question, &call.to_be_bytes());
        Ok((closed, Answers { keys: Arc::clone(&self.keys), call, frame: 0, ended: false }))
    }
}

/// Who answers.
pub struct Answering {
    keys: Arc<Keys>,
    taken: Mutex<HashSet<u32>>,
}

impl Answering {
    /// A question, and what writes its answer. Each question is taken once, in any order.
    ///
    /// # Errors
    /// [`HopError`].
    pub fn take(&self, closed: &[u8]) -> Result<(Vec<u8>, Replies), HopError> {
        let (number, closed) = closed.split_first_chunk::<CALL_BYTES>().ok_or(HopError::Forged)?;
        let call = u32::from_be_bytes(*number);
        if call >= CALLS_MAX {
            return Err(HopError::Calls);
        }
        let question = open(&self.keys.questions, (call, 0, true), closed)?;
        // Only what the other has sent uses a number up.
        let is_new = self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(call);
        let replies = Replies { keys: Arc::clone(&self.keys), call, frame: 0 };
        if is_new { Ok((question, replies)) } else { Err(HopError::Replayed) }
    }
}

/// Writes the frames of one answer.
pub struct Replies {
    keys: Arc<Keys>,
    call: u32,
    frame: u32,
}

impl Replies {
    /// A frame that others follow; `None` after four billion.
    #[must_use]
    pub fn frame(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let closed = close(&self.keys.answers, (self.call, self.frame, false), text, &[0]);
        self.frame = self.frame.checked_add(1)?;
        Some(closed)
    }

    /// The last one.
    #[must_use]
    pub fn last(self, text: &[u8]) -> Vec<u8> {
        close(&self.keys.answers, (self.call, self.frame, true), text, &[1])
    }
}

/// A frame of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Others follow.
    Frame(Vec<u8>),
    /// The last one.
    Last(Vec<u8>),
}

/// Reads the frames of one answer, in their order. An answer without its last frame was cut off.
pub struct Answers {
    keys: Arc<Keys>,
    call: u32,
    frame: u32,
    ended: bool,
}

impl Answers {
    /// The next frame.
    ///
    /// # Errors
    /// [`HopError::Forged`] if it is another one, or follows the last.
    pub fn read(&mut self, closed: &[u8]) -> Result<Answered, HopError> {
        let (mark, closed) = closed.split_first().ok_or(HopError::Forged)?;
        if self.ended || *mark > 1 {
            return Err(HopError::Forged);
        }
        let is_last = *mark == 1;
        let text = open(&self.keys.answers, (self.call, self.frame, is_last), closed)?;
        self.frame = self.frame.checked_add(1).ok_or(HopError::Forged)?;
        self.ended = is_last;
        Ok(if is_last { Answered::Last(text) } else { Answered::Frame(text) })
    }

    /// Whether the last frame was read.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.ended
    }
}
