//! The tests of varved from outside: real binaries, a real broker, real files. `tests/run` installs what they need.
//!
//! | story | proves |
//! |---|---|
//! | [`stories::layers`] | imports go downward only |
//! | [`stories::main_job`] | sensors to fleet, bit for bit, also when everything is killed at random |
//! | [`stories::backlog`] | it records on without a broker, in flat memory, and catches up |
//! | [`stories::many_devices`] | two hundred devices are held by one receiver |
//! | [`stories::wire_bytes`] | a reading costs a hundredth of its JSON on the wire |
//! | [`stories::bad_links`] | a link that is late, cut, thin, deaf on one side or false loses and repeats nothing, and progress is steady |
//! | [`stories::kill_storm`] | broker, receiver and device killed twenty times each under load: 0 lost, 0 twice |
//! | [`stories::live_first`] | what is recorded now does not wait behind the backlog |
//! | [`stories::time_travel`] | rollbacks, clones and lost replicas lose and invent nothing |
//! | [`stories::bad_input`] | what a hostile or clumsy world sends is refused with a clear word |
//! | [`stories::brokers`] | the brokers of docs/brokers let each side do its own and nothing else; no log holds a secret |
//! | [`stories::clocks`] | a lying wall clock loses, reorders and rewrites nothing |
//! | [`stories::footprint`] | memory, threads and files stay within their bounds |
//! | [`stories::year`] | a year of readings keeps within its file, in flat memory, with the history that was promised |
//! | [`stories::wear`] | a flash budget is kept by seldomer commits, and its account outlives everything |
//! | [`stories::foreign`] | a receiver that was written from the pages alone gets every reading once |
//! | [`stories::every_call`] | killed, or told an error, at any system call, the service keeps what it flushed |
//! | [`stories::faults`] | a failing, full or meddled-with medium costs nothing that was acknowledged |
//! | [`stories::power_cuts`] | what the real binaries wrote, cut at every boundary, still holds all that they acknowledged |
//! | [`stories::power_fail`] | an input that says that the power fails has all of RAM on flash before the supply is gone |
//! | [`stories::soak`] | device and receiver at work for long behind a bad link take no more than before, and lose nothing |
//! | [`stories::pull`] | a technician pulls a store over SSH: all of it, once, from where it was cut; a key for that and nothing else |
//! | [`stories::demo`] | the README's first command, and that its account can fail |
//! | [`stories::commands`] | what a technician types |
//! | [`stories::profiles`] | each board's profile is right, and its install script takes nothing away |

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod stories;
mod support;
