//! `calnet send` and `calnet receive`: a file or folder from one machine to another by a ticket.

pub(crate) mod addresses;
mod lines;
mod parts;
mod path;
mod place;
mod progress;
mod qr;
mod receive;
mod send;
mod small;

pub(crate) use self::{receive::execute as receive, send::execute as send};
