//! The disk fails under real servers and commands, or the process dies, at each file-system call;
//! and what else happens to a disk. Afterwards everything goes on, nothing is lost, nothing forks.

mod append;
mod backup;
mod cosign;
mod custodian;
mod erasing;
mod flips;
mod full;
mod gateway;
mod intake;
mod publish;
mod status;
mod trial;
