//! Congestion control of TCP sockets.

use std::{io, sync::Arc};

use socket2::{Domain, Socket, Type};

/// A congestion control that the kernel does not give to this process.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses `{name}` ({choices}): {source}")]
#[non_exhaustive]
pub struct CongestionError {
    /// The configured name.
    pub name: Arc<str>,
    /// The error of the operating system: `ENOENT` if the kernel has no congestion control of this
    /// name, `EPERM` if it is reserved for processes with `CAP_NET_ADMIN`.
    pub source: io::Error,
    /// The names that the kernel has, and those that every process may choose.
    pub choices: String,
}

impl From<CongestionError> for io::Error {
    fn from(error: CongestionError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// The congestion control of the sockets of a transport.
#[derive(Clone, Debug, Default)]
pub(crate) struct Congestion(Option<Arc<str>>);

impl Congestion {
    /// Takes the value of the configuration, in which an empty name means the default of the kernel.
    ///
    /// # Errors
    ///
    /// [`CongestionError`] if a new socket cannot have it.
    pub(crate) fn new(name: &str) -> Result<Self, CongestionError> {
        if name.is_empty() {
            return Ok(Self(None));
        }
        let name: Arc<str> = name.into();
        // A host may lack one of the IP versions.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)
            .or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, None));
        socket
            .and_then(|socket| set(&socket, &name))
            .map_err(|source| refused(&name, source))?;
        Ok(Self(Some(name)))
    }

    /// Sets the option of `socket`. Connections that a listener accepts inherit it.
    ///
    /// # Errors
    ///
    /// [`CongestionError`], if the kernel accepted the name when the transport was built and refuses
    /// it now.
    pub(super) fn apply(&self, socket: &Socket) -> io::Result<()> {
        match &self.0 {
            Some(name) => Ok(set(socket, name).map_err(|source| refused(name, source))?),
            None => Ok(()),
        }
    }
}

fn refused(name: &Arc<str>, source: io::Error) -> CongestionError {
    let read = |list: &str| {
        let names = std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{list}"));
        names.map_or_else(|_| "unknown".to_owned(), |names| names.trim().to_owned())
    };
    CongestionError {
        name: Arc::clone(name),
        source,
        choices: format!(
            "available: {}; without CAP_NET_ADMIN: {}",
            read("available_congestion_control"),
            read("allowed_congestion_control")
        ),
    }
}

#[cfg(target_os = "linux")]
fn set(socket: &Socket, name: &str) -> io::Result<()> {
    socket.set_tcp_congestion(name.as_bytes())
}

/// The configuration refuses a name on these systems.
#[cfg(not(target_os = "linux"))]
fn set(_: &Socket, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
