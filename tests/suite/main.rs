//! Every test that runs `pi` as a program. `engine`, `git`, `network`, `storm` and a part of `login` need a real engine, which `tests/setup` makes
//! ready; in the others docker is a script.

mod apart;
mod attacks;
mod batch;
mod cli;
mod copies;
mod engine;
mod git;
mod keys;
mod login;
mod models;
mod network;
mod planted;
mod session;
mod storm;
mod subagents;
mod world;
