//! What an agent can do to the machine by wasting it, by class: each case with a control that shows that the attack works
//! at all. One session serves many cases.

mod disk;
mod inside;
mod names;
mod packages;
mod planted;
mod races;
