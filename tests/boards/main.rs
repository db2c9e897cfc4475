//! Whole boards: a real ARM Linux kernel on QEMU's `virt` machine with 64 MB (96 on aarch64), `varved` as its payload on ext4, a
//! real broker and a real receiver outside. `tests/boards/run` builds and packs what is booted, and starts this.
//!
//! | test | proves |
//! |---|---|
//! | [`story::a_board_records_uploads_is_cut_and_goes_on`] | the board does what varved is for, and every cut of its disk's write log holds what it had acknowledged |
//! | [`story::a_commit_without_its_sync_is_caught`] | the same look at a board whose commits are not synced finds losses |
//! | [`size::the_board_stays_within_its_memory`] | memory at each stage of its life, from inside |
//! | [`size::a_reading_costs_few_instructions`] | instructions per reading from socket to acknowledgement, and until it records |

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod board;
mod cuts;
mod size;
mod story;
#[allow(dead_code, reason = "the stories use more of it")]
#[path = "../support/mod.rs"]
mod support;
