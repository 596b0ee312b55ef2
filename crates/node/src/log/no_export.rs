//! The export of spans in a program without the Cargo feature `otel`.

use std::convert::Infallible;

use tracing_subscriber::layer::{Identity, Layer};

use crate::{
    cli::NodeArgs,
    environment::{self, Ignored},
    error::CommandError,
};

/// The variable with the endpoint, as the specification of OpenTelemetry names it.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// An exporter that does not exist.
pub(crate) struct Exporter(Infallible);

impl Exporter {
    /// Refuses the option of the command line, and ignores the variable of the environment.
    ///
    /// # Errors
    ///
    /// [`CommandError::NoExport`] if the option is given.
    pub(crate) fn open(
        args: Option<&NodeArgs>,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Option<Self>, CommandError> {
        let Some(args) = args else {
            return Ok(None);
        };
        if args.otlp_endpoint.is_some() {
            return Err(CommandError::NoExport);
        }
        let endpoint = environment::text(ENDPOINT).and_then(|endpoint| match endpoint {
            Some(_) => Err(Ignored::new(
                ENDPOINT,
                "no spans are exported: calnet was built without the Cargo feature `otel`",
            )),
            None => Ok(None),
        });
        Ok(environment::used(endpoint, ignored))
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
