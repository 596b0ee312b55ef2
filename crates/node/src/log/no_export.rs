//! The export of spans in a program without the Cargo feature `otel`.

use std::convert::Infallible;

use tracing_subscriber::layer::{Identity, Layer};

use crate::{cli::NodeArgs, error::CommandError};

/// Warns that spans are not exported, although the environment names a collector.
pub(crate) fn warn_of_variable() {
    let variable = "OTEL_EXPORTER_OTLP_ENDPOINT";
    if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
        tracing::warn!(
            variable,
            "no spans are exported: calnet was built without the Cargo feature `otel`"
        );
    }
}

/// An exporter that does not exist.
pub(crate) struct Exporter(Infallible);

impl Exporter {
    /// Refuses the option of the command line.
    ///
    /// # Errors
    ///
    /// [`CommandError::NoExport`] if the option is given. The variable of the environment is for all
    /// programs of a host, so that it is [no error](warn_of_variable).
    pub(crate) fn open(args: Option<&NodeArgs>) -> Result<Option<Self>, CommandError> {
        match args.and_then(|args| args.otlp_endpoint.as_ref()) {
            Some(_) => Err(CommandError::NoExport),
            None => Ok(None),
        }
    }

    pub(super) fn layer<S: tracing::Subscriber>(&self) -> impl Layer<S> {
        match self.0 {}
        #[expect(unreachable_code, reason = "names the type")]
        Identity::new()
    }

    pub(super) fn end(&self) {
        match self.0 {}
    }
}
