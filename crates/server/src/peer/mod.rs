//! Others, over HTTP: witnesses and logs. Nothing that they say is trusted here; the engines that
//! ask verify it.

mod tiles;
mod witness;

pub use tiles::HttpTiles;
pub use witness::{HttpWitness, witnesses_of};
