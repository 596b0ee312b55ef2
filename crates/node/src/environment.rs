//! Variables of the environment that are meant for other programs too, such as `RUST_LOG`.
//!
//! They are set for all programs of a host or of a session, and some of those support values that
//! this program does not. Such a value ends no command: it is ignored, with a warning. The
//! variables of this program, `CALNET_…`, are read with the arguments, and a wrong value of them is
//! refused.

use std::{
    env::{self, VarError},
    fmt::Display,
    num::NonZeroUsize,
    ops::RangeInclusive,
    thread,
};

/// The variable with the number of threads that run tasks, as tokio names it.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

/// Most threads that run tasks: each reserves 2 MiB of address space, and no host has as many cores
/// (guess).
const MAX_WORKER_THREADS: u64 = 1024;

/// A variable whose value is ignored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ignored {
    variable: &'static str,
    /// What is wrong with the value, and what is supported.
    reason: String,
}

impl Ignored {
    pub(crate) fn new(variable: &'static str, reason: impl Display) -> Self {
        Self {
            variable,
            reason: reason.to_string(),
        }
    }

    /// Writes a warning to the log.
    pub(crate) fn warn(&self) {
        let Self { variable, reason } = self;
        tracing::warn!("the variable {variable} of the environment is ignored: {reason}");
    }
}

/// Returns the value of a variable. An empty or blank one counts as unset.
///
/// # Errors
///
/// [`Ignored`] if the value is not valid UTF-8.
pub(crate) fn text(variable: &'static str) -> Result<Option<String>, Ignored> {
    match env::var(variable) {
        Ok(value) if value.trim().is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Ignored::new(variable, "it is not valid UTF-8")),
    }
}

/// Returns the value of a variable as a whole number in `range`.
///
/// # Errors
///
/// [`Ignored`] if the value is none.
pub(crate) fn number(
    variable: &'static str,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, Ignored> {
    let Some(text) = text(variable)? else {
        return Ok(None);
    };
    let wrong = || {
        let (least, most) = (range.start(), range.end());
        let reason = format!("{text:?} is no whole number from {least} to {most}");
        Ignored::new(variable, reason)
    };
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.map(Some).ok_or_else(wrong)
}

/// Returns the number of threads that run tasks: the value of `TOKIO_WORKER_THREADS`, else the
/// number of cores that this process may use. tokio itself panics at a value that it does not
/// support.
pub(crate) fn worker_threads(ignored: &mut Vec<Ignored>) -> usize {
    let given = number(WORKER_THREADS, 1..=MAX_WORKER_THREADS);
    let given = used(given, ignored).and_then(|number| usize::try_from(number).ok());
    given.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

/// Returns a value that is used, and adds one that is not to those that are ignored.
pub(crate) fn used<T>(value: Result<Option<T>, Ignored>, ignored: &mut Vec<Ignored>) -> Option<T> {
    value.unwrap_or_else(|variable| {
        ignored.push(variable);
        None
    })
}
