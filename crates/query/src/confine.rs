//! What a process that holds plaintext does to itself first.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use stdx::{Digest, Hasher};

/// Code and what no pool counts, beside the queries' own memory.
const BESIDE_BYTES: u64 = 4 << 30;

/// What a thread reserves: 64 MiB of stack, 2 MiB of another's, 64 MiB of the allocator's. A processor has two, one for
/// queries and one for HTTP.
const THREAD_BYTES: u64 = 192 << 20;

/// Makes this process leave no core, and lets nobody but root look into its memory. It has `queries` bytes for
/// queries; a query that takes more than all of that, uncounted, ends the process instead of the machine.
///
/// # Errors
/// When the kernel refuses: nothing is read then.
pub fn confine(queries: u64) -> io::Result<()> {
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Core, limit(0))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let threads = std::thread::available_parallelism()?.get() as u64 * THREAD_BYTES;
    setrlimit(Resource::As, limit(queries.saturating_mul(2).saturating_add(BESIDE_BYTES + threads)))?;
    Ok(())
}

/// SHA-256 of the program that runs: what an enrolment names, and a standing request.
///
/// # Errors
/// When it can't be read.
pub fn program_digest() -> io::Result<Digest> {
    let mut program = std::fs::File::open("/proc/self/exe")?;
    let mut hasher = Hasher::default();
    io::copy(&mut program, &mut hasher)?;
    Ok(hasher.finish())
}
