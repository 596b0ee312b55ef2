//! Finding peers and keeping them.
//!
//! Decisions are made by pure state machines, which know no socket, no clock and no runtime;
//! behaviours feed them what the network says and carry out what they answer.
//!
//! [`liveness`] closes connections whose peer has fallen silent: a link that dies without a FIN
//! looks open until somebody asks.
//!
//! ```
//! use calimero_network_discovery::liveness::{Input, Verdict, Watchdog};
//!
//! let mut watchdog = Watchdog::new(3, 0);
//! watchdog.handle(Input::Opened("a connection"));
//! for in_a_row in 1..3 {
//!     let verdict = watchdog.handle(Input::Failed("a connection"));
//!     assert_eq!(verdict, Some(Verdict::Failing { in_a_row }));
//! }
//! let verdict = watchdog.handle(Input::Failed("a connection"));
//! assert_eq!(verdict, Some(Verdict::GiveUp { failures: 3 }));
//! ```
//!
//! # Features
//!
//! `libp2p` (default): the behaviours. Without it the crate is the pure machines alone.

pub mod liveness;
